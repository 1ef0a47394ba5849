"""Crowds: many processes that come to an empty database at the same moment."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from engines import Engine, chosen_engines

import statedb
from faults import extent

pytestmark = pytest.mark.once

PROCESSES = extent(16, 50)
ROUNDS = extent(1, 20)
#: For how many seconds a process may be at it; on two cores fifty take their time.
PATIENCE = 120.0
#: How long after the last is there, in seconds, all begin: they are let go one after the other.
PAUSE = 0.2


class _Found(NamedTuple):
    """What one process got, and when it was at it, by the clock that all processes share."""

    objectid: int
    value: Any
    masterid: int
    begun: float
    ended: float


def _come(barrier: Any, start: Any, pipe: Pipe, url: str, upgrades: bool) -> None:
    """Open the database when all do, and create the same as all; tell what came of it."""
    found: object
    try:
        if barrier.wait(PATIENCE) == 0:
            start.value = time.monotonic() + PAUSE
        barrier.wait(PATIENCE)
        time.sleep(max(0.0, start.value - time.monotonic()))
        begun = time.monotonic()
        with statedb.connect(url, timeout=PATIENCE) as db:
            if upgrades:
                db.upgrade()
            objectid = db.state.thdGetObjectId("new", "Object")
            value = db.state.atomicCreateState(objectid, "key", os.getpid).result()
            masterid = db.masters.thdFindMasterId("host")
        found = _Found(objectid, value, masterid, begun, time.monotonic())
    except BaseException as error:
        found = repr(error)
    pipe.send(found)


def _serve(pipe: Pipe, count: int, engine_name: str) -> None:
    """Fork a crowd for each URL; this process has imported everything, and opens nothing."""
    (engine,) = (one for one in chosen_engines() if one.name == engine_name)
    context = multiprocessing.get_context("fork")
    while (url := pipe.recv()) is not None:
        statedb.dialects.for_url(url)
        barrier = context.Barrier(count)
        start = context.Value("d", lock=False)
        crowd = []
        for _ in range(count):
            near, far = context.Pipe(duplex=False)
            process = context.Process(
                target=_come, args=(barrier, start, far, url, engine.name != "sqlite")
            )
            process.start()
            far.close()
            crowd.append((process, near))
        found = []
        for process, near in crowd:
            try:
                found.append(near.recv() if near.poll(2 * PATIENCE) else "it hangs")
            except EOFError:
                found.append("it ended without a word")
            if found[-1] == "it hangs":
                process.kill()
            process.join()
            process.close()
            near.close()
        pipe.send(found)


@pytest.fixture
def crowd(engine: Engine) -> Iterator[Pipe]:
    """A process that has a crowd open each database that it is sent the URL of."""
    context = multiprocessing.get_context("spawn")
    pipe, far = context.Pipe()
    process = context.Process(target=_serve, args=(far, PROCESSES, engine.name))
    process.start()
    far.close()
    yield pipe
    with contextlib.suppress(OSError):
        pipe.send(None)
    process.join(10)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()
    pipe.close()


@pytest.mark.timeout(extent(300, 1500))
def test_a_crowd_that_opens_an_empty_database_at_once_makes_one_of_everything(
    engine: Engine, crowd: Pipe, tmp_path: Path
) -> None:
    at_once = 0
    for _ in range(ROUNDS):
        with engine.empty_database(tmp_path) as url:
            crowd.send(url)
            assert crowd.poll(3 * PATIENCE), "the crowd hangs"
            found = crowd.recv()
            strangers = [one for one in found if not isinstance(one, _Found)]
            assert not strangers, f"{len(strangers)} of {len(found)}: {strangers}"
            assert len(found) == PROCESSES
            at_once = max(at_once, _most_at_once(found))
            ((objectid, value, masterid),) = {(one[0], one[1], one[2]) for one in found}
            with contextlib.closing(engine.connect(url, autocommit=True)) as second:
                assert _rows(second, "SELECT id FROM statedb_objects") == [objectid]
                assert _rows(second, "SELECT objectid FROM statedb_states") == [objectid]
                assert _rows(second, "SELECT id FROM statedb_masters") == [masterid]
                assert _rows(second, "SELECT version FROM statedb_schema") == [
                    statedb.schema.VERSION
                ]
                assert statedb.state.get_state(second, objectid, "key") == value
    # Or they were no crowd.
    print(f"{at_once} of {PROCESSES} at once")
    assert at_once >= PROCESSES // 2


def _rows(second: Any, sql: str) -> list[Any]:
    cursor = second.cursor()
    cursor.execute(sql)
    return [row[0] for row in cursor.fetchall()]


def _most_at_once(found: list[_Found]) -> int:
    """How many of them were at it at the same moment, at most."""
    return max(sum(one.begun <= moment.begun < one.ended for one in found) for moment in found)
