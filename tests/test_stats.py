"""What a Database counts, and what it tells the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import pytest
from proxy import Proxy

import statedb
from statedb import (
    CallTimeoutError,
    Connection,
    Database,
    DatabaseError,
    NoSuchStateError,
    SchemaError,
    Stats,
)


def _await(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class _Occupied:
    """A function of a connection that keeps it until it is released."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.release = threading.Event()

    def __call__(self, conn: Connection) -> None:
        self.begun.set()
        assert self.release.wait(60)


# --- Counts ---


def test_nothing_is_counted_before_anything_is_done(url: str) -> None:
    with statedb.connect(url, pool_size=3) as db:
        assert astuple(db.stats()) == (0, 0, 0, 0, 0, 0.0, 0, 0, 0, 3, 0)


def test_each_call_is_one_operation_whatever_it_answers(db: Database, objectid: int) -> None:
    before = db.stats()
    db.state.thdSetState(objectid, "k", 1)
    db.state.getState(objectid, "k").result()
    with pytest.raises(NoSuchStateError):
        db.state.thdGetState(objectid, "absent")
    with db.transaction():
        db.state.thdSetState(objectid, "k", 2)
        db.state.getState(objectid, "k").result()
    with pytest.raises(ZeroDivisionError), db.transaction():
        raise ZeroDivisionError
    db.run(lambda conn: None)
    after = db.stats()
    assert after.operations - before.operations == 6
    assert after.futures - before.futures == 1
    assert (after.failures, after.retries, after.reconnects) == (0, 0, 0)


def test_futures_that_travel_together_are_one_operation_each(db: Database, objectid: int) -> None:
    before = db.stats()
    futures = [db.state.setState(objectid, f"{number % 7}", number) for number in range(100)]
    futures += [db.state.getState(objectid, f"{number % 7}") for number in range(100)]
    for future in futures:
        future.result()
    _await(lambda: db.stats().pending == 0)
    after = db.stats()
    assert after.operations - before.operations == 200
    assert after.futures - before.futures == 200


def test_what_is_pending_and_in_use_is_told_and_how_long_it_has_waited(url: str) -> None:
    with statedb.connect(url, pool_size=1) as db:
        occupied = _Occupied()
        running, queued = db.submit(occupied), db.submit(lambda conn: None)
        assert occupied.begun.wait(30)
        stats = db.stats()
        assert (stats.pending, stats.futures) == (2, 0)
        assert (stats.connections, stats.connections_in_use, stats.waiting) == (1, 1, 0)
        caller = threading.Thread(target=db.run, args=(lambda conn: None,))
        caller.start()
        _await(lambda: db.stats().waiting == 1)
        time.sleep(0.2)
        occupied.release.set()
        running.result()
        queued.result()
        caller.join()
        _await(lambda: db.stats().pending == 0)
        stats = db.stats()
        assert (stats.connections, stats.connections_in_use, stats.waiting) == (1, 0, 0)
        assert stats.futures == 2
        assert 0.2 <= stats.queue_time < 30
        assert stats.operations == 3


def test_a_future_that_was_cancelled_is_neither_pending_nor_done(url: str) -> None:
    with statedb.connect(url, pool_size=1) as db:
        occupied = _Occupied()
        running, queued = db.submit(occupied), db.submit(lambda conn: None)
        assert occupied.begun.wait(30)
        assert queued.cancel()
        occupied.release.set()
        running.result()
        _await(lambda: db.stats().pending == 0)
        assert (db.stats().futures, db.stats().operations) == (1, 1)


def test_what_the_database_refuses_is_a_failure(db: Database) -> None:
    def misspell(conn: Connection) -> None:
        conn.execute("SELEKT 1")

    before = db.stats()
    with pytest.raises(DatabaseError):
        db.run(misspell)
    with pytest.raises(DatabaseError), db.transaction() as conn:
        misspell(conn)
    with pytest.raises(DatabaseError):
        db.submit(misspell).result()
    after = db.stats()
    assert (after.failures - before.failures, after.operations - before.operations) == (3, 0)


def test_a_future_that_waits_for_too_long_is_a_failure(url: str) -> None:
    with statedb.connect(url, pool_size=1, timeout=0.5) as db:
        occupied = _Occupied()
        running, queued = db.submit(occupied), db.submit(lambda conn: None)
        assert occupied.begun.wait(30)
        time.sleep(0.6)
        occupied.release.set()
        with pytest.raises(CallTimeoutError):
            queued.result()
        running.exception()
        assert db.stats().failures >= 1


def test_lost_connections_are_told_of_once_and_counted_with_what_was_tried_again(
    far_url: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "statedb")
    with statedb.connect(far_url, pool_size=2) as db:
        objectid = db.state.thdGetObjectId("object", "Class")
        db.state.thdSetState(objectid, "k", "a value that is nobody's business")
        assert (db.stats().reconnects, db.stats().retries) == (0, 0)
        caplog.clear()
        proxy.cut_after("UPDATE statedb_states", times=2)
        db.state.thdSetState(objectid, "k", "a value that is nobody's business, either")
        stats = db.stats()
    assert (stats.retries, stats.reconnects, stats.failures) == (2, 2, 0)
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == ["INFO", "WARNING", "INFO"] * 2
    again, lost, back = (text for _, text in told[:3])
    assert lost.startswith("a connection to ")
    assert " was lost: " in lost
    assert again.startswith("set_state is tried again: ")
    assert back.startswith("connected to ")
    assert " again, after 0." in back
    assert "business" not in caplog.text


def test_a_server_that_is_away_is_told_of_once_and_when_it_is_back(
    far_url: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "statedb")
    with statedb.connect(far_url, pool_size=4, timeout=20) as db:
        objectid = db.state.thdGetObjectId("object", "Class")
        caplog.clear()
        proxy.refuse()
        proxy.cut_all()
        futures = [db.state.setState(objectid, f"{number}", number) for number in range(20)]
        _await(lambda: db.stats().retries >= 5)
        caplog.set_level(logging.INFO, "statedb")
        assert len(caplog.records) == 1
        proxy.listen()
        for future in futures:
            future.result()
        back = [text for text in caplog.messages if text.startswith("connected to ")]
        assert len(back) == 1
        assert db.stats().reconnects >= 1
        assert db.stats().failures == 0


def test_a_server_that_cannot_be_reached_is_told_of_without_the_password(
    far_url: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "statedb")
    scheme, _, rest = far_url.partition("://")
    user, _, place = rest.rpartition("@")
    proxy.refuse()
    url = f"{scheme}://{user.partition(':')[0]}:open-sesame@{place}"
    with statedb.connect(url, timeout=1) as db, pytest.raises(DatabaseError):
        db.state.thdGetObjects()
    assert db.stats().failures == 1
    assert any(text.startswith("cannot connect to ") for text in caplog.messages)
    assert "open-sesame" not in caplog.text


def test_a_deadlock_is_told_of_as_a_try_again(
    server_engine: object, db: Database, objectid: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "statedb")
    for name in ("a", "b"):
        db.state.thdSetState(objectid, name, 0)
    both = threading.Barrier(2)
    tries: list[str] = []

    def cross(conn: Connection, first: str, second: str) -> None:
        with conn.transaction():
            statedb.state.set_state(conn, objectid, first, 1)
            if len(tries) < 2:
                tries.append(first)
                both.wait(30)
            statedb.state.set_state(conn, objectid, second, 1)

    futures = [db.submit(cross, "a", "b"), db.submit(cross, "b", "a")]
    for future in futures:
        future.result()
    assert db.stats().retries == 1
    (told,) = [text for text in caplog.messages if "is tried again" in text]
    assert told.startswith("cross is tried again: ")
    assert db.stats().reconnects == 0


def test_tables_that_were_made_are_told_of_once(
    engine: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "statedb")
    with engine.empty_database(tmp_path) as url, statedb.connect(url) as db:
        db.upgrade()
        db.upgrade()
        (told,) = caplog.messages
        assert "has tables of version" in told
        assert told.endswith("; before: none")
        assert isinstance(db.stats(), Stats)
        db.run(lambda conn: conn.execute("UPDATE statedb_schema SET version = version + 1"))
        with statedb.connect(url) as other, pytest.raises(SchemaError):
            other.state.thdGetObjects()
        assert other.stats().failures == 0
