"""Direct functions on Django's connection: in its transactions, by its rules."""

from __future__ import annotations

import asyncio
import importlib
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import django.db
import pytest
from conftest import ABSENT
from django.conf import settings
from django.core.exceptions import SynchronousOnlyOperation
from django.db import IntegrityError, connection, connections, migrations, models, transaction
from django.db.migrations.state import ProjectState
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from engines import Engine
from interposed import watch

from statedb import InvalidTypeError, UnusableConnectionError, masters, schema
from statedb.connection import adapt
from statedb.state import (
    delete_object,
    get_object_id,
    get_objects,
    get_state,
    get_states,
    set_state,
    set_states,
    update_state,
)

Stored = Callable[[int, str], Any]

settings.configure(
    ALLOWED_HOSTS=["testserver"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    LOGGING_CONFIG=None,
    ROOT_URLCONF=__name__,
    USE_TZ=True,
)
django.setup()


class Order(models.Model):
    """What the application itself keeps."""

    number: Any = models.IntegerField(unique=True)

    class Meta:
        app_label = "shop"


def order(request: HttpRequest, objectid: int, number: int) -> HttpResponse:
    Order.objects.create(number=number)
    set_state(connection, objectid, "last", number)
    if number > 100:
        raise ValueError("there are no such orders")
    return HttpResponse()


urlpatterns = [path("order/<int:objectid>/<int:number>", order)]


def databases(engine: Engine, url: str, **more: Any) -> dict[str, Any]:
    """What stands in a Django project's settings for this database."""
    if engine.name == "sqlite":
        return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": url[10:], **more}}
    if engine.name.startswith("postgresql"):
        kind = "django.db.backends.postgresql"
    else:
        kind = "django.db.backends.mysql"
        # Of itself PyMySQL says that it is the version of mysqlclient that Django asks for.
        importlib.import_module("pymysql").install_as_MySQLdb()
    parts = urllib.parse.urlsplit(url)
    place = {"HOST": parts.hostname, "PORT": parts.port, "NAME": parts.path[1:]}
    who = {"USER": parts.username, "PASSWORD": urllib.parse.unquote(parts.password or "")}
    return {"default": {"ENGINE": kind, **place, **who, **more}}


@pytest.fixture
def configure(engine: Engine) -> Iterator[Callable[..., None]]:
    """Has Django's connection lead to the database of a URL, until the test ends."""

    def end() -> None:
        connections.close_all()
        if connections.all(initialized_only=True):
            del connections["default"]

    def begin(url: str, **more: Any) -> None:
        end()
        connections.settings = connections.configure_settings(databases(engine, url, **more))

    yield begin
    end()


@pytest.fixture
def project(configure: Callable[..., None], url: str) -> Iterator[None]:
    """Django's connection leads to the test's database, which has the application's table too."""
    configure(url)
    with connection.schema_editor() as editor:
        editor.create_model(Order)
    yield
    with connection.schema_editor() as editor:
        editor.delete_model(Order)


@pytest.fixture
def orders(project: None, second: Any) -> Callable[[], list[int]]:
    """Reads the application's rows by a connection of the driver's own."""

    def read() -> list[int]:
        cursor = second.cursor()
        cursor.execute("SELECT number FROM shop_order ORDER BY number")
        return [number for (number,) in cursor.fetchall()]

    return read


def given(kind: str) -> Any:
    return connection if kind == "proxy" else connections["default"]


each_kind = pytest.mark.parametrize("kind", ["proxy", "wrapper"])


@each_kind
@pytest.mark.parametrize("fails", [False, True], ids=["commit", "rollback"])
def test_a_state_and_a_row_are_one_transaction_within_atomic(
    orders: Callable[[], list[int]], objectid: int, stored: Stored, kind: str, fails: bool
) -> None:
    conn = given(kind)
    try:
        with transaction.atomic():
            set_state(conn, objectid, "first", 1)
            Order.objects.create(number=1)
            set_states(conn, objectid, {"last": 1, "more": 2})
            assert update_state(conn, objectid, "last", lambda last: last + 1) == 2
            # What Django has written is seen, and the other way round.
            assert get_states(conn, objectid) == {"first": 1, "last": 2, "more": 2}
            assert (stored(objectid, "first"), orders()) == (ABSENT, [])
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert (stored(objectid, "first"), stored(objectid, "last"), orders()) == (
            *(ABSENT, ABSENT),
            [],
        )
    else:
        assert (stored(objectid, "first"), stored(objectid, "last"), orders()) == (1, 2, [1])


def test_an_inner_atomic_that_fails_takes_only_its_own_along(
    orders: Callable[[], list[int]], objectid: int, stored: Stored
) -> None:
    with transaction.atomic():
        Order.objects.create(number=1)
        set_state(connection, objectid, "outer", 1)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Order.objects.create(number=2)
            set_states(connection, objectid, {"outer": 2, "inner": 2})
            raise ZeroDivisionError
        with transaction.atomic():
            Order.objects.create(number=3)
            set_state(connection, objectid, "kept", 3)
    assert orders() == [1, 3]
    assert [stored(objectid, name) for name in ("outer", "inner", "kept")] == [1, ABSENT, 3]


def test_an_outer_atomic_that_fails_takes_the_inner_along(
    orders: Callable[[], list[int]], objectid: int, stored: Stored
) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        with transaction.atomic():
            Order.objects.create(number=1)
            set_states(connection, objectid, {"inner": 1, "more": 2})
        raise ZeroDivisionError
    assert (stored(objectid, "inner"), orders()) == (ABSENT, [])


def test_outside_of_atomic_each_function_commits_all_or_nothing(
    project: None, objectid: int, stored: Stored
) -> None:
    def fail(sql: str) -> None:
        if "DELETE FROM statedb_states" in sql:
            raise ZeroDivisionError

    set_states(connection, objectid, {"a": 1, "b": 2})
    assert (stored(objectid, "a"), stored(objectid, "b")) == (1, 2)
    with watch(fail), pytest.raises(ZeroDivisionError):
        delete_object(connection, objectid)
    assert stored(objectid, "a") == 1
    assert [one.id for one in get_objects(connection)] == [objectid]
    assert delete_object(connection, objectid) is True
    assert stored(objectid, "a") is ABSENT


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_without_autocommit_all_waits_for_commit(
    orders: Callable[[], list[int]], objectid: int, stored: Stored, ends: str
) -> None:
    transaction.set_autocommit(False)
    set_state(connection, objectid, "k", 1)
    Order.objects.create(number=1)
    assert (stored(objectid, "k"), orders()) == (ABSENT, [])
    getattr(transaction, ends)()
    assert (stored(objectid, "k"), orders()) == ((1, [1]) if ends == "commit" else (ABSENT, []))
    transaction.set_autocommit(True)


def test_after_an_error_that_was_caught_in_atomic_it_refuses_as_django_does(
    orders: Callable[[], list[int]], objectid: int, stored: Stored
) -> None:
    with transaction.atomic():
        Order.objects.create(number=1)
        set_state(connection, objectid, "k", 1)
        with pytest.raises(IntegrityError), transaction.atomic(savepoint=False):
            Order.objects.create(number=1)
        with pytest.raises(transaction.TransactionManagementError, match="end of the 'atomic'"):
            set_state(connection, objectid, "k", 2)
        with pytest.raises(transaction.TransactionManagementError, match="end of the 'atomic'"):
            get_state(connection, objectid, "k")
    assert (stored(objectid, "k"), orders()) == (ABSENT, [])


def test_after_an_error_in_an_inner_atomic_the_outer_goes_on(
    orders: Callable[[], list[int]], objectid: int, stored: Stored
) -> None:
    with transaction.atomic():
        Order.objects.create(number=1)
        with pytest.raises(IntegrityError), transaction.atomic():
            set_state(connection, objectid, "inner", 1)
            Order.objects.create(number=1)
        set_state(connection, objectid, "outer", 1)
    assert orders() == [1]
    assert (stored(objectid, "inner"), stored(objectid, "outer")) == (ABSENT, 1)


def test_a_view_is_one_transaction_where_requests_are_atomic(
    orders: Callable[[], list[int]], objectid: int, stored: Stored
) -> None:
    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    client = Client(raise_request_exception=False)
    assert client.get(f"/order/{objectid}/7").status_code == 200
    assert (stored(objectid, "last"), orders()) == (7, [7])
    assert client.get(f"/order/{objectid}/101").status_code == 500
    assert (stored(objectid, "last"), orders()) == (7, [7])


@each_kind
def test_it_connects_where_django_has_closed_its_connection(
    project: None, objectid: int, stored: Stored, kind: str
) -> None:
    conn = given(kind)
    conn.close()
    assert conn.connection is None
    set_state(conn, objectid, "k", 1)
    assert stored(objectid, "k") == 1
    assert conn.connection is not None


def test_a_connection_that_is_closed_within_atomic_is_refused(
    project: None, objectid: int, stored: Stored
) -> None:
    with pytest.raises(django.db.Error), transaction.atomic():
        set_state(connection, objectid, "k", 1)
        connection.close()
        set_state(connection, objectid, "k", 2)
    assert stored(objectid, "k") is ABSENT


def test_another_thread_is_refused_as_django_refuses_it(
    project: None, objectid: int, stored: Stored
) -> None:
    errors: list[Exception] = []
    conn = connections["default"]

    def work() -> None:
        try:
            set_state(conn, objectid, "k", 1)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (error,) = errors
    assert isinstance(error, django.db.DatabaseError)
    assert "thread" in str(error)
    assert stored(objectid, "k") is ABSENT


def test_an_event_loop_is_refused_as_django_refuses_it(
    project: None, objectid: int, stored: Stored
) -> None:
    async def work() -> None:
        set_state(connection, objectid, "k", 1)

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(work())
    assert stored(objectid, "k") is ABSENT


def test_claims_are_held_in_its_transactions(project: None, objectid: int, second: Any) -> None:
    with transaction.atomic():
        masterid = masters.find_master_id(connection, "host1:/srv/master")
        masters.set_master_state(connection, masterid, True)
        claim = masters.claim(connection, masterid, "scheduler", "nightly")
        assert masters.get_claims(second) == []
    with transaction.atomic():
        masters.hold_claim(connection, claim)
        set_state(connection, objectid, "k", 1)
    assert masters.get_claims(second) == [claim]


def test_an_error_of_the_drivers_stays_so_unless_django_is_asked_to_wrap_it(
    engine: Engine, configure: Callable[..., None], tmp_path: Path
) -> None:
    with engine.empty_database(tmp_path) as url:
        configure(url)
        with pytest.raises(Exception, match="statedb_objects") as caught:
            get_object_id(connection, "nightly", "Scheduler")
        driver = type(caught.value).__module__.partition(".")[0]
        assert driver in ("sqlite3", "psycopg", "pymysql")
        assert connection.errors_occurred is False
        wrapped = pytest.raises(django.db.DatabaseError, match="statedb_objects")
        with wrapped, connection.wrap_database_errors:
            get_object_id(connection, "nightly", "Scheduler")
        assert connection.errors_occurred is True
        connections.close_all()


def upgrade(apps: Any, editor: Any) -> None:
    schema.upgrade(editor.connection)


def test_a_migration_makes_the_tables(
    engine: Engine, configure: Callable[..., None], tmp_path: Path
) -> None:
    with engine.empty_database(tmp_path) as url:
        configure(url)
        step: Any = migrations.Migration("0001_statedb", "shop")
        noop = migrations.RunPython.noop
        step.operations = [migrations.RunPython(upgrade, noop, atomic=False)]
        with connection.schema_editor(atomic=step.atomic) as editor:
            step.apply(ProjectState(), editor)
        assert schema.upgrade(connection) == schema.VERSION
        assert get_object_id(connection, "nightly", "Scheduler") == 1
        with connection.schema_editor(atomic=step.atomic) as editor:
            step.unapply(ProjectState(), editor)
        assert get_object_id(connection, "nightly", "Scheduler") == 1
        connections.close_all()


def test_a_driver_that_is_none_of_ours_is_named_with_those_that_are(
    project: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As mysqlclient's, which takes a compiler and the server's headers to install.
    class Connection:
        __module__ = "MySQLdb.connections"
        __qualname__ = "Connection"
        cursor = commit = rollback = close = lambda self: None

    wrapper = connections["default"]
    monkeypatch.setattr(wrapper, "create_cursor", lambda name=None: wrapper.connection)
    monkeypatch.setattr(wrapper, "connection", Connection())
    with pytest.raises(
        InvalidTypeError,
        match=r"^a MySQLdb.connections.Connection, within a django\S+, is no connection of statedb,"
        r" sqlite3, psycopg or pymysql; legal are these and,",
    ):
        get_state(connection, 1, "k")
    monkeypatch.undo()


def test_pools_of_djangos_are_taken(
    engine: Engine, configure: Callable[..., None], url: str, objectid: int, stored: Stored
) -> None:
    if not engine.name.startswith("postgresql"):
        pytest.skip("Django pools PostgreSQL's connections only")
    configure(url, OPTIONS={"pool": {"min_size": 1, "max_size": 2}})
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        set_state(connection, objectid, "undone", 1)
        raise ZeroDivisionError
    with transaction.atomic():
        set_state(connection, objectid, "done", 1)
    assert (stored(objectid, "undone"), stored(objectid, "done")) == (ABSENT, 1)
    connection.close()
    wrapper: Any = connections["default"]
    wrapper.close_pool()


def test_upgrading_in_a_transaction_that_it_would_commit_is_refused(
    engine: Engine, orders: Callable[[], list[int]]
) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Order.objects.create(number=1)
        if engine.name in ("sqlite", "postgresql", "postgresql by URL"):
            schema.upgrade(connection)
        else:
            with pytest.raises(UnusableConnectionError, match="commits"):
                schema.upgrade(connection)
        raise ZeroDivisionError
    assert orders() == []


def test_a_key_that_is_taken_is_seen_to_be_whatever_django_has_made_of_the_driver(
    project: None,
) -> None:
    # For Django, PyMySQL's modules are MySQLdb's too, and what `pymysql.err` was is another then.
    conn = adapt(connection)
    assert not conn.insert(f"INSERT INTO statedb_schema (version) VALUES ({schema.VERSION})")
