"""Callers: processes of several threads that call whatever there is, and write down all of it."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

import statedb
from faults.history import ANSWERED, TOGETHER, UNKNOWN, Log
from statedb import Database, NoSuchStateError, OutcomeUnknownError

THREADS = 4
NAMES = [f"k{number}" for number in range(10)]
#: How often each is called, in a hundred calls.
WEIGHTS = {
    "get": 26,
    "gets": 8,
    "get together": 6,
    "set": 14,
    "sets": 4,
    "set together": 4,
    "create": 12,
    "update": 16,
    "delete": 10,
}

_context = multiprocessing.get_context("forkserver")
# It takes long to import all this; who is forked from where it has been imported begins at once.
_context.set_forkserver_preload(["faults.callers", "psycopg", "pymysql", "statedb.membership"])


class Order(NamedTuple):
    """What a process is to do, in each of its threads."""

    seed: int
    objectid: int
    #: Where it writes down its calls.
    logs: Path
    #: How many calls; None for as many as it can until it is told that it is enough.
    calls: int | None = None
    #: A master that becomes active, claims things, and is deactivated, all the while.
    masterid: int | None = None


class Caller:
    """A process that makes calls as it is told to."""

    _numbers = itertools.count()

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        serve: Callable[[Pipe, str, str, float], None] | None = None,
    ) -> None:
        #: Where in the logs its calls are, before a dot and each thread's number.
        self.name = f"{next(self._numbers)}"
        self._pipe, theirs = _context.Pipe()
        arguments = (theirs, url, self.name, timeout)
        self._process = _context.Process(target=serve or _serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, order: Order) -> None:
        self._pipe.send(order)

    def stop(self) -> None:
        """Have it end what it was ordered to do without a number of calls."""
        self._pipe.send("enough")

    def report(self) -> Any:
        """What it says once it has done what it was ordered to."""
        return self._pipe.recv()

    def wait(self) -> None:
        """Until it has done what it was ordered to, without an error."""
        errors = self.report()
        assert not errors, errors

    def kill(self) -> None:
        """End it as it stands."""
        self._process.kill()
        self._close()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(60)
        if self._process.is_alive():
            self._process.kill()
        self._close()

    def _close(self) -> None:
        self._process.join()
        self._process.close()
        self._pipe.close()


@contextlib.contextmanager
def callers(url: str, count: int, *, timeout: float = 30.0) -> Iterator[list[Caller]]:
    """So many processes; who ends one puts another in its place."""
    crew = [Caller(url, timeout) for _ in range(count)]
    try:
        yield crew
    finally:
        for caller in crew:
            caller.end()


def _serve(pipe: Pipe, url: str, name: str, timeout: float) -> None:
    with statedb.connect(url, pool_size=THREADS + 1, timeout=timeout) as db:
        while (order := pipe.recv()) is not None:
            until = None if order.calls is not None else pipe.recv
            pipe.send([repr(error) for error in obey(db, order, name, until)])


def obey(
    db: Database, order: Order, name: str, until: Callable[[], object] | None = None
) -> list[BaseException]:
    """Carry an order out, in so many threads; what went wrong."""
    over = threading.Event()
    errors: list[BaseException] = []

    def run(act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    acts = [partial(_call, db, order, f"{name}.{number}", over) for number in range(THREADS)]
    if order.masterid is not None:
        acts.append(partial(_come_and_go, db, order.masterid, over))
    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    if until is not None:
        until()
        over.set()
    for thread in threads:
        thread.join()
    return errors


def _call(db: Database, order: Order, name: str, over: threading.Event) -> None:
    with Log(order.logs / name) as log:
        thread = _Thread(db, order, name, log)
        for _ in itertools.count() if order.calls is None else range(order.calls):
            if over.is_set():
                break
            thread.call()


def _come_and_go(db: Database, masterid: int, over: threading.Event) -> None:
    while not over.is_set():
        db.masters.thdSetMasterState(masterid, True)
        for thing in ("a", "b", "c"):
            db.masters.thdClaim(masterid, "thing", f"{thing} of {masterid}")
        db.masters.thdSetMasterState(masterid, False)


class _Thread:
    """One thread, which makes a call itself or has a worker make it."""

    def __init__(self, db: Database, order: Order, name: str, log: Log) -> None:
        self._state = db.state
        self._objectid = order.objectid
        self._name = name
        self._log = log
        self._chance = random.Random(f"{order.seed}.{name}")
        self._written = 0

    def call(self) -> None:
        (what,) = self._chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        argument = self._argument(what)
        self._log.begin(what, argument)
        try:
            answer = self._make(what, argument)
        except NoSuchStateError:
            self._log.end(ANSWERED, None)
        except OutcomeUnknownError:
            self._log.end(UNKNOWN)
        except statedb.DatabaseError as error:
            self._log.end(type(error).__name__)
        else:
            self._log.end(ANSWERED, answer)

    def _argument(self, what: str) -> Any:
        if what == "gets":
            return self._chance.sample(NAMES, 3)
        if what == "get together":
            return None
        if what == "sets":
            return {name: self._new_value() for name in self._chance.sample(NAMES, 3)}
        if what == "set together":
            return self._new_value()
        name = self._chance.choice(NAMES)
        return [name, self._new_value()] if what in ("set", "create") else name

    def _new_value(self) -> str:
        self._written += 1
        return f"{self._name}.{self._written}"

    def _make(self, what: str, argument: Any) -> Any:
        if what == "get":
            return self._run("getState", argument)
        if what == "gets":
            return self._run("getStates", argument)
        if what == "get together":
            return self._run("getStates", TOGETHER)
        if what == "set":
            return self._run("setState", *argument)
        if what == "sets":
            return self._run("setStates", argument)
        if what == "set together":
            return self._run("setStates", dict.fromkeys(TOGETHER, argument))
        if what == "create":
            return self._run("atomicCreateState", argument[0], lambda: argument[1])
        if what == "update":
            return self._run("updateState", argument, self._update, None)
        return self._run("deleteState", argument)

    def _run(self, operation: str, *arguments: Any) -> Any:
        if self._chance.random() < 0.5:
            return getattr(self._state, operation)(self._objectid, *arguments).result()
        thd = f"thd{operation[0].upper()}{operation[1:]}"
        return getattr(self._state, thd)(self._objectid, *arguments)

    def _update(self, found: Any) -> str:
        made = self._new_value()
        self._log.call_back(found, made)
        return made
