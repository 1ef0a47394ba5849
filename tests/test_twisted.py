"""That Twisted programs get what connectors give, by the recipe in README.md.

Each test runs a program with a reactor of its own; it fails by as much as a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import ABSENT
from documents import run
from test_readme import twisted_recipe

import statedb

CALLS = 50
#: The database of tests whose subject is the reactor, and the same on every engine.
KEPT = "sqlite:///kept.sqlite"


def outcome(program: str, directory: Path, url: str = "sqlite://") -> list[str]:
    """What a program prints that has the recipe, a URL, and what occupies workers."""
    return run(f"{twisted_recipe()}\n{COMMON}\nurl = {url!r}\n{program}", directory)


def kept(directory: Path) -> dict[str, Any]:
    """What a program with a database of its own has left."""
    with statedb.connect(f"sqlite:///{directory}/kept.sqlite") as db:
        nightly = db.state.thdGetObjectId("nightly", "Scheduler")
        return db.state.thdGetStates(nightly)


COMMON = """
import gc
import sys
import threading

from twisted.internet import threads
from twisted.logger import globalLogBeginner, LogLevel

# What Twisted would only log: a Deferred's error that nobody has asked for, for one.
globalLogBeginner.beginLoggingTo(
    [lambda event: event["log_level"] >= LogLevel.warn and print("logged", event)],
    redirectStandardIO=False,
)
here = threading.get_ident()


class Block:
    def __init__(self):
        self.begun, self.go_on = defer.Deferred(), threading.Event()

    def __call__(self, value=None):
        reactor.callFromThread(self.begun.callback, None)
        assert self.go_on.wait(60)
        return value
"""


# --- On the reactor's thread ---


def test_inline_callbacks_get_values_and_errors_on_the_reactors_thread(
    url: str, objectid: int, stored: Callable[..., Any], tmp_path: Path
) -> None:
    program = f"""
@defer.inlineCallbacks
def one(db, nightly, number):
    yield deferred(db.state.setState(nightly, f"k{{number}}", number))
    value = yield deferred(db.state.getState(nightly, f"k{{number}}"))
    assert threading.get_ident() == here
    try:
        yield deferred(db.state.getState(nightly, "absent"))
    except KeyError as error:
        assert type(error) is statedb.NoSuchStateError
        assert threading.get_ident() == here
    count = yield deferred(db.state.updateState(nightly, "count", lambda count: count + 1, 0))
    return value, count

@defer.inlineCallbacks
def main(reactor):
    with statedb.connect(url) as db:
        nightly = yield deferred(db.state.getObjectId("nightly", "Scheduler"))
        both = yield defer.gatherResults([one(db, nightly, n) for n in range({CALLS})])
        values, counts = zip(*both)
        print(values == tuple(range({CALLS})), sorted(counts) == list(range(1, {CALLS} + 1)))

task.react(main)
"""
    assert outcome(program, tmp_path, url) == ["True True"]
    assert stored(objectid, "count") == CALLS
    assert [stored(objectid, f"k{n}") for n in range(CALLS)] == list(range(CALLS))


def test_a_future_that_is_done_already_fires_later_as_the_others_do(tmp_path: Path) -> None:
    program = """
async def main(reactor):
    with statedb.connect(url) as db:
        with db.transaction():
            future = db.state.getObjectId("nightly", "Scheduler")
        assert future.done()
        waiting = deferred(future)
        print(waiting.called, await waiting)

task.react(main)
"""
    assert outcome(program, tmp_path) == ["False 1"]


def test_an_error_that_nobody_asks_for_is_logged_by_twisted(tmp_path: Path) -> None:
    program = """
async def main(reactor):
    with statedb.connect(url) as db:
        deferred(db.state.getState(1, "absent"))
        await deferred(db.state.getObjectId("nightly", "Scheduler"))
        gc.collect()

task.react(main)
"""
    logged = outcome(program, tmp_path)
    assert "Unhandled error in Deferred" in logged[0]
    assert any("NoSuchStateError" in line for line in logged)


# --- Cancelled ---


def test_a_cancelled_call_that_is_under_way_is_done_and_its_error_is_nobodys(
    tmp_path: Path,
) -> None:
    program = """
async def main(reactor):
    with statedb.connect(url) as db:
        nightly = await deferred(db.state.getObjectId("nightly", "Scheduler"))

        def fail(value):
            block()
            raise ArithmeticError

        for change in (lambda last: block(7), fail):
            block = Block()
            future = db.state.updateState(nightly, "last", change, None)
            waiting = deferred(future)
            await block.begun
            waiting.cancel()
            try:
                await waiting
            except defer.CancelledError:
                print("cancelled", block.go_on.is_set(), future.cancelled())
            block.go_on.set()
            print(await deferred(db.state.getState(nightly, "last")))
        del waiting, future
        gc.collect()

task.react(main)
"""
    assert outcome(program, tmp_path, KEPT) == ["cancelled False False", "7"] * 2
    assert kept(tmp_path) == {"last": 7}


def test_a_deferred_that_runs_out_of_time_cancels_what_has_not_begun(tmp_path: Path) -> None:
    program = """
async def main(reactor):
    with statedb.connect(url) as db:
        nightly = await deferred(db.state.getObjectId("nightly", "Scheduler"))
        block = Block()
        first = deferred(db.state.updateState(nightly, "last", lambda last: block("first"), None))
        second = deferred(db.state.setState(nightly, "last", "second"))
        third = deferred(db.state.updateState(nightly, "last", lambda last: f"{last}, third"))
        await block.begun
        try:
            await second.addTimeout(0.01, reactor)
        except defer.TimeoutError:
            print("out of time")
        block.go_on.set()
        print(await first, await third)

task.react(main)
"""
    assert outcome(program, tmp_path, KEPT) == ["out of time", "first first, third"]
    assert kept(tmp_path) == {"last": "first, third"}


def test_deferreds_cancelled_at_any_moment_leave_no_worker_stuck(
    url: str, objectid: int, stored: Callable[..., Any], tmp_path: Path
) -> None:
    program = """
async def main(reactor):
    with statedb.connect(url) as db:
        nightly = await deferred(db.state.getObjectId("nightly", "Scheduler"))
        blocks = [Block() for _ in range(4)]
        for block in blocks:
            db.submit(lambda conn, block=block: block())
            await block.begun
        for n in range(200):
            waiting = deferred(db.state.setState(nightly, f"k{n}", n))
            waiting.addErrback(lambda failure: failure.trap(defer.CancelledError))
            if n % 4 == 0:
                waiting.cancel()
            elif n % 4 == 1:
                reactor.callLater(0, waiting.cancel)
            elif n % 4 == 2:
                reactor.callFromThread(waiting.cancel)
        for block in blocks:
            block.go_on.set()
        # All of them at work at once: none has been lost.
        gate = threading.Barrier(4)
        await defer.gatherResults(
            [deferred(db.submit(lambda conn: gate.wait(60))) for _ in range(4)]
        )
        print("all are at work")

task.react(main)
"""
    assert outcome(program, tmp_path, url) == ["all are at work"]
    values = [stored(objectid, f"k{n}") for n in range(200)]
    assert all(value in (n, ABSENT) for n, value in enumerate(values))
    assert values[0::4] == [ABSENT] * 50
    assert values[3::4] == list(range(3, 200, 4))


# --- A reactor that stops ---


def test_a_reactor_that_stops_tells_who_waits_if_the_database_is_closed_before(
    url: str, objectid: int, stored: Callable[..., Any], tmp_path: Path
) -> None:
    program = """
db = statedb.connect(url)
block = Block()
reactor.addSystemEventTrigger("before", "shutdown", threads.deferToThread, db.close)

def ask():
    running = deferred(db.state.updateState(1, "last", lambda last: block(7), None))
    waiting = deferred(db.state.setState(1, "other", 8))
    defer.gatherResults([running, waiting]).addCallback(print)
    block.begun.addCallback(lambda _: reactor.stop())
    reactor.addSystemEventTrigger("before", "shutdown", block.go_on.set)

reactor.callWhenRunning(ask)
reactor.run()
"""
    program = program.replace('State(1, "', f'State({objectid}, "')
    assert outcome(program, tmp_path, url) == ["[7, 8]"]
    assert (stored(objectid, "last"), stored(objectid, "other")) == (7, 8)


def test_what_was_under_way_when_the_reactor_stopped_is_done_all_the_same(
    tmp_path: Path,
) -> None:
    program = """
async def main(reactor):
    with statedb.connect(url) as db:
        nightly = await deferred(db.state.getObjectId("nightly", "Scheduler"))
        block = Block()
        waiting = deferred(db.state.setState(nightly, "other", 8))
        future = db.state.updateState(nightly, "last", lambda last: block(7), None)
        await block.begun
        # Of what fires when the reactor is gone nobody is told.
        reactor.addSystemEventTrigger("after", "shutdown", block.go_on.set)
        reactor.stop()
        await deferred(future)
        print("told")

task.react(main)
"""
    assert outcome(program, tmp_path, KEPT) == []
    assert kept(tmp_path) == {"last": 7, "other": 8}
