"""Soak: load, faults and membership together, for long; what they take must not grow.

Not among the tests that run by themselves: ``tox -e soak``.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from engines import Engine, OwnServer
from onlooker import Onlooker
from proxy import Proxy

import statedb
from faults.callers import THREADS, Caller, Order, obey
from faults.history import ANSWERED, calls_of, explained, outcomes
from faults.trouble import again_and_again, cut
from statedb import Database, MasterInDoubtError, Member

MINUTES = float(os.environ.get("STATEDB_TEST_SOAK_MINUTES", "15"))
LABOURERS = 2
#: Of each thread of each labourer in a round, after which all is looked at.
CALLS = 400
TIMEOUT = 20.0
#: In seconds: who is killed is expired some rounds later.
EXPIRE_AFTER = 6.0
#: Of each process, of that which has just been killed too: its pool's and its keeper's; and ours.
MOST_CONNECTIONS = (LABOURERS + 1) * (THREADS + 1) + 1


class Reading(NamedTuple):
    """What a process had in use when it was at rest."""

    threads: int
    files: int
    #: Resident, in MiB.
    memory: float


class Report(NamedTuple):
    errors: list[str]
    expired: int
    reading: Reading


def _read() -> Reading:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    files = len(list(Path("/proc/self/fd").iterdir()))
    return Reading(threading.active_count(), files, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


def _serve(pipe: Pipe, url: str, name: str, timeout: float) -> None:
    """Become a member, say so, and carry out orders."""
    expired: list[Any] = []
    with statedb.connect(url, pool_size=THREADS, timeout=timeout) as db:
        join = partial(db.masters.join, interval=0.5, expire_after=EXPIRE_AFTER)
        with join(name, on_expired=expired.extend) as member:
            pipe.send("joined")
            while (order := pipe.recv()) is not None:
                until = None if order.calls is not None else pipe.recv
                errors = [repr(error) for error in obey(db, order, name, until)]
                errors += _claim_and_release(member, name)
                pipe.send(Report(errors, len(expired), _read()))


def _claim_and_release(member: Member, name: str) -> list[str]:
    """Take something and give it back; an outage may keep it from that, and nothing else."""
    try:
        member.release(member.claim("thing", name))
    except (statedb.DatabaseError, MasterInDoubtError):
        return []
    except statedb.Error as error:
        return [repr(error)]
    return []


class Round(NamedTuple):
    readings: list[Reading]
    #: How many the server has; none on SQLite.
    connections: int
    #: How many masters were expired until then.
    expired: int


@pytest.mark.timeout(60 * MINUTES + 600)
def test_nothing_grows(engine: Engine, url: str, db: Database, second: Any, tmp_path: Path) -> None:
    rounds: list[Round] = []
    onlooker = Onlooker(second)
    end = time.monotonic() + 60 * MINUTES
    with _faults(engine, url) as near, _crew(near) as crew:
        while time.monotonic() < end:
            logs = tmp_path / f"{len(rounds)}"
            reports = _labour(near, db, crew, logs, len(rounds))
            readings = [report.reading for report in reports]
            expired = sum(report.expired for report in reports)
            rounds.append(Round(readings, onlooker.other_connections(), expired))
    # Those who were killed were noticed, each by one of the others, as far as there was time.
    assert rounds[-1].expired > len(rounds) / 2 - 20
    _assert_flat("threads", [sum(one.threads for one in each.readings) for each in rounds], 0)
    _assert_flat("files", [sum(one.files for one in each.readings) for each in rounds], 0)
    # How many of these are open just then, after a fault, is chance.
    connections = [each.connections for each in rounds]
    print(f"connections: {max(connections)} at most")
    assert max(connections) <= MOST_CONNECTIONS, connections
    _assert_flat("MiB", [sum(one.memory for one in each.readings) for each in rounds], 1.0)


def _assert_flat(what: str, figures: list[float], slack: float) -> None:
    """What was in use in the last third of the time is no more than in the one before it."""
    third = len(figures) // 3
    assert third >= 3, "too few rounds to tell"
    earlier = statistics.median(figures[third : 2 * third])
    later = statistics.median(figures[2 * third :])
    print(
        f"{what}: {figures[0]:.4g} in the first of {len(figures)} rounds, {earlier:.4g},"
        f" {later:.4g}"
    )
    assert later <= earlier + slack, f"{what}: {figures}"


@contextmanager
def _crew(url: str) -> Iterator[list[Caller]]:
    crew = [Caller(url, TIMEOUT, _serve) for _ in range(LABOURERS)]
    try:
        for caller in crew:
            assert caller.report() == "joined"
        yield crew
    finally:
        for caller in crew:
            caller.end()


def _labour(url: str, db: Database, crew: list[Caller], logs: Path, number: int) -> list[Report]:
    """Load for a while, in which a further process is killed; what the others report."""
    logs.mkdir()
    order = Order(number, db.state.thdGetObjectId(f"round {number}", "Object"), logs)
    victim = Caller(url, TIMEOUT, _serve)
    for caller in crew:
        caller.begin(order._replace(calls=CALLS))
    victim.begin(order)
    # Who is killed before has left nothing to be expired.
    assert victim.report() == "joined"
    time.sleep(random.Random(number).uniform(0.0, 0.8))
    victim.kill()
    reports: list[Report] = [caller.report() for caller in crew]
    assert [error for report in reports for error in report.errors] == []
    calls = list(calls_of(sorted(logs.iterdir())))
    shutil.rmtree(logs)
    assert outcomes(calls)[ANSWERED] > 0.9 * CALLS * THREADS * LABOURERS
    explained(calls, repeats=True)
    db.state.thdDeleteObject(order.objectid)
    return reports


# --- Faults ---


@contextmanager
def _faults(engine: Engine, url: str) -> Iterator[str]:
    """The URL by which to meet faults, again and again."""
    with ExitStack() as stack:
        if isinstance(engine, OwnServer):
            assert engine.server is not None
            server = engine.server
            proxy = stack.enter_context(Proxy(server.port, server.protocol))
            stack.enter_context(_trouble(partial(_break, proxy)))
            yield server.url(url.rpartition("/")[2], proxy.port)
        else:
            own = stack.enter_context(closing(engine.connect(url, autocommit=True)))
            stack.enter_context(_trouble(partial(_hog, own)))
            yield url


_trouble = partial(again_and_again, seed=1, least=0.0, most=0.4)


def _break(proxy: Proxy, chance: random.Random) -> None:
    """One fault of the network, most often a small one."""
    kind = chance.choices(["one", "all", "stall", "refuse"], [20, 2, 1, 1])[0]
    if kind == "one":
        cut(proxy, chance)
    elif kind == "all":
        proxy.cut_all()
    elif kind == "stall":
        proxy.stall()
        time.sleep(chance.uniform(0, 1))
        proxy.resume()
    else:
        proxy.refuse()
        time.sleep(chance.uniform(0, 1))
        proxy.listen()


def _hog(own: Any, chance: random.Random) -> None:
    """Keep the file to oneself for a moment, as an application may."""
    own.execute("PRAGMA busy_timeout = 10000")
    own.execute("BEGIN IMMEDIATE")
    time.sleep(chance.uniform(0, 0.2))
    own.execute("ROLLBACK")
