"""One future alone in flight: what it costs above the call in the caller's thread."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial

from benchmarks.contest import Contest
from benchmarks.measure import in_turn, one_by_one
from benchmarks.table import Result
from benchmarks.workload import OPERATIONS, Operation


def alone(contest: Contest) -> Iterator[Result]:
    for name in ("get", "set"):
        operation = OPERATIONS[name]
        blocks = [partial(_block, contest, operation, future) for future in (False, True)]
        sync, future = in_turn(blocks, contest.pace.turns)
        above = [1000 * (high - low) for low, high in zip(sync, future, strict=True)]
        middle = statistics.median(above)
        case = f"{name}, future alone, above sync"
        yield Result(case, contest.engine, "", None, middle, unit="ms")


def _block(contest: Contest, operation: Operation, future: bool) -> float:
    submit, call = (
        getattr(contest.ours, kind)(operation.method) for kind in ("promising", "waiting")
    )
    calls = contest.pace.calls
    arguments = [operation.arguments(number) for number in range(calls)]
    method = (lambda *each: submit(*each).result()) if future else call
    taken, results = one_by_one(method, arguments)
    assert operation.right(range(calls), results)
    return taken / calls
