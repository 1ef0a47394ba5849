"""Several processes that set values at once: all the same one, or each another time another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.child import Child
from benchmarks.contest import Contest
from benchmarks.table import Result

#: How long after they are told to begin they all do.
TO_BEGIN = 0.05
SECONDS = 1.0
KEYS = {"hot": 1, "wide": 1000}


@dataclass(frozen=True)
class Run:
    """All processes' calls together: one that starves shows in the longest call only."""

    #: Calls a second.
    rate: float
    #: Milliseconds that 99 of 100 calls stayed within.
    p99: float
    #: Milliseconds of the longest call.
    longest: float


MEASURES = {"rate": "/s", "p99": "ms", "longest": "ms"}


def processes(contest: Contest) -> Iterator[Result]:
    sides = ["statedb", *(name for name in ("sqlalchemy", "diskcache") if contest.takes_part(name))]
    numbers = contest.pace.processes
    # What they set is there before.
    _ = [contest.ours, *(contest.peer(name) for name in sides[1:])]
    with ExitStack() as stack:
        setters = {
            side: [
                stack.enter_context(Child("setter", side, contest.place(side), str(number)))
                for number in range(max(numbers))
            ]
            for side in sides
        }
        for children in setters.values():
            for child in children:
                child.receive()
                child.ask(begin=time.monotonic(), seconds=0.0, keys=max(KEYS.values()))
        for kind, keys in KEYS.items():
            yield from _contend(contest, setters, kind, keys)


def _contend(
    contest: Contest, setters: dict[str, list[Child]], kind: str, keys: int
) -> Iterator[Result]:
    numbers = contest.pace.processes
    runs: dict[tuple[str, int], list[Run]] = {
        (side, number): [] for side in setters for number in numbers
    }
    for _ in range(contest.pace.rounds):
        for side, number in runs:
            runs[side, number].append(_run(setters[side][:number], keys, contest))
    for number in numbers:
        case = f"set {kind}, {number} process{'es' * (number > 1)}"
        ours = runs["statedb", number]
        rates = [run.rate for run in ours]
        if number > 1:
            alone = [run.rate for run in runs["statedb", 1]]
            yield _compared(contest, case, "1 process", alone, rates)
        for measure, unit in MEASURES.items():
            own = [getattr(run, measure) for run in ours]
            name = case if measure == "rate" else f"{case}, {measure}"
            yield Result(name, contest.engine, "", None, statistics.median(own), unit=unit)
            for peer in list(setters)[1:]:
                theirs = [getattr(run, measure) for run in runs[peer, number]]
                yield _compared(contest, name, peer, theirs, own, unit)


def _compared(
    contest: Contest,
    case: str,
    against: str,
    theirs: Sequence[float],
    ours: Sequence[float],
    unit: str = "/s",
) -> Result:
    """How many times as good ours is: as high a rate, or as short a time."""
    ratios = [our / their for their, our in zip(theirs, ours, strict=True)]
    if unit != "/s":
        ratios = [1 / ratio for ratio in ratios]
    middle = statistics.median
    return Result(case, contest.engine, against, middle(theirs), middle(ours), ratios, unit)


def _run(children: Sequence[Child], keys: int, contest: Contest) -> Run:
    begin = time.monotonic() + TO_BEGIN
    seconds = min(SECONDS, contest.pace.seconds * 4)
    for child in children:
        child.send(begin=begin, seconds=seconds, keys=keys)
    taken = sorted(1000 * each for child in children for each in child.receive())
    return Run(len(taken) / seconds, taken[int(len(taken) * 0.99)], taken[-1])
