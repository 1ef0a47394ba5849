"""Histories: whatever several processes do to the same values, each answer has an explanation."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, OwnServer
from proxy import Proxy

from faults import extent
from faults.callers import NAMES, THREADS, Caller, Order, callers
from faults.checker import violation
from faults.history import ANSWERED, UNKNOWN, Call, calls_of, met, operations_by_name, outcomes
from statedb import Database

pytestmark = pytest.mark.once

PROCESSES = extent(4, 8)
CALLS = extent(2_000, 10_000)
#: How much of the calls must have met another on the same value, at least, lest it was too quiet.
MET = 0.2
STATEMENTS = ["COMMIT", "UPDATE", "INSERT", "DELETE", "SELECT"]


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


def _check(calls: list[Call], *, repeats: bool = False) -> None:
    assert len(calls) >= CALLS - PROCESSES * THREADS
    operations = operations_by_name(calls, repeats=repeats)
    for name, of_one in operations.items():
        wrong = violation(of_one)
        assert wrong is None, f"nothing explains {name}: {wrong}"
    assert set(operations) == {*NAMES, "together"}
    assert sum(map(met, operations.values())) > MET * CALLS


@pytest.mark.timeout(1200)
def test_each_answer_has_an_explanation(
    engine: Engine, db: Database, url: str, tmp_path: Path
) -> None:
    with callers(url, PROCESSES) as crew:
        # A server's connections can break, which is the next test, and makes it a hundred too.
        for seed in range(extent(1, 80 if isinstance(engine, OwnServer) else 100)):
            calls = _record(crew, db, tmp_path, seed)()
            _check(calls)
            # Nothing is amiss, so nothing fails.
            assert set(outcomes(calls)) == {ANSWERED}


@pytest.mark.timeout(1200)
def test_each_answer_has_an_explanation_where_connections_break(
    db: Database, far_url: str, proxy: Proxy, tmp_path: Path
) -> None:
    lost = 0
    with callers(far_url, PROCESSES) as crew:
        for seed in range(extent(1, 20)):
            recorded = _record(crew, db, tmp_path, seed)
            with _cuts(proxy, seed):
                calls = recorded()
            _check(calls, repeats=True)
            lost += outcomes(calls)[UNKNOWN]
    assert lost > 0


@contextmanager
def _cuts(proxy: Proxy, seed: int) -> Iterator[None]:
    """Have connections cut, again and again, before or after some statement."""
    chance = random.Random(seed)
    over = threading.Event()

    def cut() -> None:
        while not over.wait(chance.uniform(0.01, 0.1)):
            act: Any = chance.choice([proxy.cut_before, proxy.cut_after])
            act(chance.choice(STATEMENTS))

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
