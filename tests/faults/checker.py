"""Checker: whether one order of the operations on one value explains what each of them returned.

Operations overlap; each happens at a moment between its start and its end. A history is
linearizable if such moments can be found: Herlihy and Wing, "Linearizability: A Correctness
Condition for Concurrent Objects". They are looked for as the operations end, one after the other:
Lowe, "Testing for Linearizability", calls it just-in-time.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple


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
    #: What each of its tries has done whose answer was lost: any number of times, by then, and
    #: before what made it end.
    tries: Step | None = None
    tried_until: float = math.inf


def read(value: Any) -> Way:
    return ((value, UNTOUCHED),)


def write(value: Any, *, found: Any = ANYTHING) -> Way:
    return ((found, value),)


#: How many explanations are looked at; then more, and in the end all.
_BREADTHS = (50, 1_000, 20_000, math.inf)
#: Of an operation that has begun to happen: its number, its way's, and how many of its steps have.
_Begun = tuple[int, int, int]


class _World(NamedTuple):
    """What may be."""

    state: Any
    #: Which of the unfinished operations have begun.
    begun: frozenset[_Begun]
    #: Which of them may have happened just before another that nobody knows what it overwrote.
    hidden: frozenset[int]


def violation(operations: Iterable[Operation], initial: Any = ABSENT) -> Operation | None:
    """The first operation that no order explains; None where one explains them all."""
    numbered = sorted(operations, key=lambda one: one.start)
    # One explanation is enough, and mostly it is among the simplest.
    for breadth in _BREADTHS:
        wrong = _violation(numbered, initial, breadth)
        if wrong is None:
            break
    return wrong


def _violation(numbered: list[Operation], initial: Any, breadth: float) -> Operation | None:
    """The first operation that none of the explanations explains that were looked at."""
    # Of what happens at the same time the start comes first: it is not known to be later.
    moments = [(float(one.start), 0, number) for number, one in enumerate(numbered)]
    moments += [(one.end, 2, number) for number, one in enumerate(numbered)]
    moments += [
        (one.tried_until, 1, number)
        for number, one in enumerate(numbered)
        if one.tries is not None and one.tried_until < one.end
    ]
    worlds = {_World(initial, frozenset(), frozenset())}
    unfinished = _Unfinished(numbered)
    for time, what, number in sorted(moments):
        if time == math.inf:
            break
        if what == 0:
            unfinished.add(number, numbered[number])
            worlds = {unfinished.read_in(world) for world in worlds}
            continue
        if what == 1:
            worlds = _after(worlds, unfinished, None, breadth)
            worlds |= _after_tries(worlds, unfinished, number)
            del unfinished.trying[number]
        else:
            worlds = _after(worlds, unfinished, number, breadth)
            unfinished.remove(number)
        if not worlds:
            return numbered[number]
        worlds = _likelier(worlds, unfinished)
        if len(worlds) > breadth:
            simplest = sorted(worlds, key=lambda world: len(world.begun))
            worlds = set(simplest[: int(breadth)])
    return None


def _needed(operation: Operation) -> set[Any]:
    """The values without which an operation cannot happen, and has to."""
    if operation.end == math.inf or len(operation.ways) > 1:
        return set()
    return {expected for expected, _ in operation.ways[0] if not isinstance(expected, _Sign)}


def _expected(operation: Operation) -> list[Any]:
    steps = [step for way in operation.ways for step in way]
    return [expected for expected, _ in (*steps, *([operation.tries] if operation.tries else []))]


class _Unfinished:
    """The operations under way, by their numbers."""

    def __init__(self, history: list[Operation]) -> None:
        self.operations: dict[int, Operation] = {}
        #: Who needs a value: of those that have begun, and how many others will.
        self._needing: dict[Any, set[int]] = defaultdict(set)
        self._will_need = Counter(value for one in history for value in _needed(one))
        #: Who may write a value.
        self._writers: dict[Any, set[int]] = defaultdict(set)
        for number, one in enumerate(history):
            for _, left in (step for way in (*one.ways, (one.tries,)) for step in way if step):
                self._writers[left].add(number)
        self._over: set[int] = set()
        self.writing: dict[int, Operation] = {}
        self.trying: dict[int, Step] = {}
        #: Those that have to happen, and overwrite whatever there is.
        self.blind: set[int] = set()
        self._reading: dict[int, Any] = {}
        #: What their steps have to find, and how many of them.
        self._expected: Counter[Any] = Counter()

    def add(self, number: int, operation: Operation) -> None:
        self.operations[number] = operation
        self._expected.update(_expected(operation))
        for value in _needed(operation):
            self._needing[value].add(number)
            self._will_need[value] -= 1
        if operation.tries is not None:
            self.trying[number] = operation.tries
        (expected, left), *more = operation.ways[0] if len(operation.ways) == 1 else [(None, None)]
        if left is UNTOUCHED and not more and operation.tries is None:
            self._reading[number] = expected
        else:
            self.writing[number] = operation
            must_happen = operation.end != math.inf
            if must_happen and all(way[0][0] is ANYTHING and not way[1:] for way in operation.ways):
                self.blind.add(number)

    def remove(self, number: int) -> None:
        operation = self.operations.pop(number)
        self._expected.subtract(_expected(operation))
        for value in _needed(operation):
            self._needing[value].discard(number)
        self._over.add(number)
        self.trying.pop(number, None)
        self.writing.pop(number, None)
        self.blind.discard(number)
        self._reading.pop(number, None)

    def read_in(self, world: _World) -> _World:
        """The world once all have read what they can: that hinders nobody, so waiting is no use."""
        now = {(one, 0, 1) for one, expected in self._reading.items() if _is(world.state, expected)}
        return world._replace(begun=world.begun | now) if now else world

    def is_missed(self, value: Any, begun: dict[int, tuple[int, int]]) -> bool:
        """Whether somebody needs a value that nobody will write from now on."""
        if isinstance(value, _Sign) or value not in self._writers:
            return False
        for number in self._writers[value]:
            if number not in self._over and not self.has_happened(number, begun):
                return False
        if self._will_need[value]:
            return True
        for number in self._needing[value]:
            _, steps = begun.get(number, (0, 0))
            if any(expected == value for expected, _ in self.operations[number].ways[0][steps:]):
                return True
        return False

    def has_happened(self, number: int, begun: dict[int, tuple[int, int]]) -> bool:
        way, steps = begun.get(number, (0, -1))
        return number in begun and steps == len(self.operations[number].ways[way])

    def is_wanted(self, left: Any, state: Any) -> bool:
        """Whether one of them has to find what a step leaves, and does not find it as it is."""
        return self._expected[left] > 0 or (state is ABSENT and self._expected[PRESENT] > 0)


def _after(
    worlds: set[_World], unfinished: _Unfinished, number: int | None, breadth: float
) -> set[_World]:
    """The worlds in which an operation has happened; the others only as far as it needs them.

    Without an operation all that may be by now.
    """
    seen = set(worlds)
    to_look_at = deque(worlds)
    done: set[_World] = set()
    while to_look_at and len(done) < breadth and len(seen) < 50 * breadth:
        # The nearest first: where not all are looked at, as little as need be shall have happened.
        world = to_look_at.popleft()
        progress = {one: (way, steps) for one, way, steps in world.begun}
        if number is None:
            done.add(world)
        else:
            if unfinished.has_happened(number, progress):
                others = world.begun - {(number, *progress[number])}
                done.add(_World(world.state, others, world.hidden - {number}))
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
    world: _World,
    unfinished: _Unfinished,
    number: int,
    progress: tuple[int, int] | None,
    must_happen: bool,
) -> Iterable[_World]:
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
        if _is(world.state, expected):
            begun = others | {(number, way, steps + 1)}
            if left is UNTOUCHED:
                yield world._replace(begun=begun)
            else:
                yield _written(world._replace(begun=begun), unfinished, expected, left)


def _after_tries(worlds: set[_World], unfinished: _Unfinished, number: int) -> set[_World]:
    """The worlds in which an operation's last try was a moment ago."""
    expected, left = unfinished.trying[number]
    return {
        _written(world, unfinished, expected, left)
        for world in worlds
        if _is(world.state, expected) and all(one != number for one, _, _ in world.begun)
    }


def _tried(world: _World, unfinished: _Unfinished, begun: set[int]) -> Iterable[_World]:
    """What may be once a try has happened whose answer was lost, if anybody has to find that."""
    for number, (expected, left) in unfinished.trying.items():
        can_be = number not in begun and _is(world.state, expected)
        if can_be and unfinished.is_wanted(left, world.state):
            yield _written(world, unfinished, expected, left)


def _written(world: _World, unfinished: _Unfinished, expected: Any, left: Any) -> _World:
    overwrites = expected is ANYTHING or expected is PRESENT
    hidden = world.hidden | unfinished.blind if overwrites else world.hidden
    return unfinished.read_in(_World(left, world.begun, hidden))


def _is(state: Any, expected: Any) -> bool:
    if expected is ANYTHING:
        return True
    if expected is PRESENT:
        return state is not ABSENT
    return bool(state == expected)


def _likelier(worlds: set[_World], unfinished: _Unfinished) -> set[_World]:
    """Without those worlds that can do no more than another.

    What was lost need not happen, but can; what has read is done, and what may have been hidden
    need not be: so of two that differ only in these, the one in which fewer lost operations have
    begun, more have read and more may be hidden can do whatever the other can.
    """
    if len(worlds) < 2:
        return worlds
    alike: dict[Any, list[tuple[frozenset[_Begun], frozenset[Any], _World]]] = {}
    for world in worlds:
        lost = frozenset(
            one for one in world.begun if unfinished.operations[one[0]].end == math.inf
        )
        has_read = frozenset(one for one in world.begun if one[0] not in unfinished.writing)
        key = (world.state, world.begun - lost - has_read)
        alike.setdefault(key, []).append((lost - has_read, has_read | world.hidden, world))
    kept = set()
    for several in alike.values():
        best: list[tuple[frozenset[_Begun], frozenset[Any]]] = []
        for burden, gain, world in sorted(several, key=lambda one: len(one[0]) - len(one[1])):
            if not any(less <= burden and more >= gain for less, more in best):
                best.append((burden, gain))
                kept.add(world)
    return kept
