"""Kills: clients and servers that are ended as they stand, under load."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import OwnServer
from onlooker import Onlooker
from servers import Server

import statedb
from faults import extent
from faults.callers import NAMES, Caller, Order, callers
from faults.history import ANSWERED, UNKNOWN, Call, calls_of, explained, outcomes
from statedb import Database

pytestmark = pytest.mark.once

PROCESSES = extent(4, 8)
#: How many are killed at one object: what nobody knows of is more to try for the checker.
KILLS_AT_ONE = 20


def _check(calls: list[Call], *, repeats: bool = False) -> None:
    assert set(explained(calls, repeats=repeats)) == {*NAMES, "together"}


def _await_calls(log: Path) -> None:
    """Wait until a caller has begun: who is killed before takes nothing with him."""
    deadline = time.monotonic() + 60
    while not log.exists() or log.stat().st_size == 0:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.timeout(1200)
def test_a_killed_client_takes_nothing_acknowledged_with_it_and_leaves_no_half(
    db: Database, second: object, url: str, tmp_path: Path
) -> None:
    onlooker = Onlooker(second)
    holding = set()
    told: Counter[str] = Counter()
    with callers(url, PROCESSES) as crew:
        for seed in range(extent(1, 17)):
            logs = tmp_path / f"{seed}"
            logs.mkdir()
            objectid = db.state.thdGetObjectId(f"seed {seed}", "Object")
            orders = [
                Order(seed, objectid, logs, masterid=db.masters.thdFindMasterId(f"{number}"))
                for number in range(PROCESSES)
            ]
            for caller, order in zip(crew, orders, strict=True):
                caller.begin(order)
            chance = random.Random(seed)
            for _ in range(KILLS_AT_ONE):
                time.sleep(chance.uniform(0, 0.06))
                number = chance.randrange(PROCESSES)
                _await_calls(logs / f"{crew[number].name}.0")
                crew[number].kill()
                # A deactivation takes all of a master's claims with it, or none.
                assert onlooker.claims_without_an_active_master() == 0
                holding.add(len(onlooker.held_by(orders[number].masterid or 0)))
                crew[number] = Caller(url)
                crew[number].begin(orders[number])
            for caller in crew:
                caller.stop()
            for caller in crew:
                caller.wait()
            calls = list(calls_of(sorted(logs.iterdir())))
            _check(calls)
            came_to = outcomes(calls)
            assert set(came_to) == {ANSWERED, UNKNOWN}
            assert came_to[UNKNOWN] >= KILLS_AT_ONE
            told += came_to
    print(told)
    # Who was killed stood between two claims, or had all or none.
    assert len(holding) > 1


# --- Servers ---

TIMEOUT = 10.0


@pytest.fixture
def mortal_server(server_engine: OwnServer) -> Iterator[Server]:
    """A server that waits for its disk, and so may be killed."""
    with server_engine.new_server(durable=True) as server:
        server.create_database("killed")
        with statedb.connect(server.url("killed")) as db:
            db.upgrade()
        yield server


@pytest.mark.timeout(1200)
def test_a_killed_server_loses_nothing_acknowledged_and_calls_end_in_time(
    mortal_server: Server, tmp_path: Path
) -> None:
    url = mortal_server.url("killed")
    chance = random.Random(1)
    told: Counter[str] = Counter()
    longest = 0.0
    with callers(url, PROCESSES, timeout=TIMEOUT) as crew, statedb.connect(url) as db:
        for kill in range(extent(1, 20)):
            logs = tmp_path / f"{kill}"
            logs.mkdir()
            order = Order(kill, db.state.thdGetObjectId(f"kill {kill}", "Object"), logs)
            for caller in crew:
                caller.begin(order)
            time.sleep(chance.uniform(0.3, 0.6))
            mortal_server.kill()
            mortal_server.start()
            back = time.monotonic_ns()
            time.sleep(0.5)
            for caller in crew:
                caller.stop()
            for caller in crew:
                caller.wait()
            calls = list(calls_of(sorted(logs.iterdir())))
            _check(calls, repeats=True)
            # Some were under way when it died; afterwards others got through in each process.
            assert any(call.start < back < call.end for call in calls)
            for name in {path.stem for path in logs.iterdir()}:
                of_one = calls_of(sorted(logs.glob(f"{name}.*")))
                assert any(call.end > back and call.is_answered for call in of_one)
            longest = max(longest, *((call.end - call.start) / 1e9 for call in calls))
            assert longest < TIMEOUT + 2
            told += outcomes(calls)
    print(f"{told}, the longest {longest:.1f} s")
