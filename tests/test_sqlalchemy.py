"""Direct functions on what SQLAlchemy has: its Connection, its Session, and what its pool gives."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ABSENT
from engines import Engine
from interposed import watch
from sqlalchemy import Integer, String, create_engine, event, exc, insert, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.pool import NullPool

from statedb import InvalidTypeError, UnusableConnectionError, masters
from statedb.state import delete_object, get_state, get_states, set_state, set_states, update_state

Stored = Callable[[int, str], Any]


class Base(DeclarativeBase):
    pass


class Order(Base):
    """What the application itself keeps."""

    __tablename__ = "shop_order"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, unique=True)
    note: Mapped[str] = mapped_column(String(20), default="")


def address(engine: Engine, url: str) -> URL:
    """The URL by which SQLAlchemy takes our driver to the same database."""
    if engine.name == "sqlite":
        return URL.create("sqlite", database=url.removeprefix("sqlite:///"))
    parts = urllib.parse.urlsplit(url)
    return URL.create(
        "postgresql+psycopg" if engine.name.startswith("postgresql") else "mysql+pymysql",
        username=parts.username,
        password=urllib.parse.unquote(parts.password or ""),
        host=parts.hostname,
        port=parts.port,
        database=parts.path[1:],
    )


Make = Callable[..., Any]


@pytest.fixture
def make(engine: Engine, url: str) -> Iterator[Make]:
    """Makes engines of SQLAlchemy's, which end with the test."""
    with contextlib.ExitStack() as stack:

        def create(**settings: Any) -> Any:
            alchemy = create_engine(address(engine, url), **settings)
            stack.callback(alchemy.dispose)
            return alchemy

        yield create


@pytest.fixture
def alchemy(engine: Engine, make: Make) -> Iterator[Any]:
    """An engine of SQLAlchemy's, on SQLite with the events by which savepoints work."""
    made = make()
    if engine.name == "sqlite":
        begin_by_events(made)
    Base.metadata.create_all(made)
    yield made
    Base.metadata.drop_all(made)


def begin_by_events(made: Any) -> None:
    """Have SQLAlchemy begin each transaction of SQLite's, not the driver."""

    @event.listens_for(made, "connect")
    def leave_it(raw: Any, record: Any) -> None:
        raw.isolation_level = None

    @event.listens_for(made, "begin")
    def begin(conn: Any) -> None:
        conn.exec_driver_sql("BEGIN IMMEDIATE")


@pytest.fixture
def orders(alchemy: Any, second: Any) -> Callable[[], list[int]]:
    """Reads the application's rows by a connection of the driver's own."""

    def read() -> list[int]:
        cursor = second.cursor()
        cursor.execute("SELECT number FROM shop_order ORDER BY number")
        return [number for (number,) in cursor.fetchall()]

    return read


@contextlib.contextmanager
def opened(alchemy: Any, kind: str) -> Iterator[Any]:
    if kind == "scoped":
        scoped = scoped_session(sessionmaker(alchemy))
        try:
            yield scoped
        finally:
            scoped.remove()
    else:
        with alchemy.connect() if kind == "connection" else Session(alchemy) as it:
            yield it


each_kind = pytest.mark.parametrize("kind", ["connection", "session", "scoped"])


@each_kind
@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize("first", ["state", "row"])
def test_a_state_and_a_row_are_one_transaction(
    alchemy: Any,
    orders: Callable[[], list[int]],
    objectid: int,
    stored: Stored,
    kind: str,
    ends: str,
    first: str,
) -> None:
    with opened(alchemy, kind) as it:
        if first == "row":
            it.execute(insert(Order).values(number=1))
        set_states(it, objectid, {"last": 1, "more": 2})
        if first == "state":
            it.execute(insert(Order).values(number=1))
        assert update_state(it, objectid, "last", lambda last: last + 1) == 2
        assert get_states(it, objectid) == {"last": 2, "more": 2}
        assert (stored(objectid, "last"), orders()) == (ABSENT, [])
        getattr(it, ends)()
        expected = (2, [1]) if ends == "commit" else (ABSENT, [])
        assert (stored(objectid, "last"), orders()) == expected


@each_kind
@pytest.mark.parametrize("recipe", [True, False], ids=["by events", "by the driver"])
def test_what_is_written_alone_waits_for_commit_too(
    engine: Engine, make: Make, objectid: int, stored: Stored, kind: str, recipe: bool
) -> None:
    alchemy = make()
    if recipe and engine.name == "sqlite":
        begin_by_events(alchemy)
    with opened(alchemy, kind) as it:
        set_state(it, objectid, "k", 1)
        assert stored(objectid, "k") is ABSENT
        it.commit()
        assert stored(objectid, "k") == 1
        set_state(it, objectid, "k", 2)
        it.rollback()
        assert get_state(it, objectid, "k") == 1
        set_state(it, objectid, "k", 3)
    assert stored(objectid, "k") == 1


@each_kind
def test_a_block_of_begin_commits_all_or_nothing(
    alchemy: Any, orders: Callable[[], list[int]], objectid: int, stored: Stored, kind: str
) -> None:
    with opened(alchemy, kind) as it:
        with pytest.raises(ZeroDivisionError), it.begin():
            set_state(it, objectid, "k", 1)
            it.execute(insert(Order).values(number=1))
            raise ZeroDivisionError
        assert (stored(objectid, "k"), orders()) == (ABSENT, [])
        with it.begin():
            it.execute(insert(Order).values(number=1))
            set_state(it, objectid, "k", 1)
    assert (stored(objectid, "k"), orders()) == (1, [1])


@each_kind
def test_a_nested_transaction_that_fails_takes_only_its_own_along(
    alchemy: Any, orders: Callable[[], list[int]], objectid: int, stored: Stored, kind: str
) -> None:
    with opened(alchemy, kind) as it, it.begin():
        with pytest.raises(ZeroDivisionError), it.begin_nested():
            set_states(it, objectid, {"undone": 1, "more": 2})
            it.execute(insert(Order).values(number=1))
            raise ZeroDivisionError
        with it.begin_nested():
            it.execute(insert(Order).values(number=2))
            set_states(it, objectid, {"kept": 1, "more": 3})
        set_state(it, objectid, "outer", 1)
    assert orders() == [2]
    assert [stored(objectid, name) for name in ("undone", "kept", "more", "outer")] == [
        *(ABSENT, 1, 3, 1)
    ]


@each_kind
def test_an_outer_transaction_that_fails_takes_the_nested_along(
    alchemy: Any, orders: Callable[[], list[int]], objectid: int, stored: Stored, kind: str
) -> None:
    with opened(alchemy, kind) as it, pytest.raises(ZeroDivisionError), it.begin():
        with it.begin_nested():
            set_states(it, objectid, {"a": 1, "b": 2})
            it.execute(insert(Order).values(number=1))
        raise ZeroDivisionError
    assert (stored(objectid, "a"), orders()) == (ABSENT, [])


def test_where_sqlites_driver_begins_a_released_savepoint_is_committed_with_all_in_it(
    engine: Engine, make: Make, alchemy: Any, orders: Callable[[], list[int]], objectid: int,
    stored: Stored,
) -> None:  # fmt: skip
    if engine.name != "sqlite":
        pytest.skip("other servers' savepoints begin no transaction of their own")
    with make().connect() as conn:
        with conn.begin_nested():
            set_state(conn, objectid, "k", 1)
            conn.execute(insert(Order).values(number=1))
        conn.rollback()
        # Lost by SQLAlchemy, before statedb is asked for anything: but for both alike.
        assert (stored(objectid, "k"), orders()) == (1, [1])
        set_state(conn, objectid, "k", 2)
        with conn.begin_nested():
            set_state(conn, objectid, "l", 2)
        conn.rollback()
        assert (stored(objectid, "k"), stored(objectid, "l")) == (1, ABSENT)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has `autocommit` from 3.12 on")
def test_savepoints_nest_in_sqlite3s_new_mode(
    engine: Engine, make: Make, objectid: int, stored: Stored
) -> None:
    if engine.name != "sqlite":
        pytest.skip("sqlite3 only")
    with make(connect_args={"autocommit": False}).connect() as conn:
        with conn.begin_nested():
            set_states(conn, objectid, {"k": 1, "l": 1})
        conn.rollback()
        assert stored(objectid, "k") is ABSENT
        with conn.begin_nested():
            set_states(conn, objectid, {"k": 1, "l": 1})
        conn.commit()
    assert stored(objectid, "k") == 1


@each_kind
def test_in_autocommit_each_function_commits_all_or_nothing(
    make: Make, objectid: int, stored: Stored, kind: str
) -> None:
    def fail(sql: str) -> None:
        if "DELETE FROM statedb_states" in sql:
            raise ZeroDivisionError

    with opened(make(isolation_level="AUTOCOMMIT"), kind) as it:
        set_states(it, objectid, {"a": 1, "b": 2})
        assert (stored(objectid, "a"), stored(objectid, "b")) == (1, 2)
        with watch(fail), pytest.raises(ZeroDivisionError):
            delete_object(it, objectid)
        assert stored(objectid, "a") == 1
        assert delete_object(it, objectid) is True
        assert stored(objectid, "a") is ABSENT
        it.rollback()
    assert stored(objectid, "a") is ABSENT


def test_a_closed_connection_is_refused_as_sqlalchemy_refuses_it(
    alchemy: Any, objectid: int
) -> None:
    conn = alchemy.connect()
    conn.close()
    with pytest.raises(exc.ResourceClosedError):
        set_state(conn, objectid, "k", 1)


def test_one_that_was_invalidated_in_a_transaction_is_refused_until_that_is_rolled_back(
    alchemy: Any, objectid: int, stored: Stored
) -> None:
    with alchemy.connect() as conn:
        set_state(conn, objectid, "k", 1)
        conn.invalidate()
        with pytest.raises(exc.PendingRollbackError):
            set_state(conn, objectid, "k", 2)
        assert stored(objectid, "k") is ABSENT
        conn.rollback()
        set_state(conn, objectid, "k", 3)
        conn.commit()
    assert stored(objectid, "k") == 3


def test_after_its_transaction_has_ended_a_block_of_begin_refuses_more(
    alchemy: Any, objectid: int, stored: Stored
) -> None:
    with alchemy.connect() as conn, conn.begin() as outer:
        outer.rollback()
        with pytest.raises(exc.InvalidRequestError, match="context manager"):
            set_state(conn, objectid, "k", 1)
    assert stored(objectid, "k") is ABSENT


def test_after_a_nested_transaction_was_rolled_back_by_hand_it_is_the_outer_one_that_counts(
    alchemy: Any, objectid: int, stored: Stored
) -> None:
    with alchemy.connect() as conn:
        for name, ends in (("undone", "rollback"), ("kept", "commit")):
            outer = conn.begin()
            with conn.begin_nested() as nested:
                set_states(conn, objectid, {"inner": 1, "more": 1})
                nested.rollback()
                set_states(conn, objectid, {name: 1, "more": 2})
            getattr(outer, ends)()
    assert [stored(objectid, name) for name in ("undone", "inner", "kept")] == [ABSENT, ABSENT, 1]


def test_after_a_failed_flush_a_session_is_refused_until_it_is_rolled_back(
    alchemy: Any, orders: Callable[[], list[int]], objectid: int, stored: Stored
) -> None:
    with Session(alchemy) as session:
        set_state(session, objectid, "k", 1)
        session.add_all([Order(number=1), Order(number=1)])
        with pytest.raises(exc.IntegrityError):
            session.flush()
        with pytest.raises(exc.PendingRollbackError):
            set_state(session, objectid, "k", 2)
        session.rollback()
        assert stored(objectid, "k") is ABSENT
        session.add(Order(number=2))
        set_state(session, objectid, "k", 3)
        session.commit()
    assert (stored(objectid, "k"), orders()) == (3, [2])


def test_a_session_that_does_not_begin_by_itself_is_refused(
    alchemy: Any, objectid: int, stored: Stored
) -> None:
    with Session(alchemy, autobegin=False) as session:
        with pytest.raises(exc.InvalidRequestError, match="begin"):
            set_state(session, objectid, "k", 1)
        session.begin()
        set_state(session, objectid, "k", 2)
        session.commit()
    assert stored(objectid, "k") == 2


@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize("detached", [False, True], ids=["pooled", "detached"])
def test_what_the_pool_gives_is_taken(
    alchemy: Any, objectid: int, stored: Stored, ends: str, detached: bool
) -> None:
    if alchemy.dialect.name == "sqlite":
        alchemy = create_engine(alchemy.url, poolclass=NullPool)
    with contextlib.closing(alchemy.raw_connection()) as raw:
        if detached:
            raw.detach()
        set_states(raw, objectid, {"k": 1, "l": 2})
        assert stored(objectid, "k") is ABSENT
        getattr(raw, ends)()
        assert stored(objectid, "k") is (1 if ends == "commit" else ABSENT)
    with pytest.raises(UnusableConnectionError, match="given back to its pool"):
        set_state(raw, objectid, "k", 2)


def test_what_was_not_committed_is_undone_when_the_pool_has_it_back(
    alchemy: Any, objectid: int, stored: Stored
) -> None:
    with alchemy.connect() as conn:
        set_state(conn, objectid, "k", 1)
    with alchemy.connect() as conn:
        assert get_state(conn, objectid, "k", ABSENT) is ABSENT
    assert stored(objectid, "k") is ABSENT


def test_claims_are_held_in_its_transactions(alchemy: Any, objectid: int, second: Any) -> None:
    with Session(alchemy) as session:
        masterid = masters.find_master_id(session, "host1:/srv/master")
        masters.set_master_state(session, masterid, True)
        claim = masters.claim(session, masterid, "scheduler", "nightly")
        assert masters.get_claims(second) == []
        session.commit()
        masters.hold_claim(session, claim)
        session.commit()
    assert masters.get_claims(second) == [claim]


def test_an_error_of_the_drivers_stays_so(engine: Engine, make: Make, objectid: int) -> None:
    with make().connect() as conn:
        conn.connection.dbapi_connection.close()
        with pytest.raises(Exception, match=r".*") as caught:
            set_state(conn, objectid, "k", 1)
        driver = type(caught.value).__module__.partition(".")[0]
        assert driver in ("sqlite3", "psycopg", "pymysql")
        conn.invalidate()


def test_an_engine_is_told_what_is_legal(make: Make) -> None:
    with pytest.raises(
        InvalidTypeError,
        match=r"^a sqlalchemy.engine.base.Engine is no connection of statedb, .*; legal are these"
        r" and, .* Session, or what its pools give$",
    ):
        get_state(make(), 1, "k")


def test_what_is_asynchronous_is_refused_with_what_to_do_instead(
    engine: Engine, url: str, objectid: int, stored: Stored
) -> None:
    if not engine.name.startswith("postgresql"):
        pytest.skip("of our drivers only psycopg is asynchronous too")
    make: Any = create_async_engine(address(engine, url))

    async def work() -> None:
        scoped: Any = async_scoped_session(async_sessionmaker(make), lambda: 1)
        async with make.connect() as conn, AsyncSession(make) as session:
            each: tuple[Any, ...] = (conn, session, scoped)
            for given in each:
                with pytest.raises(InvalidTypeError, match=r"is asynchronous.*wrap_future"):
                    set_state(given, objectid, "k", 1)
            with pytest.raises(InvalidTypeError, match="AsyncAdapt_psycopg_connection, within a"):
                await conn.run_sync(lambda sync: set_state(sync, objectid, "k", 1))
            await conn.commit()
        await make.dispose()

    asyncio.run(work())
    assert stored(objectid, "k") is ABSENT


def test_a_two_phase_transaction_is_no_obstacle(
    engine: Engine, alchemy: Any, objectid: int, stored: Stored
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite knows no two phases")
    with alchemy.connect() as conn:
        two_phase = conn.begin_twophase()
        set_states(conn, objectid, {"k": 1, "l": 2})
        two_phase.rollback()
        assert stored(objectid, "k") is ABSENT
        two_phase = conn.begin_twophase()
        set_states(conn, objectid, {"k": 1, "l": 2})
        conn.execute(text("SELECT 1"))
        two_phase.commit()
    assert stored(objectid, "k") == 1
