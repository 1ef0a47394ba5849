"""The benchmark: what statedb's own share of a get and of a set costs, beside the bare driver.

``python tests/benchmark.py`` starts durable servers of its own, and keeps SQLite's file in the
system's temporary directory, which should be on a disk (else set TMPDIR). Both sides use one and
the same connection, in turns, so that what the machine does meanwhile meets both.

Where the kernel happens to run a client and its server on one core, a round trip takes less than
half the time, and statedb's share of it is the larger: ``--one-core`` always measures that.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import servers

import statedb
from statedb import Database
from statedb.names import encode_name, name_hash

CALLS_IN_BLOCK = 40
SQLITE_WARM_UP = 1000
SERVERS: dict[str, type[servers.Server]] = {
    "postgresql": servers.PostgreSQL,
    "mariadb": servers.MariaDB,
}
ENGINES = ("sqlite", *SERVERS)

#: Of the bare driver's calls a second, the part that statedb is to reach at least.
BOUNDS = {
    ("get", "sqlite"): 0.35,
    ("get", "postgresql"): 0.75,
    ("get", "mariadb"): 0.75,
    ("set", "postgresql"): 0.80,
    ("set", "mariadb"): 0.80,
}
NAME = "last_revision"
VALUE = {"branch": "main", "revision": 4711}

Call = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Seconds that each block of calls took, round by round."""

    case: str
    engine: str
    bare: Sequence[float]
    ours: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        return [bare / ours for bare, ours in zip(self.bare, self.ours, strict=True)]

    @property
    def bound(self) -> float | None:
        return BOUNDS.get((self.case, self.engine))

    @property
    def missed(self) -> bool:
        return self.bound is not None and statistics.median(self.ratios) < self.bound

    def __str__(self) -> str:
        spread = statistics.quantiles(self.ratios, n=10, method="inclusive")
        bound = "none" if self.bound is None else f"{self.bound:.2f}"
        return (
            f"{self.case:5}{self.engine:11}{_calls_a_second(self.bare):>9,.0f}"
            f"{_calls_a_second(self.ours):>11,.0f}{statistics.median(self.ratios):>8.3f}"
            f"{f'{spread[0]:.3f}-{spread[-1]:.3f}':>14}{bound:>7}{'  missed' * self.missed}"
        )


HEADING = (
    f"{'case':5}{'engine':11}{'bare/s':>9}{'statedb/s':>11}{'ratio':>8}{'10-90 %':>14}{'bound':>7}"
)


def _calls_a_second(blocks: Sequence[float]) -> float:
    return CALLS_IN_BLOCK / statistics.median(blocks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 1 where a bound is missed and was to be checked."""
    options = _parser().parse_args(arguments)
    if options.one_core:
        # The servers, started from here, inherit it.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(HEADING, flush=True)
    missed = False
    for engine in dict.fromkeys(options.engine):
        with _database(engine) as url:
            for comparison in _compare(engine, url, options.rounds):
                print(comparison, flush=True)
                missed = missed or comparison.missed
    return 1 if missed and options.check else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare statedb's speed with the bare driver's.")
    parser.add_argument(
        "--engine", nargs="+", choices=ENGINES, default=ENGINES, help="which; all unless given"
    )
    parser.add_argument(
        "--rounds",
        type=_at_least_two,
        default=100,
        help=f"of {CALLS_IN_BLOCK} calls on each side; fewer than 60 say little",
    )
    parser.add_argument(
        "--one-core", action="store_true", help="keep the client and the servers on one core"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 where statedb falls short of a bound"
    )
    return parser


def _at_least_two(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError("there is no spread of fewer than two rounds")
    return number


@contextlib.contextmanager
def _database(engine: str) -> Iterator[str]:
    if engine in SERVERS:
        with SERVERS[engine](durable=True) as server:
            server.create_database("benchmark")
            yield server.url("benchmark")
    else:
        with tempfile.TemporaryDirectory(prefix="statedb-benchmark-") as directory:
            yield f"sqlite:///{directory}/benchmark.sqlite"


def _compare(engine: str, url: str, rounds: int) -> Iterator[Comparison]:
    # One connection, which between statedb's calls is idle and the bare side's.
    with statedb.connect(url, pool_size=1) as db:
        db.upgrade()
        objectid = db.state.thdGetObjectId("benchmark", "Scheduler")
        db.state.thdSetState(objectid, NAME, VALUE)
        bare_get, bare_set = _bare(db, objectid)

        def our_get() -> object:
            return db.state.thdGetState(objectid, NAME)

        def our_set() -> object:
            return db.state.thdSetState(objectid, NAME, VALUE)

        if engine == "sqlite":
            for _ in range(SQLITE_WARM_UP):
                our_set()
        for case, bare, ours in (("get", bare_get, our_get), ("set", bare_set, our_set)):
            yield Comparison(case, engine, *_measure(bare, ours, rounds))
            assert our_get() == bare_get() == VALUE


def _bare(db: Database, objectid: int) -> tuple[Call, Call]:
    """The get and the set as a careful user of the driver would write them."""
    select, update, digest = db.run(
        lambda conn: (
            conn.sql["select_value"],
            conn.sql["update_value"],
            conn.binary(name_hash(encode_name(NAME, "a value's name"))),
        )
    )
    raw = db.run(lambda conn: conn.raw)
    # Ours waits for others' locks; the driver's own does not.
    cursor = sqlite3.Cursor(raw) if isinstance(raw, sqlite3.Connection) else raw.cursor()
    key = {"objectid": objectid, "name_hash": digest}
    # A new one each time, or MySQL would find nothing to change, and write nothing.
    stamps = itertools.count(1)

    def bare_get() -> object:
        cursor.execute(select, key)
        return json.loads(cursor.fetchone()[0])

    def bare_set() -> object:
        cursor.execute(update, {**key, "value": json.dumps(VALUE), "stamp": next(stamps)})
        assert cursor.rowcount == 1
        return VALUE

    return bare_get, bare_set


def _measure(bare: Call, ours: Call, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each block, after one of each that does not count."""
    times: dict[Call, list[float]] = {bare: [], ours: []}
    _block(bare)
    _block(ours)
    for number in range(rounds):
        # Each side is first as often as the other.
        for side in (bare, ours) if number % 2 else (ours, bare):
            times[side].append(_block(side))
    return times[bare], times[ours]


def _block(call: Call) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS_IN_BLOCK):
        call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
