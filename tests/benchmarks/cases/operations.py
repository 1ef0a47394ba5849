"""The operations on values and objects: one call at a time, and many in flight."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.contest import Contest
from benchmarks.measure import Block, in_turn, sized
from benchmarks.peers.side import Side
from benchmarks.table import Result, faster
from benchmarks.workload import KNOWN_OBJECTS, OPERATIONS, Operation


def get(contest: Contest) -> Iterator[Result]:
    return _all(contest, "get")


def set_existing(contest: Contest) -> Iterator[Result]:
    return _all(contest, "set")


def set_new(contest: Contest) -> Iterator[Result]:
    return _all(contest, "new")


def object_id(contest: Contest) -> Iterator[Result]:
    return _all(contest, "new id", "known id")


def create(contest: Contest) -> Iterator[Result]:
    return _all(contest, "create")


def update(contest: Contest) -> Iterator[Result]:
    return _all(contest, "update")


def bulk(contest: Contest) -> Iterator[Result]:
    for name in ("get 100", "set 100"):
        operation = OPERATIONS[name]
        yield from _beside_the_driver(contest, operation)
        yield from _beside_peers(contest, operation, 1)


def _all(contest: Contest, *names: str) -> Iterator[Result]:
    for name in names:
        operation = OPERATIONS[name]
        yield from _beside_the_driver(contest, operation)
        for window in (1, *contest.pace.windows):
            yield from _beside_peers(contest, operation, window)


def _beside_the_driver(contest: Contest, operation: Operation) -> Iterator[Result]:
    # The driver remembers no ids: it would be compared with a look into a dict.
    if not contest.takes_part("bare") or operation.name == "known id":
        return
    ours, bare = contest.bare
    pace = contest.pace

    def block(side: Side) -> float:
        return side.seconds(operation, pace.calls, 1) / pace.calls

    sides: list[Side] = [bare, ours]
    theirs, own = in_turn([partial(block, side) for side in sides], pace.turns)
    yield faster(f"{operation.name}, sync", contest.engine, bare.name, theirs, own)


def _beside_peers(contest: Contest, operation: Operation, window: int) -> Iterator[Result]:
    how = "sync" if window == 1 else f"{window:,} in flight"
    peers = [peer for peer in contest.peers if peer.offers(operation, window)]
    if operation.name == "known id":
        for side in (contest.ours, *peers):
            side.seconds(operation, KNOWN_OBJECTS, window)
    blocks = [block_of(contest, side, operation, window) for side in (contest.ours, *peers)]
    own, *others = in_turn(blocks, contest.pace.rounds)
    for peer, theirs in zip(peers, others, strict=True):
        yield faster(f"{operation.name}, {how}", contest.engine, peer.name, theirs, own)


def block_of(contest: Contest, side: Side, operation: Operation, window: int) -> Block:
    """A block that takes the time it is to take, most of it with so many calls in flight."""
    run = partial(side.seconds, operation, window=window)
    least = 1 if window == 1 else max(contest.pace.least, window + window // 2)
    return sized(run, contest.pace.seconds, least)
