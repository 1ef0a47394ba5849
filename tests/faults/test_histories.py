"""Histories: whatever several processes do to the same values, each answer has an explanation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from engines import Engine, OwnServer
from proxy import Proxy

from faults import extent
from faults.callers import NAMES, THREADS, Caller, Order, callers
from faults.history import ANSWERED, UNKNOWN, Call, calls_of, explained, met, outcomes
from faults.trouble import again_and_again, cut
from statedb import Database

pytestmark = pytest.mark.once

PROCESSES = extent(4, 8)
CALLS = extent(2_000, 10_000)
CUTS = {"least": 0.002, "most": 0.03, "times": CALLS / 50}
#: How much of the calls must have met another on the same value, at least, lest it was too quiet.
MET = 0.2
#: And how much of the cuts must have met a statement.
CUT = 0.25


def _record(
    crew: list[Caller], db: Database, directory: Path, seed: int
) -> Callable[[], list[Call]]:
    """Have all processes begin; what waits for them, and gives their calls."""
    logs = directory / str(seed)
    logs.mkdir()
    objectid = db.state.thdGetObjectId(f"seed {seed}", str(directory))
    for caller in crew:
        caller.begin(Order(seed, objectid, logs, CALLS // (PROCESSES * THREADS)))

    def calls() -> list[Call]:
        for caller in crew:
            caller.wait()
        return list(calls_of(sorted(logs.iterdir())))

    return calls


def _check(calls: list[Call], *, repeats: bool = False) -> Counter[str]:
    """Raise unless there is an explanation; how many there were of what."""
    assert len(calls) >= CALLS - PROCESSES * THREADS
    operations = explained(calls, repeats=repeats)
    assert set(operations) == {*NAMES, "together"}
    met_another = sum(map(met, operations.values()))
    assert met_another > MET * CALLS
    return outcomes(calls) + Counter({"met another": met_another})


@pytest.mark.timeout(1200)
def test_each_answer_has_an_explanation(
    engine: Engine, db: Database, url: str, tmp_path: Path
) -> None:
    told: Counter[str] = Counter()
    with callers(url, PROCESSES) as crew:
        # A server's connections can break, which is the next test, and makes it a hundred too.
        for seed in range(extent(1, 80 if isinstance(engine, OwnServer) else 100)):
            told += _check(_record(crew, db, tmp_path, seed)())
    print(told)
    # Nothing is amiss, so nothing fails.
    assert set(told) == {ANSWERED, "met another"}


@pytest.mark.timeout(1200)
def test_each_answer_has_an_explanation_where_connections_break(
    db: Database, far_url: str, proxy: Proxy, tmp_path: Path
) -> None:
    told: Counter[str] = Counter()
    with callers(far_url, PROCESSES) as crew:
        for seed in range(extent(1, 20)):
            recorded = _record(crew, db, tmp_path, seed)
            # On a slow machine more of them would meet each call, and leave nothing to tell.
            with again_and_again(partial(cut, proxy), seed=seed, **CUTS):
                calls = recorded()
            told += _check(calls, repeats=True)
    print(f"{told}, {proxy.met} statements cut")
    assert proxy.met > CUT * CUTS["times"] * extent(1, 20)
    assert told[UNKNOWN] > 0
