"""Many masters beside few: checking in, expiring the silent, and pages of them.

Each master has an ``expire_after`` of its own; half of them are inactive.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import statedb
from benchmarks.contest import Contest
from benchmarks.measure import Block, in_flight, in_turn, sized, timed
from benchmarks.table import Result, dearer, faster
from statedb import Database, Filter, ResultSpec, place
from statedb.place import Place

if TYPE_CHECKING:
    from benchmarks.peers.buildbot import Buildbot

COLUMNS = (
    *("name_hash", "active", "incarnation", "heartbeats"),
    *("last_active", "expire_after", "due", "name"),
)
CHECK_IN = (
    "UPDATE statedb_masters SET heartbeats = heartbeats + 1, last_active = {now},"
    " due = {now} + expire_after WHERE id = {id} AND incarnation = {incarnation} AND active = 1"
)
# Every second one is active.
SILENCE = "UPDATE statedb_masters SET due = 1 WHERE id <= {last} AND active = 1"
WAKE = (
    "UPDATE statedb_masters SET active = 1, due = last_active + expire_after"
    " WHERE id <= {last} AND due IS NULL AND expiry_stamp IS NOT NULL"
)
PAGES = {
    "page by id": ResultSpec(order=["id"], limit=20),
    "page by -id": ResultSpec(order=["-id"], limit=20),
    "page after id": ResultSpec(filters=[Filter("id", "gt", [50])], limit=20),
    "page by last_active": ResultSpec(order=["last_active"], limit=20),
    "page by -last_active": ResultSpec(order=["-last_active"], limit=20),
}
WINDOW = 64


class Cluster:
    """A database with so many masters in it, and one connection of statedb's."""

    def __init__(self, contest: Contest, count: int) -> None:
        self.count = count
        self._contest = contest
        self._name = f"masters{count}"
        self.db: Database = statedb.connect(contest.databases.url(self._name))
        self.db.upgrade()
        contest.databases.fill(self._name, "statedb_masters", COLUMNS, map(_row, range(count)))
        active = self.db.masters.thdGetMasters(ResultSpec([Filter("active", "eq", [True])]))
        self.places = [Place(one.id, 1) for one in active]
        self._checked_in = 0

    def due(self, calls: int) -> list[Place]:
        """The next so many who check in."""
        first = self._checked_in
        self._checked_in += calls
        return [self.places[n % len(self.places)] for n in range(first, first + calls)]

    def check_in(self, calls: int) -> float:
        """What it takes so many of them, one after the other."""
        due = self.due(calls)
        begun = time.perf_counter()
        done = [self.db.run(place.check_in, each) for each in due]
        taken = time.perf_counter() - begun
        assert all(done)
        return taken

    def check_in_together(self, calls: int) -> float:
        """What it takes so many of them, some in flight at a time."""
        due = [(place.check_in, each) for each in self.due(calls)]
        taken, done = in_flight(self.db.submit, due, WINDOW)
        assert all(done)
        return taken

    def expire(self, some: int) -> float:
        """What it takes to expire some, who are active again at the end."""
        with self._contest.databases.connect(self._name) as raw:
            raw.cursor().execute(SILENCE.format(last=2 * some))
            begun = time.perf_counter()
            expired = self.db.masters.thdExpireMasters()
            taken = time.perf_counter() - begun
            assert len(expired) == some
            raw.cursor().execute(WAKE.format(last=2 * some))
        return taken


def _row(number: int) -> tuple[Any, ...]:
    name = f"host{number}.example.com:/srv/master".encode()
    expire_after = (1000 + number) * 1_000_000
    last_active = time.time_ns() // 1000 - number * 1000
    active = number % 2
    due = last_active + expire_after if active else None
    return sha256(name).digest(), active, 1, 1, last_active, expire_after, due, name


def masters(contest: Contest) -> Iterator[Result]:
    few_count, many_count = contest.pace.masters
    with ExitStack() as stack:
        few, many = Cluster(contest, few_count), Cluster(contest, many_count)
        for cluster in (few, many):
            stack.enter_context(cluster.db)
        yield from _beside_few(contest, few, many)
        buildbot = contest.buildbot if contest.takes_part("buildbot") else None
        if contest.takes_part("bare"):
            yield _beside_the_driver(contest, many)
        for cluster in (few, many):
            if buildbot is not None:
                buildbot.ask("fill_masters", count=cluster.count)
                yield from _beside_buildbot(contest, cluster, buildbot)


def _beside_few(contest: Contest, few: Cluster, many: Cluster) -> Iterator[Result]:
    pace = contest.pace
    of_few = f"of {few.count:,}"

    def compare(case: str, blocks: Sequence[Block]) -> Result:
        return dearer(case, contest.engine, of_few, *in_turn(blocks, pace.turns))

    clusters = (few, many)
    for case, spec in PAGES.items():
        assert len(few.db.masters.thdGetMasters(spec)) == 20
        yield compare(
            f"{case} of {many.count:,}",
            [partial(_page, cluster.db, spec, pace.calls) for cluster in clusters],
        )
    yield compare(
        f"expire nobody of {many.count:,}",
        [partial(_expire_nobody, cluster.db, pace.calls) for cluster in clusters],
    )
    yield compare(
        f"check-in of {many.count:,}",
        [partial(_check_in, cluster, pace.calls) for cluster in clusters],
    )
    some = few.count // 4
    costs = in_turn([partial(cluster.expire, some) for cluster in clusters], pace.rounds)
    yield dearer(f"expire {some} of {many.count:,}", contest.engine, of_few, *costs)


def _page(db: Database, spec: ResultSpec, calls: int) -> float:
    return timed(lambda: db.masters.thdGetMasters(spec), calls) / calls


def _expire_nobody(db: Database, calls: int) -> float:
    assert db.masters.thdExpireMasters() == []
    return timed(db.masters.thdExpireMasters, calls) / calls


def _check_in(cluster: Cluster, calls: int) -> float:
    return cluster.check_in(calls) / calls


def _beside_the_driver(contest: Contest, cluster: Cluster) -> Result:
    """A check-in beside the same statement on the same connection."""
    url = contest.databases.url(f"masters{cluster.count}")
    with statedb.connect(url, pool_size=1) as db:
        now, cursor = db.run(lambda conn: (conn.dialect.now, conn.raw.cursor()))
        form = ":{}" if contest.engine == "sqlite" else "%({})s"
        statement = CHECK_IN.format(now=now, **{k: form.format(k) for k in ("id", "incarnation")})
        calls = contest.pace.calls

        def bare() -> float:
            due = [{"id": one.masterid, "incarnation": 1} for one in cluster.due(calls)]
            begun = time.perf_counter()
            for each in due:
                cursor.execute(statement, each)
                assert cursor.rowcount == 1
            return (time.perf_counter() - begun) / calls

        def ours() -> float:
            due = cluster.due(calls)
            begun = time.perf_counter()
            for each in due:
                assert db.run(place.check_in, each)
            return (time.perf_counter() - begun) / calls

        costs = in_turn([bare, ours], contest.pace.turns)
        cursor.close()
    return faster("check-in, sync", contest.engine, "bare driver", *costs)


def _beside_buildbot(contest: Contest, cluster: Cluster, buildbot: Buildbot) -> Iterator[Result]:
    pace, some = contest.pace, contest.pace.masters[0] // 4

    def their_check_in(calls: int) -> float:
        return float(buildbot.ask("check_in", calls=calls, window=WINDOW)[1])

    def their_expiry(expected: int) -> float:
        seconds, expired = buildbot.ask("expire")
        assert expired == expected
        return float(seconds)

    def their_expiry_of_some() -> float:
        buildbot.ask("silence", count=some)
        return their_expiry(some)

    check_ins = [
        sized(run, pace.seconds, least=pace.least)
        for run in (their_check_in, cluster.check_in_together)
    ]
    of = f"of {cluster.count:,}"
    comparisons: list[tuple[str, list[Block]]] = [
        (f"check-in {of}, 64 in flight", check_ins),
        (f"expire nobody {of}", [partial(their_expiry, 0), partial(_expire_nobody, cluster.db, 1)]),
        (f"expire {some} {of}", [their_expiry_of_some, partial(cluster.expire, some)]),
    ]
    for case, blocks in comparisons:
        yield faster(case, contest.engine, "buildbot", *in_turn(blocks, pace.rounds))
