"""Forks: the child has connections and threads of its own, and never touches its parent's."""

from __future__ import annotations

import ast
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import documents
import pytest
from conftest import ABSENT
from engines import Engine

import statedb
from statedb import Database, DatabaseError
from statedb.stamps import new_stamp

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # From Python 3.12 on; what it warns of is what is tested here.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

Stored = Callable[[int, str], Any]


def _in_child(work: Callable[[], None], seconds: float = 30) -> None:
    """Run work in a fork of this process; what it raises there, fails here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child did not come to an end")
        time.sleep(0.01)


def test_a_child_works_and_so_does_its_parent_afterwards(
    db: Database, objectid: int, stored: Stored
) -> None:
    db.state.setState(objectid, "parent", 1).result()
    parents = db.run(lambda conn: conn.raw)

    def child() -> None:
        assert db.state.thdGetState(objectid, "parent") == 1
        assert db.state.setState(objectid, "child", 2).result(timeout=20) == 2
        assert db.run(lambda conn: conn.raw) is not parents
        assert threading.active_count() <= 4
        db.close()

    _in_child(child)
    assert stored(objectid, "child") == 2
    assert db.state.thdSetState(objectid, "parent", 3) == 3
    assert db.state.setState(objectid, "parent", 4).result(timeout=20) == 4


def test_forks_in_the_middle_of_load_harm_neither_side(
    db: Database, objectid: int, stored: Stored
) -> None:
    stop = threading.Event()
    written: dict[str, int] = {}

    def load(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            db.state.thdSetState(objectid, f"t{number}", turn)
            futures = [db.state.setState(objectid, f"f{number}-{n}", turn) for n in range(3)]
            for future in futures:
                future.result(timeout=30)
            written[f"t{number}"] = turn

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()

    def child() -> None:
        for number in range(10):
            db.state.thdUpdateState(objectid, "children", lambda value: value + 1, 0)
            assert db.state.setState(objectid, "last", number).result(timeout=20) == number
        db.close()

    for _ in range(5):
        time.sleep(0.05)
        _in_child(child)
    stop.set()
    for thread in threads:
        thread.join()
    assert stored(objectid, "children") == 50
    assert len(written) == 3
    for name, turn in written.items():
        assert stored(objectid, name) == turn


def test_forks_while_many_futures_travel_together_harm_neither_side(
    db: Database, objectid: int, stored: Stored
) -> None:
    stop = threading.Event()
    failed: list[BaseException] = []
    turns = [0]

    def load() -> None:
        try:
            while not stop.is_set():
                turns[0] += 1
                sets = [db.state.setState(objectid, f"k{n}", turns[0]) for n in range(50)]
                gets = [db.state.getState(objectid, f"k{n}") for n in range(50)]
                assert [one.result(timeout=30) for one in sets + gets] == [turns[0]] * 100
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=load)
    thread.start()

    def child() -> None:
        sets = [db.state.setState(objectid, f"child{n}", n) for n in range(50)]
        gets = [db.state.getState(objectid, f"child{n}") for n in range(50)]
        assert [one.result(timeout=20) for one in sets + gets] == [*range(50), *range(50)]
        db.close()

    for _ in range(4):
        time.sleep(0.03)
        _in_child(child)
    stop.set()
    thread.join()
    assert not failed
    assert {stored(objectid, f"k{n}") for n in range(50)} == {turns[0]}
    assert stored(objectid, "child49") == 49


def test_a_child_that_ends_without_closing_leaves_its_parents_connections_alone(
    db: Database, objectid: int
) -> None:
    with db.transaction():
        db.state.thdSetState(objectid, "k", 1)

        def child() -> None:
            # Only what is inherited; SQLite's one writer is the parent.
            assert threading.active_count() == 1

        _in_child(child)
        db.state.thdSetState(objectid, "k", 2)
    assert db.state.thdGetState(objectid, "k") == 2


def test_a_fork_within_a_transaction_does_not_join_it(
    engine: Engine, db: Database, objectid: int, stored: Stored
) -> None:
    with db.transaction():
        db.state.thdSetState(objectid, "k", "the parent's")

        def child() -> None:
            if engine.name == "sqlite":
                with pytest.raises(DatabaseError, match="fork outside of transactions"):
                    db.state.thdGetState(objectid, "k", "absent")
            else:
                assert db.state.thdGetState(objectid, "k", "absent") == "absent"

        _in_child(child)
    assert stored(objectid, "k") == "the parent's"


@pytest.mark.parametrize("ends", ["raises", "is left"])
def test_a_child_that_leaves_its_parents_transaction_does_not_end_it(
    db: Database, objectid: int, stored: Stored, ends: str
) -> None:
    parent = os.getpid()
    try:
        with db.transaction():
            db.state.thdSetState(objectid, "k", "the parent's")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if child == 0 and ends == "raises":
                raise SystemExit
            if child:
                _, status = os.waitpid(child, 0)
                assert os.waitstatus_to_exitcode(status) == 0
                assert stored(objectid, "k") is ABSENT
                db.state.thdSetState(objectid, "l", "the parent's too")
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert os.getpid() == parent
    except SystemExit:
        os._exit(0)
    except DatabaseError as error:
        # A child that comes to the block's end is told that there is nothing of its own to commit.
        os._exit(0 if "of the process that was forked" in str(error) else 1)
    else:
        os._exit(2)
    assert [stored(objectid, name) for name in ("k", "l")] == [ABSENT, ABSENT]
    assert db.state.thdSetState(objectid, "k", "later") == "later"


def test_a_childs_own_fork_works_too(db: Database, objectid: int, stored: Stored) -> None:
    def grandchild() -> None:
        db.state.thdSetState(objectid, "grandchild", 1)
        db.close()

    def child() -> None:
        db.state.thdSetState(objectid, "child", 1)
        _in_child(grandchild)
        db.state.thdSetState(objectid, "child", 2)
        db.close()

    _in_child(child)
    assert [stored(objectid, name) for name in ("grandchild", "child")] == [1, 2]


#: Forks in two threads; of concurrent.futures' executors, which would have one fork at a time by a
#: lock of their own, there is none.
FORKING = """
import os, sys, threading, time, warnings
import statedb
from statedb import process

warnings.simplefilter("ignore")

class Slow:
    \"\"\"Has the first of the forks be over while the second is being prepared.\"\"\"
    threads = []

    def before_fork(self):
        thread = threading.get_ident()
        if thread not in self.threads:
            self.threads.append(thread)
            time.sleep(len(self.threads) - 1)

    close = after_fork_in_parent = after_fork_in_child = lambda self: None

def fork(number):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if not any(db.run(lambda conn: conn.raw) is one for one in parents):
                db.state.thdSetState(objectid, f"child {number}", number)
                code = 0
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

with statedb.connect(sys.argv[1]) as db:
    objectid = db.state.thdGetObjectId("nightly", "Scheduler")
    slow = Slow()
    process.attend_to(slow)
    threads = [threading.Thread(target=fork, args=[number]) for number in range(2)]
    with db.transaction() as conn:
        parents = [conn.raw]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # they have begun, and wait for our connection to be back
    for thread in threads:
        thread.join()
    db.state.thdSetState(objectid, "parent", 2)
"""


def test_of_two_threads_that_fork_at_once_each_has_a_child_that_is_told(
    url: str, objectid: int, stored: Stored, tmp_path: Path
) -> None:
    assert documents.run(FORKING, tmp_path, url) == ["0", "0"]
    assert [stored(objectid, name) for name in ("child 0", "child 1", "parent")] == [0, 1, 2]


def test_an_in_memory_database_is_a_clear_error_in_a_child() -> None:
    with statedb.connect("sqlite://") as db:
        objectid = db.state.thdGetObjectId("a", "B")

        def child() -> None:
            with pytest.raises(DatabaseError, match="in the process that opened it, not in its"):
                db.state.thdGetState(objectid, "k", None)

        _in_child(child)
        assert db.state.thdGetState(objectid, "k", "still there") == "still there"


def test_a_closed_database_is_closed_in_a_child(url: str, objectid: int) -> None:
    db = statedb.connect(url)
    db.state.thdGetState(objectid, "k", None)
    db.close()

    def child() -> None:
        with pytest.raises(statedb.PoolClosedError):
            db.state.thdGetState(objectid, "k", None)

    _in_child(child)


def test_a_child_draws_other_stamps_than_its_parent() -> None:
    new_stamp()  # and so some more
    reading, writing = os.pipe()
    try:

        def draw() -> None:
            os.write(writing, repr([new_stamp() for _ in range(200)]).encode())

        _in_child(draw)
        drawn = set(ast.literal_eval(os.read(reading, 65536).decode()))
    finally:
        os.close(reading)
        os.close(writing)
    assert len(drawn) == 200
    assert drawn.isdisjoint(new_stamp() for _ in range(200))
