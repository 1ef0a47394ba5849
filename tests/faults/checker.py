"""Checker: whether one order of the operations on one value explains what each of them returned.

Operations overlap; each happens at a moment between its start and its end. A history is
linearizable if such moments can be found: Herlihy and Wing, "Linearizability: A Correctness
Condition for Concurrent Objects". They are looked for as the operations end, one after the other:
Lowe, "Testing for Linearizability", calls it just-in-time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final


class _Sign:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: There is no value; also what a deletion leaves.
ABSENT: Final = _Sign("ABSENT")
#: There is some value; there is one or none; and: what was found is left.
PRESENT: Final = _Sign("PRESENT")
ANYTHING: Final = _Sign("ANYTHING")
UNTOUCHED: Final = _Sign("UNTOUCHED")

#: What a moment of an operation must find, and what it leaves.
Step = tuple[Any, Any]
#: The moments of an operation, in their order.
Way = tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Operation:
    """One call on one value, and the ways in which it may have happened."""

    #: In nanoseconds.
    start: int
    #: Infinite where the answer was lost: it may happen at any later time, or never.
    end: float
    ways: tuple[Way, ...]
    #: For whoever reads of it.
    what: str = ""


def read(value: Any) -> Way:
    return ((value, UNTOUCHED),)


def write(value: Any, *, found: Any = ANYTHING) -> Way:
    return ((found, value),)


#: Of an operation that has begun to happen: its number, its way's, and how many of its steps have.
_Begun = tuple[int, int, int]
#: What may be: the value, and which of the unfinished operations have begun.
_World = tuple[Any, frozenset[_Begun]]


def violation(operations: Iterable[Operation], initial: Any = ABSENT) -> Operation | None:
    """The first operation that no order explains; None where one explains them all."""
    numbered = sorted(operations, key=lambda one: one.start)
    # Of what happens at the same time the start comes first: it is not known to be later.
    moments = [(float(one.start), 0, number) for number, one in enumerate(numbered)]
    moments += [(one.end, 1, number) for number, one in enumerate(numbered)]
    worlds: set[_World] = {(initial, frozenset())}
    unfinished = _Unfinished()
    for time, ends, number in sorted(moments):
        if time == math.inf:
            break
        if not ends:
            unfinished.add(number, numbered[number])
            worlds = {unfinished.read_in(world) for world in worlds}
            continue
        worlds = _after(worlds, unfinished, number)
        if not worlds:
            return numbered[number]
        unfinished.remove(number)
        worlds = _likelier(worlds, unfinished)
    return None


class _Unfinished:
    """The operations under way, by their numbers."""

    def __init__(self) -> None:
        self.operations: dict[int, Operation] = {}
        self.writing: dict[int, Operation] = {}
        self._reading: dict[int, Any] = {}

    def add(self, number: int, operation: Operation) -> None:
        self.operations[number] = operation
        (expected, left), *more = operation.ways[0] if len(operation.ways) == 1 else [(None, None)]
        if left is UNTOUCHED and not more:
            self._reading[number] = expected
        else:
            self.writing[number] = operation

    def remove(self, number: int) -> None:
        del self.operations[number]
        self.writing.pop(number, None)
        self._reading.pop(number, None)

    def read_in(self, world: _World) -> _World:
        """The world once all have read what they can: that hinders nobody, so waiting is no use."""
        state, begun = world
        now = {(one, 0, 1) for one, expected in self._reading.items() if _is(state, expected)}
        return (state, begun | now) if now else world


def _after(worlds: set[_World], unfinished: _Unfinished, number: int) -> set[_World]:
    """The worlds in which an operation has happened; the others only as far as it needs them."""
    seen = set(worlds)
    to_look_at = list(worlds)
    length = [len(way) for way in unfinished.operations[number].ways]
    done = set()
    while to_look_at:
        state, begun = to_look_at.pop()
        progress = {one: (way, steps) for one, way, steps in begun}
        way, steps = progress.get(number, (0, -1))
        if steps == length[way]:
            done.add((state, begun - {(number, way, steps)}))
            continue
        for one, operation in unfinished.writing.items():
            for world in _next(state, begun, one, operation, progress.get(one)):
                following = unfinished.read_in(world)
                if following not in seen:
                    seen.add(following)
                    to_look_at.append(following)
    return done


def _next(
    state: Any,
    begun: frozenset[_Begun],
    number: int,
    operation: Operation,
    progress: tuple[int, int] | None,
) -> Iterable[_World]:
    """What may be once the next step of an operation has happened."""
    if progress is None:
        candidates = [(way, 0) for way in range(len(operation.ways)) if operation.ways[way]]
        others = begun
    else:
        candidates = [progress] if progress[1] < len(operation.ways[progress[0]]) else []
        others = begun - {(number, *progress)}
    for way, steps in candidates:
        expected, left = operation.ways[way][steps]
        if _is(state, expected):
            after = state if left is UNTOUCHED else left
            yield after, others | {(number, way, steps + 1)}


def _is(state: Any, expected: Any) -> bool:
    if expected is ANYTHING:
        return True
    if expected is PRESENT:
        return state is not ABSENT
    return bool(state == expected)


def _likelier(worlds: set[_World], unfinished: _Unfinished) -> set[_World]:
    """Without those worlds that can do no more than another.

    What has not begun can still, and what was lost need not: so of two that differ only in which
    lost operations have begun, the one with fewer can do whatever the other can.
    """
    if len(worlds) < 2:
        return worlds
    alike: dict[Any, list[frozenset[_Begun]]] = {}
    for state, begun in worlds:
        lost = frozenset(one for one in begun if unfinished.operations[one[0]].end == math.inf)
        alike.setdefault((state, begun - lost), []).append(lost)
    kept = set()
    for (state, others), sets in alike.items():
        least: list[frozenset[_Begun]] = []
        for lost in sorted(sets, key=len):
            if not any(smaller <= lost for smaller in least):
                least.append(lost)
                kept.add((state, others | lost))
    return kept
