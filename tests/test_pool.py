"""The pool: whatever interrupts or overtakes whom, no place and no connection is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import statedb
from statedb import CallTimeoutError, Connection, Database, DatabaseError, PoolClosedError, pool
from statedb.pool import Pool
from statedb.watchdog import Watchdog

pytestmark = pytest.mark.once


@pytest.fixture
def url(tmp_path: Path) -> str:
    """For what does not depend on the engine."""
    return f"sqlite:///{tmp_path}/state.sqlite"


@pytest.fixture
def narrow(url: str) -> Iterator[Database]:
    """A Database with one connection, which is open."""
    with statedb.connect(url, pool_size=1, timeout=20) as db:
        db.state.thdGetObjects()
        yield db


def _pool(db: Database) -> Pool:
    return db._executor._pool


@contextlib.contextmanager
def _held(db: Database) -> Iterator[Callable[[], None]]:
    """The one connection is lent for so long, or until what this gives is called."""
    inside, release = threading.Event(), threading.Event()

    def hold(conn: Connection) -> None:
        inside.set()
        assert release.wait(30)

    holder = threading.Thread(target=db.run, args=(hold,))
    holder.start()
    assert inside.wait(30)
    try:
        yield release.set
    finally:
        release.set()
        holder.join()


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _release_who_waits(db: Database, release: Callable[[], None]) -> threading.Thread:
    """End the lending as soon as somebody waits for it to end."""

    def work() -> None:
        _until(lambda: _pool(db)._waiting)
        release()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


class _Wakeless:
    """A waiter's lock after whose acquire something else happens than that it was had."""

    def __init__(self, instead: Callable[[], bool]) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._instead = instead

    def acquire(self, timeout: float = -1) -> bool:
        self._lock.acquire(timeout=timeout)
        return self._instead()

    def release(self) -> None:
        self._lock.release()


@pytest.fixture
def waking(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], bool]], None]:
    """Says what becomes of one who waited for a connection and was given one."""

    def set_up(instead: Callable[[], bool]) -> None:
        class Waiter(pool._Waiter):
            def __init__(self) -> None:
                super().__init__()
                self.ready: Any = _Wakeless(instead)

        monkeypatch.setattr(pool, "_Waiter", Waiter)

    return set_up


def _interrupt() -> bool:
    raise KeyboardInterrupt


# --- Waiting for a connection ---


def test_who_is_interrupted_while_he_waits_is_out_of_the_queue(narrow: Database) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def send() -> None:
        _until(lambda: _pool(narrow)._waiting)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with _held(narrow):
            sender = threading.Thread(target=send)
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                narrow.state.thdGetObjects()
            sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert narrow.state.thdGetObjects() == []


def test_what_one_is_given_as_he_is_interrupted_goes_to_the_next(
    narrow: Database, waking: Callable[[Callable[[], bool]], None]
) -> None:
    waking(_interrupt)
    with _held(narrow) as release:
        releasing = _release_who_waits(narrow, release)
        with pytest.raises(KeyboardInterrupt):
            narrow.state.thdGetObjects()
        releasing.join()
    assert narrow.state.thdGetObjects() == []


def test_what_one_is_given_as_his_time_is_up_he_has(
    narrow: Database, waking: Callable[[Callable[[], bool]], None]
) -> None:
    waking(lambda: False)
    with _held(narrow) as release:
        releasing = _release_who_waits(narrow, release)
        assert narrow.state.thdGetObjects() == []
        releasing.join()


@pytest.mark.parametrize("interrupted", [False, True])
def test_closing_ends_waiting_for_a_connection(
    url: str, waking: Callable[[Callable[[], bool]], None], interrupted: bool
) -> None:
    ends: list[BaseException] = []

    def ask() -> None:
        try:
            db.state.thdGetObjects()
        except BaseException as error:
            ends.append(error)

    with statedb.connect(url, pool_size=1, timeout=20) as db:
        db.state.thdGetObjects()
        if interrupted:
            waking(_interrupt)
        with _held(db) as release:
            asking = threading.Thread(target=ask)
            asking.start()
            _until(lambda: _pool(db)._waiting)
            closing = threading.Thread(target=db.close)
            closing.start()
            asking.join()
            release()
            closing.join()
    (end,) = ends
    assert isinstance(end, KeyboardInterrupt if interrupted else PoolClosedError)


def test_a_call_that_closing_has_overtaken_is_refused(url: str) -> None:
    with statedb.connect(url) as db:
        db.state.thdGetObjects()
    with pytest.raises(PoolClosedError, match="this Database is closed"):
        _pool(db).take(time.monotonic() + 1)


# --- Opening, and what is past use ---


def test_who_is_interrupted_as_he_connects_costs_no_place(url: str) -> None:
    known = statedb.dialects._known
    sqlite = statedb.dialects.for_url(url)
    interrupts = [KeyboardInterrupt]

    def connect(target: Any, timeout: float) -> Any:
        if interrupts:
            raise interrupts.pop()
        return sqlite.connect(target, timeout)

    statedb.dialects.register(dataclasses.replace(sqlite, connect=connect))
    try:
        with statedb.connect(url, pool_size=1, timeout=5) as db:
            with pytest.raises(KeyboardInterrupt):
                db.state.thdGetObjects()
            assert db.state.thdGetObjects() == []
    finally:
        known["sqlite"] = sqlite


def test_while_the_tables_are_checked_others_wait_no_longer_than_they_may(url: str) -> None:
    with statedb.connect(url, timeout=0.2) as db:
        with (
            _pool(db)._preparing,
            pytest.raises(CallTimeoutError, match="the tables could not be checked within"),
        ):
            db.state.thdGetObjects()
        assert db.state.thdGetObjects() == []


def test_a_database_in_memory_whose_connection_was_closed_hangs_nobody() -> None:
    with statedb.connect("sqlite://") as db:
        db.state.thdGetObjectId("a", "B")
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            db.run(lambda conn: conn.raw.close())
        with pytest.raises(DatabaseError):
            db.state.thdGetObjects()


def test_what_is_amiss_with_closing_and_no_drivers_error_is_told() -> None:
    class Odd(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            raise ZeroDivisionError

    conn = statedb.connection.adapt(sqlite3.connect(":memory:", factory=Odd))
    with pytest.raises(ZeroDivisionError):
        conn.close()


# --- What has outlasted its time ---


def test_a_connection_that_was_closed_meanwhile_is_not_cut(url: str) -> None:
    cut: list[Any] = []
    with statedb.connect(url) as db:
        conn = db.run(lambda conn: conn)
        _pool(db).dialect = dataclasses.replace(_pool(db).dialect, cut=cut.append)
        _pool(db)._cut(conn)
        assert cut == [conn.raw]
    _pool(db)._cut(conn)
    assert cut == [conn.raw]


def test_a_connection_that_came_back_as_its_time_was_up_is_not_cut() -> None:
    class Returned(SimpleNamespace):
        looks = 0

        @property
        def deadline(self) -> float | None:
            self.looks += 1
            return 1.0 if self.looks == 1 else None

    cut: list[Any] = []
    conn: Any = Returned(cutting=False)
    Watchdog(lambda: None, cut.append, 1.0)._look_at(conn, 2.0)
    assert cut == []
    assert not conn.cutting


# --- No more threads ---


def _refuse_threads(monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]) -> None:
    start = threading.Thread.start

    def may_start(self: threading.Thread) -> None:
        if self.name.startswith(refused):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", may_start)


def test_where_no_more_threads_can_be_had_those_there_are_do_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse_threads(monkeypatch, ("statedb-worker-1",))
    with statedb.connect(url, pool_size=4) as db:
        futures = [db.state.getObjects() for _ in range(9)]
        assert [one.result(30) for one in futures] == [[]] * 9


def test_where_no_thread_at_all_can_be_had_who_submits_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with statedb.connect(url) as db:
        with monkeypatch.context() as patch:
            _refuse_threads(patch, ("statedb-worker",))
            with pytest.raises(RuntimeError, match="can't start new thread"):
                db.state.getObjects()
        assert db.state.getObjects().result(30) == []


def test_joining_where_no_thread_can_be_had_gives_the_place_back(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with statedb.connect(url) as db:
        with monkeypatch.context() as patch:
            _refuse_threads(patch, ("statedb-member",))
            with pytest.raises(RuntimeError, match="can't start new thread"):
                db.masters.join("host:/base", on_lost=lambda member: None)
        (master,) = db.masters.thdGetMasters()
        assert not master.active
