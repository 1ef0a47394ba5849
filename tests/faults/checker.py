"""Checker: whether one order of the operations on one value explains what each of them returned.

Operations overlap; each happens at a moment between its start and its end. A history is
linearizable if such moments can be found: Herlihy and Wing, "Linearizability: A Correctness
Condition for Concurrent Objects". They are looked for as the operations end, one after the other:
Lowe, "Testing for Linearizability", calls it just-in-time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from faults.operations import ABSENT, ANYTHING, PRESENT, UNTOUCHED, Operation, fits
from faults.unfinished import Begun, Change, Moment, Unfinished, World


class _Extent(NamedTuple):
    #: How many moments it goes back from the one that nothing explains.
    back: float
    #: How many explanations are looked at until that moment is past.
    breadth: float


# One explanation is enough, and mostly it is among the simplest. Where it is not, what was passed
# over was so a few moments before; in the end it is all of them from the beginning.
_EXTENTS = (
    *(_Extent(0, 5), _Extent(10, 50), _Extent(20, 300), _Extent(40, 1_000)),
    *(_Extent(100, 3_000), _Extent(300, 10_000), _Extent(1_000, 20_000)),
    _Extent(math.inf, math.inf),
)


def violation(operations: Iterable[Operation], initial: Any = ABSENT) -> Operation | None:
    """The first operation that no order explains; None where one explains them all."""
    history = sorted(operations, key=lambda one: one.start)
    moments = _moments(history)
    unfinished = Unfinished(history)
    worlds = {World(initial, frozenset(), frozenset())}
    before: dict[int, set[World]] = {}
    place, stuck, extent = 0, -1, 0
    while place < len(moments):
        if extent < len(_EXTENTS) - 1:  # all of them would be too many to keep
            before[place] = worlds
        worlds = _pass(moments[place], worlds, unfinished, _EXTENTS[extent].breadth)
        if worlds:
            if place > stuck:
                extent = 0
            place += 1
            continue
        if extent == len(_EXTENTS) - 1:
            return history[moments[place][2]]
        extent = extent + 1 if place <= stuck else 1
        stuck = max(stuck, place)
        place = max(one for one in before if one <= max(0, stuck - _EXTENTS[extent].back))
        worlds = before[place]
        unfinished = Unfinished(history)
        for moment in moments[:place]:
            unfinished.pass_by(moment)
    return None


def _moments(history: list[Operation]) -> list[Moment]:
    """All that happens in a history, in its order."""
    moments = [(float(one.start), Change.START, number) for number, one in enumerate(history)]
    moments += [(one.end, Change.END, number) for number, one in enumerate(history)]
    moments += [
        (one.tried_until, Change.LAST_TRY, number)
        for number, one in enumerate(history)
        if one.tries is not None and one.tried_until < one.end
    ]
    return sorted(moment for moment in moments if moment[0] < math.inf)


def _pass(moment: Moment, worlds: set[World], unfinished: Unfinished, breadth: float) -> set[World]:
    """Of the worlds before a moment those after it, the simplest of them; none if it is wrong."""
    _, change, number = moment
    if change is Change.START:
        unfinished.pass_by(moment)
        return {unfinished.read_in(world) for world in worlds}
    if change is Change.END:
        worlds = _after(worlds, unfinished, number, breadth)
    else:
        worlds = _after(worlds, unfinished, None, breadth)
        worlds |= _after_tries(worlds, unfinished, number)
    unfinished.pass_by(moment)
    worlds = _likelier(worlds, unfinished)
    if len(worlds) > breadth:
        worlds = set(sorted(worlds, key=lambda world: len(world.begun))[: int(breadth)])
    return worlds


def _after(
    worlds: set[World], unfinished: Unfinished, number: int | None, breadth: float
) -> set[World]:
    """The worlds in which an operation has happened; the others only as far as it needs them.

    Without an operation all that may be by now.
    """
    seen = set(worlds)
    to_look_at = deque(worlds)
    done: set[World] = set()
    while to_look_at and len(done) < breadth and len(seen) < 50 * breadth:
        # The nearest first: where not all are looked at, as little as need be shall have happened.
        world = to_look_at.popleft()
        progress = {one: (way, steps) for one, way, steps in world.begun}
        if number is None:
            done.add(world)
        else:
            if unfinished.has_happened(number, progress):
                others = world.begun - {(number, *progress[number])}
                done.add(World(world.state, others, world.hidden - {number}))
                continue
            if number in world.hidden:
                ((_, left),) = unfinished.operations[number].ways[0]
                if not unfinished.is_missed(left, {**progress, number: (0, 1)}):
                    done.add(world._replace(hidden=world.hidden - {number}))
        following = [
            another
            for one in unfinished.writing
            for another in _next(world, unfinished, one, progress.get(one), one == number)
        ]
        following += _tried(world, unfinished, set(progress))
        for another in following:
            if another not in seen:
                seen.add(another)
                begun = {one: (way, steps) for one, way, steps in another.begun}
                if another.state == world.state or not unfinished.is_missed(world.state, begun):
                    to_look_at.append(another)
    return done


def _next(
    world: World,
    unfinished: Unfinished,
    number: int,
    progress: tuple[int, int] | None,
    must_happen: bool,
) -> Iterable[World]:
    """What may be once the next step of an operation has happened.

    What overwrites whatever there is, and what was lost, hinders nobody while it waits: it does so
    until somebody has to find what it leaves.
    """
    operation = unfinished.operations[number]
    if progress is None:
        candidates = [(way, 0) for way in range(len(operation.ways)) if operation.ways[way]]
        others = world.begun
    else:
        candidates = [progress] if progress[1] < len(operation.ways[progress[0]]) else []
        others = world.begun - {(number, *progress)}
    for way, steps in candidates:
        expected, left = operation.ways[way][steps]
        can_wait = number in unfinished.blind or operation.end == math.inf
        must_now = left is UNTOUCHED or must_happen or not can_wait
        if not must_now and not unfinished.is_wanted(left, world.state):
            continue
        if fits(world.state, expected):
            begun = others | {(number, way, steps + 1)}
            if left is UNTOUCHED:
                yield world._replace(begun=begun)
            else:
                yield _written(world._replace(begun=begun), unfinished, expected, left)


def _after_tries(worlds: set[World], unfinished: Unfinished, number: int) -> set[World]:
    """The worlds in which an operation's last try was a moment ago."""
    expected, left = unfinished.trying[number]
    return {
        _written(world, unfinished, expected, left)
        for world in worlds
        if fits(world.state, expected) and all(one != number for one, _, _ in world.begun)
    }


def _tried(world: World, unfinished: Unfinished, begun: set[int]) -> Iterable[World]:
    """What may be once a try has happened whose answer was lost, if anybody has to find that."""
    for number, (expected, left) in unfinished.trying.items():
        can_be = number not in begun and fits(world.state, expected)
        if can_be and unfinished.is_wanted(left, world.state):
            yield _written(world, unfinished, expected, left)


def _written(world: World, unfinished: Unfinished, expected: Any, left: Any) -> World:
    overwrites = expected is ANYTHING or expected is PRESENT
    hidden = world.hidden | unfinished.blind if overwrites else world.hidden
    return unfinished.read_in(World(left, world.begun, hidden))


def _likelier(worlds: set[World], unfinished: Unfinished) -> set[World]:
    """Without those worlds that can do no more than another.

    What was lost need not happen, but can; what has read is done, and what may have been hidden
    need not be: so of two that differ only in these, the one in which fewer lost operations have
    begun, more have read and more may be hidden can do whatever the other can.
    """
    if len(worlds) < 2:
        return worlds
    alike: dict[Any, list[tuple[frozenset[Begun], frozenset[Any], World]]] = {}
    for world in worlds:
        lost = frozenset(
            one for one in world.begun if unfinished.operations[one[0]].end == math.inf
        )
        has_read = frozenset(one for one in world.begun if one[0] not in unfinished.writing)
        key = (world.state, world.begun - lost - has_read)
        alike.setdefault(key, []).append((lost - has_read, has_read | world.hidden, world))
    kept = set()
    for several in alike.values():
        best: list[tuple[frozenset[Begun], frozenset[Any]]] = []
        for burden, gain, world in sorted(several, key=lambda one: len(one[0]) - len(one[1])):
            if not any(less <= burden and more >= gain for less, more in best):
                best.append((burden, gain))
                kept.add(world)
    return kept
