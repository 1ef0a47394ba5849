"""Mortal: a process that ends itself at a chosen moment, before or after any statement."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple

from engines import Engine, chosen_engines

import statedb
from statedb.connection import adapt

#: How an operation is run: by a Database, or on an application's own connection; or what is run is
#: a function of a Database, one with a single connection.
WAYS = ("database", "application", "program")
ENDED = -signal.SIGKILL


class Order(NamedTuple):
    how: str
    operation: Callable[..., Any]
    arguments: tuple[Any, ...]
    #: At which of its moments the process ends: the first is before the first statement, the next
    #: after it, and so on.
    dies_at: int
    #: What the operation ends with besides an answer.
    raises: tuple[type[BaseException], ...] = ()


#: The moment at which no process ends.
NEVER = -1


class _Mortal:
    """Ends its process at a chosen one of the moments that it passes."""

    def __init__(self, dies_at: int) -> None:
        self._dies_at = dies_at
        self._passed = 0
        self.armed = False

    def passes(self) -> None:
        if self.armed:
            if self._passed == self._dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self._passed += 1


class _MortalCursor:
    """A driver's cursor before and after each of whose statements its process may end."""

    def __init__(self, cursor: Any, mortal: _Mortal) -> None:
        self._cursor = cursor
        self._mortal = mortal

    def execute(self, *statement: Any) -> Any:
        return self._pass(self._cursor.execute, *statement)

    def executemany(self, *statement: Any) -> Any:
        return self._pass(self._cursor.executemany, *statement)

    def _pass(self, execute: Callable[..., Any], *statement: Any) -> Any:
        self._mortal.passes()
        answer = execute(*statement)
        self._mortal.passes()
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


@contextlib.contextmanager
def obedience(engine: Engine) -> Iterator[Callable[[str, Order], int]]:
    """What has a process of its own obey an order in a database, and gives its exit code."""
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe()
    process = context.Process(target=_serve, args=(far_end, engine.name))
    process.start()
    far_end.close()

    def give(url: str, order: Order) -> int:
        pipe.send((url, order))
        assert pipe.poll(60), "the process neither ends nor dies"
        code: int = pipe.recv()
        return code

    try:
        yield give
    finally:
        with contextlib.suppress(OSError):
            pipe.send(None)
        process.join(10)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
        pipe.close()


def _serve(pipe: Pipe, engine_name: str) -> None:
    """Fork a process for each order; this one has imported everything, and opens nothing."""
    (engine,) = (one for one in chosen_engines() if one.name == engine_name)
    while (told := pipe.recv()) is not None:
        url, order = told
        statedb.dialects.for_url(url)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _obey(order, engine, url)
                status = 0
            finally:
                os._exit(status)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _obey(order: Order, engine: Engine, url: str) -> None:
    mortal = _Mortal(order.dies_at)
    dialect = statedb.dialects.for_url(url)
    statedb.dialects.register(
        dataclasses.replace(
            dialect,
            cursor=lambda raw: _MortalCursor(dialect.cursor(raw), mortal),
            query=lambda cursor: cursor.execute,
        )
    )
    if order.how == "application":
        own = engine.connect(url)
        mortal.armed = True
        with contextlib.suppress(*order.raises):
            order.operation(adapt(own), *order.arguments)
        mortal.passes()
        own.commit()
        mortal.passes()
        return
    db = statedb.connect(url, pool_size=1)
    if order.how == "database":
        db.masters.thdGetMasters()
    mortal.armed = True
    with contextlib.suppress(*order.raises):
        if order.how == "database":
            db.run(order.operation, *order.arguments)
        else:
            order.operation(db, *order.arguments)
