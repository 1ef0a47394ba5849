"""What many masters cost: pages of them, and looking for who is overdue, as ratios.

``python tests/masters_benchmark.py`` starts durable servers of its own. All sides of a ratio are
measured in turns: the same page of 10 000 masters and of 100, and an expireMasters that finds
nobody beside the bare look into the index by its driver, on one and the same connection. Each
master has an ``expire_after`` of its own; half of them are inactive.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import servers
from servers import MariaDB, PostgreSQL

import statedb
from statedb import Connection, Database, Filter, ResultSpec
from statedb.names import encode_name, name_hash

CALLS_IN_BLOCK, ROUNDS = 20, 60
FEW, MANY = 100, 10_000
BOUND = 3.0
Call = Callable[[], object]

PAGES = {
    "page by id": ResultSpec(order=["id"], limit=20),
    "page by -id": ResultSpec(order=["-id"], limit=20),
    "next page by id": ResultSpec(filters=[Filter("id", "gt", [50])], limit=20),
    "page by last_active": ResultSpec(order=["last_active"], limit=20),
    "page by -last_active": ResultSpec(order=["-last_active"], limit=20),
}
INSERT = """
INSERT INTO statedb_masters
  (name_hash, active, incarnation, heartbeats, last_active, expire_after, due, name)
VALUES
  (%(name_hash)b, %(active)s, 1, 1, %(last_active)s, %(expire_after)s, %(due)s, %(name)b)
"""
LOOK = "SELECT id FROM statedb_masters WHERE due <= {now} ORDER BY due"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the cost of many masters with few.")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bound is missed")
    options = parser.parse_args()
    print(f"{'case':24}{'engine':12}{'of a second':>12}{'ratio':>8}{'10-90 %':>14}{'bound':>7}")
    missed = False
    for engine, connect in (("sqlite", _file), ("postgresql", _server), ("mariadb", _server)):
        with connect(engine) as (few_url, many_url), contextlib.ExitStack() as stack:
            few, many = (
                stack.enter_context(statedb.connect(url, pool_size=1))
                for url in (few_url, many_url)
            )
            for db, count in ((few, FEW), (many, MANY)):
                db.upgrade()
                _populate(db, count)
            for case, base, subject in _cases(few, many):
                ratios, seconds = _measure(base, subject)
                middle = statistics.median(ratios)
                spread = statistics.quantiles(ratios, n=10, method="inclusive")
                print(
                    f"{case:24}{engine:12}{seconds:12.6f}{middle:8.2f}"
                    f"{f'{spread[0]:.2f}-{spread[-1]:.2f}':>14}{BOUND:7.1f}"
                    f"{'  missed' * (middle > BOUND)}",
                    flush=True,
                )
                missed = missed or middle > BOUND
    return 1 if missed and options.check else 0


@contextlib.contextmanager
def _file(_: str) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory(prefix="statedb-benchmark-") as directory:
        yield f"sqlite:///{directory}/few.sqlite", f"sqlite:///{directory}/many.sqlite"


@contextlib.contextmanager
def _server(engine: str) -> Iterator[tuple[str, str]]:
    kinds: dict[str, type[servers.Server]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}
    with kinds[engine](durable=True) as server:
        for name in ("few", "many"):
            server.create_database(name)
        yield server.url("few"), server.url("many")


def _populate(db: Database, count: int) -> None:
    now = time.time_ns() // 1000

    def row(conn: Connection, number: int) -> dict[str, object]:
        name = encode_name(f"host{number}.example.com:/srv/master", "a master's name")
        expire_after = (1000 + number) * 1_000_000
        last_active = now - number * 1000
        active = number % 2
        return {
            "name_hash": conn.binary(name_hash(name)),
            "name": conn.binary(name),
            "active": active,
            "last_active": last_active,
            "expire_after": expire_after,
            "due": last_active + expire_after if active else None,
        }

    def insert(conn: Connection) -> None:
        with conn.transaction():
            sql = conn.dialect.to_driver(INSERT)
            conn.execute_many(sql, [row(conn, number) for number in range(count)])

    db.run(insert)
    # The servers would do so by themselves, some seconds later.
    what = {"psycopg": "ANALYZE statedb_masters", "pymysql": "ANALYZE TABLE statedb_masters"}
    analyze = what.get(db.run(lambda conn: conn.dialect.driver))
    if analyze:
        db.run(lambda conn: conn.raw.cursor().execute(analyze))


def _cases(few: Database, many: Database) -> Iterator[tuple[str, Call, Call]]:
    for case, spec in PAGES.items():
        assert len(few.masters.thdGetMasters(spec)) == 20
        yield (
            case,
            lambda spec=spec: few.masters.thdGetMasters(spec),  # type: ignore[misc]
            lambda spec=spec: many.masters.thdGetMasters(spec),  # type: ignore[misc]
        )
    look, cursor = many.run(
        lambda conn: (LOOK.format(now=conn.dialect.now), conn.dialect.cursor(conn.raw))
    )

    def bare() -> object:
        cursor.execute(look)
        return cursor.fetchall()

    assert not bare()
    yield "nobody to expire", bare, many.masters.thdExpireMasters


def _measure(base: Call, subject: Call) -> tuple[Sequence[float], float]:
    """The ratio of each round, and the seconds that a call of the subject takes."""
    ratios, seconds = [], []
    for number in range(ROUNDS):
        times = {
            side: _block(side) for side in ((base, subject) if number % 2 else (subject, base))
        }
        ratios.append(times[subject] / times[base])
        seconds.append(times[subject] / CALLS_IN_BLOCK)
    return ratios, statistics.median(seconds)


def _block(call: Call) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS_IN_BLOCK):
        call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
