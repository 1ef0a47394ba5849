"""Direct functions on an application's own connection, whatever its settings and its state."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import ABSENT
from engines import Engine
from interposed import altered, watch

from statedb import InvalidTypeError, NoSuchObjectError, UnusableConnectionError, schema
from statedb.connection import adapt
from statedb.dialects import Dialect
from statedb.state import (
    atomic_create_state,
    delete_object,
    delete_state,
    get_object_id,
    get_objects,
    get_state,
    get_states,
    set_state,
    set_states,
    update_state,
)

Stored = Callable[[int, str], Any]
Connect = Callable[..., Any]


def _is_postgresql(engine: Engine) -> bool:
    return engine.name.startswith("postgresql")


def _is_mysql(engine: Engine) -> bool:
    return engine.name.startswith(("mariadb", "mysql"))


def _write_everything(own: Any, objectid: int) -> None:
    """Every operation that writes, each with an effect."""
    assert set_state(own, objectid, "set", 1) == 1
    assert set_state(own, objectid, "set", 2) == 2
    assert set_states(own, objectid, {"several": 1, "more": 2}) == {"several": 1, "more": 2}
    assert atomic_create_state(own, objectid, "created", lambda: "c") == "c"
    assert update_state(own, objectid, "counter", lambda value: value + 1, 0) == 1
    assert update_state(own, objectid, "counter", lambda value: value + 1, 0) == 2
    assert delete_state(own, objectid, "more") is True
    other = get_object_id(own, "the application's", "Object")
    assert set_state(own, other, "k", 1) == 1
    assert delete_object(own, other) is True
    assert delete_object(own, other) is False


WRITTEN = {"set": 2, "several": 1, "created": "c", "counter": 2}


def _count_own(application: Connect) -> int:
    cursor = application(autocommit=True).cursor()
    cursor.execute("SELECT count(*) FROM own")
    count: int = cursor.fetchone()[0]
    return count


@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
def test_what_is_written_ends_with_the_applications_transaction(
    engine: Engine,
    application: Connect,
    own_table: None,
    objectid: int,
    stored: Stored,
    ends: str,
    begun: bool,
) -> None:
    own = application()
    if begun:
        own.cursor().execute("INSERT INTO own VALUES ('before')")
    _write_everything(own, objectid)
    own.cursor().execute("INSERT INTO own VALUES ('after')")
    if engine.name != "sqlite":
        assert stored(objectid, "set") is ABSENT
    getattr(own, ends)()
    second = application()
    if ends == "commit":
        assert get_states(second, objectid) == WRITTEN
        assert _count_own(application) == 1 + begun
    else:
        assert get_states(second, objectid) == {}
        assert _count_own(application) == 0


@pytest.mark.parametrize(
    "write",
    [
        lambda own, objectid: set_state(own, objectid, "k", 1),
        lambda own, objectid: set_states(own, objectid, {"k": 1, "l": 2}),
        lambda own, objectid: atomic_create_state(own, objectid, "k", lambda: 1),
        lambda own, objectid: update_state(own, objectid, "k", lambda value: value, 1),
    ],
    ids=["set", "set several", "create", "update"],
)
def test_the_first_write_begins_the_transaction_that_the_driver_would_begin(
    application: Connect, objectid: int, stored: Stored, write: Callable[[Any, int], Any]
) -> None:
    own = application()
    write(own, objectid)
    assert stored(objectid, "k") is ABSENT
    own.rollback()
    assert stored(objectid, "k") is ABSENT
    write(own, objectid)
    own.commit()
    assert stored(objectid, "k") == 1


def test_deleting_an_object_first_of_all_is_undone_by_the_applications_rollback(
    application: Connect, objectid: int, stored: Stored
) -> None:
    own = application()
    set_state(own, objectid, "k", 1)
    own.commit()
    assert delete_object(own, objectid) is True
    own.rollback()
    assert stored(objectid, "k") == 1
    assert delete_object(own, objectid) is True
    own.commit()
    assert stored(objectid, "k") is ABSENT


def test_in_autocommit_each_operation_is_a_transaction_of_its_own(
    application: Connect, objectid: int, stored: Stored
) -> None:
    own = application(autocommit=True)
    _write_everything(own, objectid)
    assert [stored(objectid, name) for name in WRITTEN] == list(WRITTEN.values())


def test_in_autocommit_a_half_done_operation_is_undone(
    engine: Engine, application: Connect, objectid: int, stored: Stored
) -> None:
    own = application(autocommit=True)

    def fail(sql: str) -> None:
        if "DELETE FROM statedb_states" in sql:
            raise ZeroDivisionError

    set_state(own, objectid, "k", 1)
    with watch(fail), pytest.raises(ZeroDivisionError):
        delete_object(own, objectid)
    assert stored(objectid, "k") == 1
    assert [one.id for one in get_objects(application())] == [objectid]
    assert set_state(own, objectid, "k", 2) == 2


def test_within_a_transaction_begun_by_hand_in_autocommit_nothing_is_committed(
    application: Connect, objectid: int, stored: Stored, engine: Engine
) -> None:
    own = application(autocommit=True)
    own.cursor().execute("BEGIN")
    _write_everything(own, objectid)
    own.cursor().execute("ROLLBACK")
    assert stored(objectid, "set") is ABSENT


def test_within_a_savepoint_of_the_applications_only_that_is_undone(
    application: Connect, objectid: int, stored: Stored
) -> None:
    own = application(autocommit=True)
    cursor = own.cursor()
    cursor.execute("BEGIN")
    set_state(own, objectid, "kept", 1)
    cursor.execute("SAVEPOINT the_application_s")
    set_states(own, objectid, {"undone": 1})
    cursor.execute("ROLLBACK TO SAVEPOINT the_application_s")
    set_states(own, objectid, {"kept too": 1})
    cursor.execute("COMMIT")
    assert [stored(objectid, name) for name in ("kept", "undone", "kept too")] == [1, ABSENT, 1]


def test_a_savepoint_with_which_the_application_begins_outlives_what_is_written_within(
    application: Connect, objectid: int, stored: Stored
) -> None:
    own = application()
    cursor = own.cursor()
    cursor.execute("SAVEPOINT the_application_s")
    set_states(own, objectid, {"undone": 1, "more": 2})
    cursor.execute("ROLLBACK TO SAVEPOINT the_application_s")
    set_states(own, objectid, {"kept": 1})
    cursor.execute("RELEASE SAVEPOINT the_application_s")
    own.commit()
    assert [stored(objectid, name) for name in ("undone", "kept")] == [ABSENT, 1]


@pytest.mark.parametrize("autocommit", [True, False])
def test_an_error_of_ours_leaves_the_transaction_usable(
    application: Connect, own_table: None, objectid: int, stored: Stored, autocommit: bool
) -> None:
    own = application(autocommit=autocommit)
    if autocommit:
        own.cursor().execute("BEGIN")
    own.cursor().execute("INSERT INTO own VALUES ('before')")
    set_state(own, objectid, "before", 1)
    for fail in (
        lambda: set_state(own, 987_654, "k", 1),
        lambda: set_states(own, 987_654, {"k": 1}),
        lambda: set_states(own, objectid, {"a": 1, "b": {1}}),
        lambda: atomic_create_state(own, 987_654, "k", lambda: 1),
        lambda: update_state(own, 987_654, "k", lambda value: value, 1),
        lambda: get_state(own, objectid, "absent"),
        lambda: set_state(own, objectid, "", 1),
        lambda: get_object_id(own, "", ""),
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            fail()
    set_state(own, objectid, "after", 2)
    own.commit()
    assert [stored(objectid, name) for name in ("before", "a", "after")] == [1, ABSENT, 2]
    assert _count_own(application) == 1


def test_the_isolation_level_is_the_applications(
    engine: Engine, application: Connect, objectid: int, stored: Stored
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's only level is serializable")
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "READ UNCOMMITTED"):
        own = application()
        session = "SET SESSION CHARACTERISTICS AS" if _is_postgresql(engine) else "SET SESSION"
        own.cursor().execute(f"{session} TRANSACTION ISOLATION LEVEL {level}")
        own.commit()
        _write_everything(own, objectid)
        assert get_states(own, objectid) == WRITTEN
        own.commit()
        assert stored(objectid, "counter") == 2
        for name in WRITTEN:
            delete_state(own, objectid, name)
        own.commit()


def test_dict_rows_are_the_applications_own_matter(
    engine: Engine, application: Connect, objectid: int
) -> None:
    if _is_postgresql(engine):
        from psycopg.rows import dict_row

        own = application(row_factory=dict_row)
    elif _is_mysql(engine):
        from pymysql.cursors import DictCursor

        own = application(cursorclass=DictCursor)
    else:
        own = application()
        own.row_factory = lambda cursor, row: {"the": "application's"}
    _write_everything(own, objectid)
    assert get_states(own, objectid) == WRITTEN
    assert get_states(own, objectid, ["set"]) == {"set": 2}
    assert len(get_objects(own)) == 1
    own.commit()


def test_odd_settings_of_a_driver_change_nothing(
    engine: Engine, application: Connect, objectid: int
) -> None:
    names = ["é😀'\\%s", "plain", "\\", "a'b\"c`"]
    for settings in _odd_settings(engine):
        own = application(**settings)
        _prepare_oddly(engine, own)
        objects = [get_object_id(own, name, "Odd\\'") for name in names]
        assert [get_object_id(own, name, "Odd\\'") for name in names] == objects
        for name in names:
            assert set_state(own, objectid, name, {"é": "😀\\' %"}) == {"é": "😀\\' %"}
            assert update_state(own, objectid, name, lambda value: [value]) == [{"é": "😀\\' %"}]
            assert get_state(own, objectid, name) == [{"é": "😀\\' %"}]
        assert sorted(get_states(own, objectid)) == sorted(names)
        assert sorted(get_states(own, objectid, names)) == sorted(names)
        assert {one.name for one in get_objects(own)} >= set(names)
        own.rollback()


def test_converters_of_the_applications_are_not_for_our_columns(
    engine: Engine, application: Connect, objectid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.name != "sqlite":
        pytest.skip("sqlite3 only")
    for kind in ("TEXT", "BLOB"):
        monkeypatch.setitem(sqlite3.converters, kind, bytes.upper)
    own = application(detect_types=sqlite3.PARSE_DECLTYPES)
    assert set_states(own, objectid, {"name": "value"}) == {"name": "value"}
    assert get_states(own, objectid) == {"name": "value"}
    assert [one.name for one in get_objects(own)] == ["nightly"]
    own.rollback()


def _odd_settings(engine: Engine) -> list[dict[str, Any]]:
    if _is_postgresql(engine):
        import psycopg

        return [
            {"client_encoding": "latin1"},
            {"client_encoding": "sql_ascii"},
            {"cursor_factory": psycopg.ClientCursor},
            {"cursor_factory": psycopg.RawCursor},
            {"prepare_threshold": 0},
            {"prepare_threshold": None},
            {"options": "-c standard_conforming_strings=off -c bytea_output=escape"},
        ]
    if _is_mysql(engine):
        from pymysql.constants import CLIENT

        return [
            {"charset": "latin1"},
            {"charset": "utf8mb3"},
            {"charset": "gbk"},
            {"use_unicode": False},
            {"client_flag": CLIENT.FOUND_ROWS},
            {"client_flag": CLIENT.MULTI_STATEMENTS},
            {"sql_mode": "NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT"},
            {"sql_mode": ""},
        ]
    settings: list[dict[str, Any]] = [
        {"detect_types": sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES},
        {"isolation_level": "IMMEDIATE"},
        {"isolation_level": "EXCLUSIVE"},
        {"isolation_level": "DEFERRED"},
        {"cached_statements": 0},
    ]
    if sys.version_info >= (3, 12):
        settings += [{"autocommit": False}]
    return settings


def test_texts_that_an_application_has_as_bytes_are_understood(
    engine: Engine, application: Callable[..., Any]
) -> None:
    own = application(autocommit=True, **({"use_unicode": False} if _is_mysql(engine) else {}))
    if engine.name == "sqlite":
        own.text_factory = bytes
    assert schema.upgrade(own) == schema.VERSION

    def certifying(dialect: Dialect) -> Dialect:
        return dataclasses.replace(dialect, certification="SELECT 'x', 'ON'")

    if _is_mysql(engine):
        with altered(certifying):
            assert adapt(own).certifies() is True


def _prepare_oddly(engine: Engine, own: Any) -> None:
    if engine.name == "sqlite":
        own.text_factory = bytes
        if own.in_transaction is False:
            own.execute("PRAGMA foreign_keys = ON")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has `autocommit` from 3.12 on")
@pytest.mark.parametrize("mode", [True, False])
def test_sqlite3s_new_modes(
    engine: Engine, url: str, objectid: int, stored: Stored, mode: bool
) -> None:
    if engine.name != "sqlite":
        pytest.skip("sqlite3 only")
    path = url.removeprefix("sqlite:///")
    connect: Any = sqlite3.connect
    with contextlib.closing(connect(path, autocommit=mode)) as own:
        _write_everything(own, objectid)
        if not mode:
            assert stored(objectid, "set") is ABSENT
            own.commit()
    assert stored(objectid, "set") == 2


def test_sqlite3s_legacy_mode_begins_as_a_writer(
    engine: Engine, application: Connect, objectid: int
) -> None:
    """Two readers that both mean to write would be refused at once; writers wait for each other."""
    if engine.name != "sqlite":
        pytest.skip("SQLite only")
    barrier = threading.Barrier(2)
    errors = []

    def work(number: int) -> None:
        own = application(timeout=30)
        barrier.wait()
        try:
            for _ in range(50):
                set_states(own, objectid, {"a": number, "b": number})
                own.commit()
        except sqlite3.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_deadlock_reaches_the_application_undisguised(
    engine: Engine, application: Connect, objectid: int
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite has one writer; see the test of its stale snapshot")
    first, second = application(), application()
    for name in ("a", "b"):
        set_state(first, objectid, name, 0)
    first.commit()
    set_state(first, objectid, "a", 1)
    set_state(second, objectid, "b", 2)
    failures: list[Any] = []

    def cross(own: Any, name: str) -> None:
        try:
            set_states(own, objectid, {name: 3})
            own.commit()
        except Exception as error:
            failures.append(error)
            own.rollback()

    threads = [threading.Thread(target=cross, args=pair) for pair in ((first, "b"), (second, "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (failure,) = failures
    if _is_postgresql(engine):
        assert failure.sqlstate == "40P01"
    else:
        assert failure.args[0] == 1213
    # The application starts again, as it would without us.
    for own in (first, second):
        set_states(own, objectid, {"a": 4, "b": 4})
        own.commit()


def test_a_serialization_failure_reaches_the_application_undisguised(
    engine: Engine, application: Connect, objectid: int
) -> None:
    if not _is_postgresql(engine):
        pytest.skip("PostgreSQL only")
    first, second = application(), application()
    set_state(first, objectid, "k", 0)
    first.commit()
    first.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert get_state(first, objectid, "k") == 0
    set_state(second, objectid, "k", 1)
    second.commit()
    with pytest.raises(Exception, match="could not serialize") as raised:
        update_state(first, objectid, "k", lambda value: value + 1)
    assert raised.value.sqlstate == "40001"  # type: ignore[attr-defined]
    first.rollback()
    assert update_state(first, objectid, "k", lambda value: value + 1) == 2
    first.commit()


def test_a_stale_snapshot_reaches_the_application_undisguised(
    engine: Engine, application: Connect, objectid: int
) -> None:
    if engine.name != "sqlite":
        pytest.skip("SQLite only")
    first, second = application(), application()
    first.execute("BEGIN")
    assert get_state(first, objectid, "k", "absent") == "absent"
    set_state(second, objectid, "k", 1)
    second.commit()
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        set_state(first, objectid, "k", 2)
    first.rollback()
    assert set_state(first, objectid, "k", 2) == 2
    first.commit()


def test_within_an_open_transaction_an_update_locks_its_row(
    engine: Engine, application: Connect, objectid: int, stored: Stored
) -> None:
    own = application()
    set_state(own, objectid, "k", 0)
    own.commit()
    if engine.name == "sqlite":
        own.execute("BEGIN IMMEDIATE")

    def rival() -> None:
        update_state(application(autocommit=True), objectid, "k", lambda value: value + 10)

    thread = threading.Thread(target=rival)

    def add(value: int) -> int:
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        return value + 1

    assert update_state(own, objectid, "k", add) == 1
    own.commit()
    thread.join()
    assert stored(objectid, "k") == 11


def test_a_pipeline_is_refused(engine: Engine, application: Connect, objectid: int) -> None:
    if not _is_postgresql(engine):
        pytest.skip("psycopg only")
    own = application(autocommit=True)
    with own.pipeline(), pytest.raises(UnusableConnectionError, match="pipeline mode"):
        set_state(own, objectid, "k", 1)
    assert set_state(own, objectid, "k", 1) == 1


def test_a_half_read_streaming_cursor_is_refused(
    engine: Engine, application: Connect, objectid: int
) -> None:
    if not _is_mysql(engine):
        pytest.skip("PyMySQL only")
    from pymysql.cursors import SSCursor

    own = application(autocommit=True)
    set_states(own, objectid, {"a": 1, "b": 2, "c": 3})
    streaming = own.cursor(SSCursor)
    streaming.execute("SELECT value FROM statedb_states ORDER BY value")
    assert streaming.fetchone() == ("1",)
    with pytest.raises(UnusableConnectionError, match="unread rows"):
        get_state(own, objectid, "a")
    assert list(streaming) == [("2",), ("3",)]
    assert get_state(own, objectid, "a") == 1
    streaming.close()


@pytest.mark.parametrize("other", [None, 1, "sqlite://", object])
def test_what_is_no_connection_is_a_type_error(other: Any) -> None:
    with pytest.raises(InvalidTypeError, match="is no connection of statedb, sqlite3, psycopg or"):
        get_state(other, 1, "k")


def test_an_asyncio_connection_is_refused() -> None:
    psycopg = pytest.importorskip("psycopg")
    own = psycopg.AsyncConnection.__new__(psycopg.AsyncConnection)
    with pytest.raises(UnusableConnectionError, match="not a blocking psycopg"):
        get_state(own, 1, "k")


def test_writing_to_an_unknown_object_says_so_in_autocommit_too(
    application: Connect, stored: Stored
) -> None:
    own = application(autocommit=True)
    with pytest.raises(NoSuchObjectError):
        set_states(own, 987_654, {"k": 1})
    assert stored(987_654, "k") is ABSENT
