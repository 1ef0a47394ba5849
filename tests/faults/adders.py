"""Adders: processes whose threads append numbers to a stored list, and say what became of each."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection as Pipe
from typing import Any, Literal, NamedTuple

import statedb
from statedb import Database, DatabaseError, OutcomeUnknownError

#: How a number is appended.
KINDS = ("sync", "future", "transaction")
Outcome = Literal["acknowledged", "unknown", "not done"]


class Work(NamedTuple):
    """What one process appends: of each kind, so many numbers from the first on."""

    url: str
    objectid: int
    first: int
    each: int


@contextlib.contextmanager
def adding(works: list[Work]) -> Iterator[Callable[[], dict[int, Outcome] | None]]:
    """Has a process do each work; gives what became of the numbers, None while they are at it."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pipes = []
        for work in works:
            pipe, far_end = context.Pipe()
            process = context.Process(target=_work, args=(far_end, work))
            process.start()
            far_end.close()
            stack.callback(_end, process)
            pipes.append(stack.enter_context(pipe))
        outcomes: dict[int, Outcome] = {}

        def look() -> dict[int, Outcome] | None:
            for pipe in list(pipes):
                if pipe.poll():
                    outcomes.update(pipe.recv())
                    pipes.remove(pipe)
            return None if pipes else outcomes

        yield look


def _end(process: Any) -> None:
    process.join(10)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()


def _work(pipe: Pipe, work: Work) -> None:
    outcomes: dict[int, Outcome] = {}
    with statedb.connect(work.url, pool_size=len(KINDS), timeout=30) as db:
        threads = [
            threading.Thread(target=_append_all, args=(db, work, kind, outcomes)) for kind in KINDS
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    pipe.send(outcomes)


def _append_all(db: Database, work: Work, kind: str, outcomes: dict[int, Outcome]) -> None:
    first = work.first + KINDS.index(kind) * work.each
    for number in range(first, first + work.each):
        outcomes[number] = _append(db, work.objectid, kind, number)


def _append(db: Database, objectid: int, kind: str, number: int) -> Outcome:
    def appended(found: list[int]) -> list[int]:
        return [*found, number]

    try:
        if kind == "sync":
            found = db.state.thdUpdateState(objectid, "list", appended)
        elif kind == "future":
            future: Future[Any] = db.state.updateState(objectid, "list", appended)
            found = future.result(60)
        else:
            with db.transaction():
                found = db.state.thdUpdateState(objectid, "list", appended)
    except OutcomeUnknownError:
        return "unknown"
    except DatabaseError:
        # Of a transaction() it says that nothing was committed.
        return "not done"
    assert number in found
    return "acknowledged"
