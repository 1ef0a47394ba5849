"""The executor: where a call runs, what it joins, and what becomes of it at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed, wait
from pathlib import Path
from typing import Any

import pytest
from conftest import ABSENT
from engines import Engine
from interposed import watch

import statedb
from statedb import (
    CallTimeoutError,
    Connection,
    Database,
    DatabaseError,
    PoolClosedError,
    QueueFullError,
)
from statedb.state import get_state, set_state

Stored = Callable[[int, str], Any]


# --- Joining ---


def test_calls_within_a_transaction_join_it_and_vanish_with_it(
    db: Database, objectid: int, stored: Stored
) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction():
        db.state.thdSetState(objectid, "sync", 1)
        future = db.state.setState(objectid, "future", 2)
        assert future.done()
        assert future.result() == 2
        assert db.state.getState(objectid, "sync").result() == 1
        raise ZeroDivisionError
    assert stored(objectid, "sync") is ABSENT
    assert stored(objectid, "future") is ABSENT


def test_what_a_transaction_wrote_is_there_at_its_end(
    engine: Engine, db: Database, objectid: int, stored: Stored
) -> None:
    with db.transaction() as conn:
        set_state(conn, objectid, "direct", 1)
        db.state.thdSetState(objectid, "sync", 2)
        db.state.setState(objectid, "future", 3).result()
        assert stored(objectid, "direct") is ABSENT
    assert [stored(objectid, name) for name in ("direct", "sync", "future")] == [1, 2, 3]


def test_a_transaction_within_a_transaction_is_a_savepoint(
    db: Database, objectid: int, stored: Stored
) -> None:
    with db.transaction():
        db.state.thdSetState(objectid, "outer", 1)
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.state.thdSetStates(objectid, {"inner": 1})
            raise ZeroDivisionError
        with db.transaction():
            db.state.thdSetState(objectid, "second", 2)
    assert [stored(objectid, name) for name in ("outer", "inner", "second")] == [1, ABSENT, 2]


def test_an_error_of_ours_within_a_transaction_leaves_it_usable(
    db: Database, objectid: int, stored: Stored
) -> None:
    with db.transaction():
        db.state.thdSetState(objectid, "before", 1)
        with pytest.raises(KeyError):
            db.state.thdSetState(987_654, "k", 1)
        with pytest.raises(KeyError):
            db.state.setStates(987_654, {"k": 1}).result()
        db.state.thdSetState(objectid, "after", 2)
    assert [stored(objectid, name) for name in ("before", "after")] == [1, 2]


def test_a_database_error_swallowed_within_a_transaction_does_not_commit_half_of_it(
    engine: Engine, db: Database, objectid: int, stored: Stored
) -> None:
    def nonsense(conn: Connection) -> None:
        conn.execute("INSERT INTO no_such_table VALUES (1)")

    def block() -> None:
        with db.transaction():
            db.state.thdSetState(objectid, "before", 1)
            with contextlib.suppress(DatabaseError):
                db.run(nonsense)
            db.state.thdSetState(objectid, "after", 2)

    if engine.name.startswith("postgresql"):  # whose transaction can only be rolled back
        with pytest.raises(DatabaseError, match="an earlier statement's failure ended"):
            block()
        assert [stored(objectid, name) for name in ("before", "after")] == [ABSENT, ABSENT]
    else:  # where the one statement only was undone
        block()
        assert [stored(objectid, name) for name in ("before", "after")] == [1, 2]
    assert db.state.thdSetState(objectid, "later", 3) == 3


def test_an_id_from_a_transaction_that_came_to_nothing_is_not_remembered(
    db: Database, application: Callable[..., Any]
) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction():
        db.state.thdGetObjectId("new", "Object")
        raise ZeroDivisionError
    objectid = db.state.thdGetObjectId("new", "Object")
    own = application()
    assert [one.id for one in statedb.state.get_objects(own)] == [objectid]


@pytest.mark.parametrize("pool_size", [1, 2])
def test_a_callback_may_use_the_database_itself(url: str, pool_size: int, objectid: int) -> None:
    with statedb.connect(url, pool_size=pool_size) as db:

        def create() -> Any:
            other = db.state.thdGetObjectId("other", "Object")
            db.state.thdSetState(other, "k", "set by the callback")
            return db.state.getState(other, "k").result(timeout=10)

        assert db.state.thdAtomicCreateState(objectid, "a", create) == "set by the callback"
        future = db.state.atomicCreateState(objectid, "b", create)
        assert future.result(timeout=30) == "set by the callback"

        def update(value: int) -> int:
            db.state.thdSetState(objectid, "beside", value)
            return value + 1

        assert db.state.updateState(objectid, "n", update, 1).result(timeout=30) == 2
        assert db.state.thdGetState(objectid, "beside") == 1


def test_a_function_of_ones_own_runs_here_or_on_a_worker(db: Database, objectid: int) -> None:
    def twice(conn: Connection, name: str, *, value: int) -> tuple[str, int]:
        set_state(conn, objectid, name, value * 2)
        return threading.current_thread().name, get_state(conn, objectid, name)

    here = threading.current_thread().name
    assert db.run(twice, "k", value=2) == (here, 4)
    thread, value = db.submit(twice, "k", value=3).result()
    assert thread.startswith("statedb-worker")
    assert value == 6


def test_a_callers_own_driver_error_is_his_own(engine: Engine, db: Database, objectid: int) -> None:
    """An error of the same driver, raised by a callback, is neither wrapped nor tried again."""
    calls = []
    kind = type(_driver_error(db))

    def fail() -> None:
        calls.append(1)
        raise kind("the application's own")

    with pytest.raises(kind, match="the application's own"):
        db.state.thdAtomicCreateState(objectid, "k", fail)
    with pytest.raises(kind, match="the application's own"), db.transaction():
        fail()
    assert len(calls) == 2


def _driver_error(db: Database) -> BaseException:
    with pytest.raises(DatabaseError) as raised:
        db.run(lambda conn: conn.execute("INSERT INTO no_such_table VALUES (1)"))
    assert raised.value.__cause__ is not None
    return raised.value.__cause__


def test_a_drivers_failure_is_a_database_error_from_it(engine: Engine, db: Database) -> None:
    error = _driver_error(db)
    assert type(error).__module__.partition(".")[0] in ("sqlite3", "psycopg", "pymysql")
    with pytest.raises(DatabaseError, match="no_such_table"):
        db.submit(lambda conn: conn.execute("INSERT INTO no_such_table VALUES (1)")).result()
    with pytest.raises(DatabaseError, match="no_such_table"), db.transaction() as conn:
        conn.execute("INSERT INTO no_such_table VALUES (1)")


def test_a_connection_left_in_a_transaction_is_not_lent_again(
    db: Database, objectid: int, stored: Stored
) -> None:
    def leave_open(conn: Connection) -> None:
        conn.raw.cursor().execute("BEGIN")
        set_state(conn, objectid, "k", 1)

    db.run(leave_open)
    assert stored(objectid, "k") is ABSENT
    db.state.thdSetState(objectid, "k", 2)
    assert stored(objectid, "k") == 2


def test_our_own_connections_are_strict_and_read_what_is_committed(
    engine: Engine, db: Database
) -> None:
    def level(conn: Connection) -> Any:
        if engine.name.startswith("postgresql"):
            return conn.fetch_one("SHOW transaction_isolation"), conn.fetch_one("SHOW TimeZone")
        return conn.fetch_one("SELECT @@SESSION.sql_mode, @@SESSION.time_zone")

    if engine.name == "sqlite":
        pytest.skip("SQLite has no such settings")
    found = db.run(level)
    if engine.name.startswith("postgresql"):
        assert found == (("read committed",), ("UTC",))
    else:
        assert "STRICT_ALL_TABLES" in found[0]
        assert found[1] == "+00:00"
        with pytest.raises(DatabaseError, match="Data too long"):
            db.run(
                lambda conn: conn.execute(
                    "INSERT INTO statedb_objects (identity_hash, name, class_name)"
                    " VALUES (REPEAT('x', 33), '', '')"
                )
            )


# --- Futures ---


def test_futures_work_with_all_that_takes_a_future(db: Database, objectid: int) -> None:
    futures = [db.state.setState(objectid, f"k{number}", number) for number in range(50)]
    done, pending = wait(futures, timeout=60)
    assert not pending
    assert {one.result() for one in as_completed(done)} == set(range(50))

    async def gather() -> list[Any]:
        return await asyncio.gather(
            *(asyncio.wrap_future(db.state.getState(objectid, f"k{n}")) for n in range(50))
        )

    assert asyncio.run(gather()) == list(range(50))


def test_a_future_carries_its_error(db: Database, objectid: int) -> None:
    assert isinstance(db.state.getState(objectid, "absent").exception(timeout=30), KeyError)
    assert isinstance(db.state.setState(objectid, "k", {1}).exception(timeout=30), TypeError)


def test_a_pending_future_can_be_cancelled_and_harms_none_behind_it(
    url: str, objectid: int, stored: Stored
) -> None:
    with statedb.connect(url, pool_size=1) as db:
        release = threading.Event()
        blocking = db.submit(lambda conn: release.wait(30))
        first = db.state.setState(objectid, "k", "cancelled")
        second = db.state.setState(objectid, "k", "second")
        assert first.cancel()
        release.set()
        assert second.result(timeout=30) == "second"
        assert blocking.result() is True
        with pytest.raises(CancelledError):
            first.result()
    assert stored(objectid, "k") == "second"


def test_a_future_resolves_after_its_connection_went_back(url: str, objectid: int) -> None:
    with statedb.connect(url, pool_size=1, timeout=5) as db:
        seen: list[Any] = []
        done = threading.Event()

        def callback(future: Future[Any]) -> None:
            # The one connection is free again, or this would wait for itself.
            seen.append(db.state.thdGetState(objectid, "k"))
            done.set()

        db.state.setState(objectid, "k", 1).add_done_callback(callback)
        assert done.wait(10)
        assert seen == [1]


def test_a_done_callback_that_blocks_holds_up_no_other_worker(url: str, objectid: int) -> None:
    with statedb.connect(url, pool_size=2) as db:
        release, blocked = threading.Event(), threading.Event()

        def block(future: Future[Any]) -> None:
            blocked.set()
            release.wait(30)

        slow = db.submit(lambda conn: time.sleep(0.1))
        slow.add_done_callback(block)
        assert blocked.wait(10)
        for number in range(20):
            assert db.state.setState(objectid, "k", number).result(timeout=10) == number
        assert db.state.thdGetState(objectid, "k") == 19
        release.set()


def test_a_done_callback_that_raises_harms_nothing(
    db: Database, objectid: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(future: Future[Any]) -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.CRITICAL + 1, "concurrent.futures"):
        futures = [db.state.setState(objectid, "k", number) for number in range(20)]
        for future in futures:
            future.add_done_callback(fail)
        assert [future.result(timeout=30) for future in futures] == list(range(20))
    assert db.state.setState(objectid, "k", "after").result(timeout=30) == "after"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_done_callback_that_exits_ends_no_worker(
    url: str, objectid: int, caplog: pytest.LogCaptureFixture
) -> None:
    with statedb.connect(url, pool_size=1) as db:
        release = threading.Event()
        first = db.submit(lambda conn: release.wait(30))
        first.add_done_callback(lambda future: sys.exit(1))
        behind = [db.state.setState(objectid, "k", number) for number in range(3)]
        release.set()
        assert [one.result(timeout=30) for one in behind] == [0, 1, 2]
    assert "done-callback" in caplog.text


def test_closing_waits_for_all_done_callbacks(url: str, objectid: int) -> None:
    db = statedb.connect(url, pool_size=4)
    release = threading.Event()
    called: list[int] = []

    def slowly(future: Future[Any]) -> None:
        time.sleep(0.1)
        called.append(1)

    def update(value: int) -> int:
        release.wait(30)
        return value

    db.state.updateState(objectid, "k", update, 0)
    for _ in range(6):
        db.state.getState(objectid, "k").add_done_callback(slowly)
    threading.Timer(0.2, release.set).start()
    db.close()
    assert len(called) == 6


def test_a_function_that_closes_the_drivers_connection_costs_no_place(
    url: str, objectid: int
) -> None:
    with statedb.connect(url, pool_size=1, timeout=10) as db:
        for _ in range(3):
            db.run(lambda conn: conn.raw.close())
            assert db.state.thdGetState(objectid, "k", "absent") == "absent"


def test_a_function_that_closes_the_drivers_connection_and_goes_on_ends_all_the_same(
    url: str, objectid: int
) -> None:
    def close_and_go_on(conn: Connection) -> None:
        conn.raw.close()
        deadline = time.monotonic() + 30
        while not conn.cutting:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with statedb.connect(url, pool_size=1, timeout=0.5) as db:
        db.run(close_and_go_on)
        assert db.state.thdGetState(objectid, "k", "usable") == "usable"


def test_upgrading_within_a_transaction_is_refused_at_once(db: Database, objectid: int) -> None:
    with db.transaction(), pytest.raises(statedb.UnusableConnectionError, match="upgrade"):
        db.upgrade()


def test_one_more_than_max_pending_is_refused_at_once(url: str, objectid: int) -> None:
    with statedb.connect(url, pool_size=1, max_pending=5) as db:
        release = threading.Event()
        futures: list[Future[Any]] = [db.submit(lambda conn: release.wait(30))]
        futures += [db.state.setState(objectid, "k", number) for number in range(4)]
        began = time.monotonic()
        with pytest.raises(QueueFullError, match="5 futures are pending, and max_pending is 5"):
            db.state.getState(objectid, "k")
        assert time.monotonic() - began < 0.5
        release.set()
        wait(futures, timeout=30)
        assert db.state.getState(objectid, "k").result(timeout=30) == 3


def test_a_callers_operations_on_one_key_happen_in_the_order_submitted(
    db: Database, objectid: int, stored: Stored
) -> None:
    for turn in range(20):
        futures: list[Future[Any]] = []
        for number in range(10):
            futures.append(db.state.setState(objectid, "k", [turn, number]))
            futures.append(db.state.getState(objectid, "k"))
        assert [one.result(timeout=60) for one in futures] == [
            [turn, number] for number in range(10) for _ in range(2)
        ]
        futures = [
            db.state.setStates(objectid, values={"k": 1, "l": 1}),
            db.state.deleteState(objectid, name="k"),
            db.state.getStates(objectid),
            db.state.atomicCreateState(objectid, "k", lambda: 2),
            db.state.updateState(objectid, "k", lambda value: value + 1),
            db.state.getStates(objectid, ["k"]),
        ]
        results = [one.result(timeout=60) for one in futures]
        assert results == [{"k": 1, "l": 1}, True, {"l": 1}, 2, 3, {"k": 3}]
    assert stored(objectid, "k") == 3


def test_operations_on_other_keys_do_not_wait(url: str, objectid: int) -> None:
    with statedb.connect(url, pool_size=2) as db:
        release = threading.Event()

        def block() -> str:
            release.wait(30)
            return "created"

        slow = db.state.atomicCreateState(objectid, "slow", block)
        behind = db.state.getState(objectid, "slow")
        assert db.state.setState(objectid, "other", 1).result(timeout=10) == 1
        assert not behind.done()
        release.set()
        assert slow.result(timeout=30) == behind.result(timeout=30) == "created"


def test_what_goes_wrong_with_a_rollback_and_is_no_drivers_error_is_told(url: str) -> None:
    def run_out(sql: str) -> None:
        if sql == "ROLLBACK":
            raise MemoryError

    with watch(run_out), statedb.connect(url) as db:
        with pytest.raises(DatabaseError) as raised, db.transaction():
            raise ZeroDivisionError
        assert isinstance(raised.value.__cause__, MemoryError)
        assert db.masters.thdGetMasters() == []


@pytest.mark.parametrize("failure", [MemoryError, KeyboardInterrupt])
def test_a_transaction_that_cannot_begin_costs_no_connection(
    url: str, failure: type[BaseException]
) -> None:
    refusing: list[type[BaseException]] = []

    def refuse(sql: str) -> None:
        if sql.startswith("BEGIN") and refusing:
            raise refusing.pop()

    with watch(refuse), statedb.connect(url, pool_size=1) as db:
        assert db.masters.thdGetMasters() == []
        refusing.append(failure)
        expected = DatabaseError if issubclass(failure, Exception) else failure
        with pytest.raises(expected), db.transaction():
            raise AssertionError("it has begun")
        with db.transaction():
            assert db.masters.thdGetMasters() == []


def test_a_transaction_on_what_cannot_be_opened_is_a_database_error(tmp_path: Path) -> None:
    with (
        statedb.connect(f"sqlite:///{tmp_path}/nowhere/state.sqlite") as db,
        pytest.raises(DatabaseError, match="cannot open"),
        db.transaction(),
    ):
        raise AssertionError("it has begun")


# --- Bounds ---


def test_waiting_for_a_connection_is_bounded(url: str, objectid: int) -> None:
    with statedb.connect(url, pool_size=1, timeout=0.5) as db:
        db.state.thdGetState(objectid, "k", None)
        inside, release = threading.Event(), threading.Event()

        def hold(conn: Connection) -> None:
            inside.set()
            release.wait(30)

        holder = threading.Thread(target=db.run, args=(hold,))
        holder.start()
        assert inside.wait(10)
        began = time.monotonic()
        with pytest.raises(CallTimeoutError, match=r"none of 1 connections was free within 0\.5 s"):
            db.state.thdGetState(objectid, "k")
        assert 0.4 < time.monotonic() - began < 2
        release.set()
        holder.join()
        assert db.state.thdGetState(objectid, "k", "free again") == "free again"


def test_waiting_for_anothers_lock_is_bounded_and_had_no_effect(
    url: str, objectid: int, application: Callable[..., Any], stored: Stored
) -> None:
    with statedb.connect(url, timeout=3) as db:
        db.state.thdSetState(objectid, "k", "before")
        rival = application()
        set_state(rival, objectid, "k", "the rival's")
        for write in (
            lambda: db.state.thdSetState(objectid, "k", "ours"),
            lambda: db.state.setState(objectid, "k", "ours").result(),
            lambda: db.state.thdDeleteState(objectid, "k"),
            lambda: db.state.thdUpdateState(objectid, "k", lambda _: "ours"),
        ):
            began = time.monotonic()
            with pytest.raises(CallTimeoutError):
                write()
            assert time.monotonic() - began < 3 + 3
        rival.rollback()
        assert stored(objectid, "k") == "before"
        assert db.state.thdSetState(objectid, "k", "ours") == "ours"


def test_waiters_get_connections_in_the_order_in_which_they_came(url: str, objectid: int) -> None:
    with statedb.connect(url, pool_size=1) as db:
        db.state.thdGetState(objectid, "k", None)
        got: list[int] = []
        inside, release = threading.Event(), threading.Event()

        def hold(conn: Connection) -> None:
            inside.set()
            release.wait(30)

        threads = [threading.Thread(target=db.run, args=(hold,))]
        threads[0].start()
        assert inside.wait(10)
        for number in range(5):
            thread = threading.Thread(
                target=lambda number=number: db.run(lambda conn: got.append(number))
            )
            threads.append(thread)
            thread.start()
            time.sleep(0.05)
        release.set()
        for thread in threads:
            thread.join()
        assert got == [0, 1, 2, 3, 4]


def test_the_longest_timeout_is_taken(url: str, objectid: int, stored: Stored) -> None:
    with statedb.connect(url, timeout=10**9) as db:
        assert db.state.thdSetState(objectid, "k", 1) == 1
        assert db.state.setState(objectid, "l", 2).result(30) == 2
    assert [stored(objectid, name) for name in "kl"] == [1, 2]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"pool_size": 0}, ValueError),
        ({"pool_size": 1.5}, TypeError),
        ({"pool_size": True}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": 1e10}, ValueError),
        ({"timeout": 10**400}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"max_pending": 0}, ValueError),
    ],
)
def test_illegal_settings_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        statedb.connect("sqlite://", **settings)


# --- The end ---


def test_a_closed_database_says_so(url: str, objectid: int) -> None:
    db = statedb.connect(url)
    known = db.state.thdGetObjectId("nightly", "Scheduler")
    assert known == objectid
    db.close()
    db.close()
    for call in (
        lambda: db.state.thdGetState(objectid, "k"),
        lambda: db.state.getState(objectid, "k"),
        lambda: db.state.thdGetObjectId("nightly", "Scheduler"),
        lambda: db.state.getObjectId("nightly", "Scheduler"),
        db.transaction().__enter__,
        db.upgrade,
    ):
        with pytest.raises(PoolClosedError, match="closed"):
            call()
    assert "closed" in repr(db)


def test_closing_under_load_loses_nothing_accepted(url: str, objectid: int, stored: Stored) -> None:
    db = statedb.connect(url)
    accepted: dict[str, Future[Any]] = {}
    stop = threading.Event()

    def submit(number: int) -> None:
        turn = 0
        while not stop.is_set():
            name = f"{number}-{turn}"
            try:
                accepted[name] = db.state.setState(objectid, name, turn)
            except PoolClosedError:
                return
            turn += 1
            time.sleep(0.0005)

    def call(number: int) -> None:
        with contextlib.suppress(PoolClosedError):
            while not stop.is_set():
                db.state.thdGetState(objectid, "absent", None)

    threads = [
        threading.Thread(target=work, args=(n,)) for n in range(3) for work in (submit, call)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while len(accepted) < 200 and time.monotonic() < deadline:
        time.sleep(0.001)
    db.close()
    assert all(future.done() for future in accepted.values())
    stop.set()
    for thread in threads:
        thread.join()
    assert len(accepted) >= 200
    values = statedb.connect(url)
    with values:
        found = values.state.thdGetStates(objectid)
    assert found == {name: future.result() for name, future in accepted.items()}


def test_closing_with_cancel_cancels_what_has_not_begun(url: str, objectid: int) -> None:
    db = statedb.connect(url, pool_size=1)
    begun, release = threading.Event(), threading.Event()

    def first(conn: Connection) -> str:
        begun.set()
        release.wait(30)
        return "finished"

    running = db.submit(first)
    assert begun.wait(10)
    waiting = [db.state.setState(objectid, "k", number) for number in range(10)]
    closer = threading.Thread(target=db.close, kwargs={"cancel_futures": True})
    closer.start()
    time.sleep(0.1)
    release.set()
    closer.join(30)
    assert running.result(timeout=0) == "finished"
    assert all(future.cancelled() for future in waiting)


def test_closing_from_a_done_callback_does_not_wait_for_itself(url: str, objectid: int) -> None:
    for pool_size in (1, 3):
        before = set(threading.enumerate())
        db = statedb.connect(url, pool_size=pool_size)
        closed = threading.Event()

        def close(future: Future[Any], db: Database = db, closed: threading.Event = closed) -> None:
            db.close()
            closed.set()

        gate = threading.Event()
        blocking = db.submit(_wait_for, gate)
        future = db.submit(_wait_for, gate)
        future.add_done_callback(close)
        later = [db.state.setState(objectid, "k", number) for number in range(10)]
        gate.set()
        assert closed.wait(20)
        assert blocking.result(timeout=20)
        assert [one.result(timeout=20) for one in later] == list(range(10))
        _await_end_of_threads(before)


def _wait_for(conn: Connection, gate: threading.Event) -> bool:
    return gate.wait(30)


def _await_end_of_threads(before: set[threading.Thread]) -> None:
    deadline = time.monotonic() + 20
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closing_within_a_transaction_does_not_wait_for_itself(
    url: str, objectid: int, stored: Stored
) -> None:
    db = statedb.connect(url)
    with db.transaction():
        db.state.thdSetState(objectid, "k", 1)
        db.close()
        db.state.thdSetState(objectid, "k", 2)
    assert stored(objectid, "k") == 2


def test_a_database_that_was_never_closed_is_complained_of(url: str, objectid: int) -> None:
    before = set(threading.enumerate())
    db = statedb.connect(url)
    db.state.getState(objectid, "k", None).result()
    with pytest.warns(ResourceWarning, match="was never closed"):
        del db
    _await_end_of_threads(before)


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_at_interpreter_exit_what_was_accepted_is_finished(
    url: str, objectid: int, application: Callable[..., Any]
) -> None:
    done = _run(
        """if True:
        import sys, statedb
        db = statedb.connect(sys.argv[1], pool_size=2)
        for number in range(200):
            db.state.setState(int(sys.argv[2]), f"k{number}", number)
        """,
        url,
        str(objectid),
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = statedb.state.get_states(application(), objectid)
    assert found == {f"k{number}": number for number in range(200)}


def test_an_interpreter_with_an_idle_database_exits_at_once(url: str, objectid: int) -> None:
    began = time.monotonic()
    done = _run(
        """if True:
        import sys, statedb
        db = statedb.connect(sys.argv[1])
        print(db.state.getState(int(sys.argv[2]), "k", "default").result())
        sys.exit(3)
        """,
        url,
        str(objectid),
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "default\n", "")
    assert time.monotonic() - began < 15


def test_an_in_memory_database_is_one_for_all_threads() -> None:
    with statedb.connect("sqlite://", pool_size=8) as db:
        objectid = db.state.thdGetObjectId("a", "B")
        futures = [db.state.setState(objectid, f"k{n}", n) for n in range(100)]
        wait(futures)
        assert len(db.state.thdGetStates(objectid)) == 100
        with pytest.raises(DatabaseError):
            db.run(lambda conn: conn.execute("nonsense"))
        with pytest.raises(KeyboardInterrupt):
            db.run(_interrupted)
        assert len(db.state.thdGetStates(objectid)) == 100
        db.upgrade()


def _interrupted(conn: Connection) -> None:
    with conn.transaction():
        conn.execute("DELETE FROM statedb_states")
        raise KeyboardInterrupt
