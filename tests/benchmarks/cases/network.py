"""A millisecond's round trip of network between: its price for each way of calling."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.cases.operations import block_of
from benchmarks.child import Child
from benchmarks.contest import Contest, local_peer
from benchmarks.measure import in_turn, timed
from benchmarks.peers.ours import Ours
from benchmarks.peers.side import Side
from benchmarks.table import Result, faster
from benchmarks.workload import OPERATIONS

ROUND_TRIP = 0.001
AWAY = "1 ms away"


def network(contest: Contest) -> Iterator[Result]:
    server = contest.databases.server
    if server is None:
        return  # SQLite's is never far
    contest.databases.url("far")
    with Child("delay", str(server.port), str(ROUND_TRIP / 2)) as delay, ExitStack() as stack:
        port = delay.receive()["port"]
        far = contest.databases

        def enter(side: Side) -> Side:
            stack.callback(side.close)
            return side

        ours = Ours(far.url("far", port))
        sides = [enter(ours)]
        yield _round_trip(contest, ours)
        if contest.takes_part("buildbot"):
            from benchmarks.peers.buildbot import Buildbot

            contest.databases.url("far_buildbot")
            sides.append(enter(Buildbot(far.url("far_buildbot", port))))
        if contest.takes_part("sqlalchemy"):
            contest.databases.url("far_sqlalchemy")
            sides.append(enter(local_peer("sqlalchemy", far.url("far_sqlalchemy", port))))
        for name in ("get", "set"):
            for window in (1, *contest.pace.windows):
                yield from _compare(contest, sides, name, window)


def _round_trip(contest: Contest, ours: Ours) -> Result:
    """What the driver needs for a statement that does nothing; it is more than the network's."""
    cursor = ours.db.run(lambda conn: conn.raw).cursor()
    trips = [timed(lambda: cursor.execute("SELECT 1"), 1) for _ in range(contest.pace.turns)]
    cursor.close()
    milliseconds = statistics.median(trips) * 1000
    return Result(f"SELECT 1, driver, {AWAY}", contest.engine, "", None, milliseconds, unit="ms")


def _compare(contest: Contest, sides: list[Side], name: str, window: int) -> Iterator[Result]:
    operation = OPERATIONS[name]
    how = "sync" if window == 1 else f"{window:,} in flight"
    case = f"{name}, {how}, {AWAY}"
    able = [side for side in sides if side.offers(operation, window)]
    blocks = [block_of(contest, side, operation, window) for side in able]
    own, *others = in_turn(blocks, contest.pace.rounds)
    yield Result(case, contest.engine, "", None, 1 / statistics.median(own))
    for peer, theirs in zip(able[1:], others, strict=True):
        yield faster(case, contest.engine, peer.name, theirs, own)
