"""Unfinished: the operations under way at one moment of a history, and what they ask for."""

from __future__ import annotations

import enum
import math
from collections import Counter, defaultdict
from typing import Any, NamedTuple

from faults.operations import ABSENT, ANYTHING, PRESENT, UNTOUCHED, Operation, Sign, Step, fits

#: Of an operation that has begun to happen: its number, its way's, and how many of its steps have.
Begun = tuple[int, int, int]


class Change(enum.IntEnum):
    """What there is at a moment; of what is at the same time the start comes first, which is not
    known to be later."""

    START = 0
    LAST_TRY = 1
    END = 2


#: When something happened, what, and to which operation.
Moment = tuple[float, Change, int]


class World(NamedTuple):
    """What may be."""

    state: Any
    #: Which of the unfinished operations have begun.
    begun: frozenset[Begun]
    #: Which of them may have happened just before another that nobody knows what it overwrote.
    hidden: frozenset[int]


class Unfinished:
    """The operations under way, by their numbers."""

    def __init__(self, history: list[Operation]) -> None:
        self._history = history
        self.operations: dict[int, Operation] = {}
        #: Who needs a value: of those that have begun, and how many others will.
        self._needing: dict[Any, set[int]] = defaultdict(set)
        self._will_need = Counter(value for one in history for value in one.needed)
        #: Who may write a value.
        self._writers: dict[Any, set[int]] = defaultdict(set)
        for number, one in enumerate(history):
            for left in one.left:
                self._writers[left].add(number)
        self._over: set[int] = set()
        self.writing: dict[int, Operation] = {}
        self.trying: dict[int, Step] = {}
        #: Those that have to happen, and overwrite whatever there is.
        self.blind: set[int] = set()
        self._reading: dict[int, Any] = {}
        #: What their steps have to find, and how many of them.
        self._expected: Counter[Any] = Counter()

    def pass_by(self, moment: Moment) -> None:
        """Take note of what a moment brought."""
        _, change, number = moment
        if change is Change.START:
            self._begin(number)
        elif change is Change.LAST_TRY:
            del self.trying[number]
        else:
            self._end(number)

    def _begin(self, number: int) -> None:
        operation = self.operations[number] = self._history[number]
        self._expected.update(operation.expected)
        for value in operation.needed:
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

    def _end(self, number: int) -> None:
        operation = self.operations.pop(number)
        self._expected.subtract(operation.expected)
        for value in operation.needed:
            self._needing[value].discard(number)
        self._over.add(number)
        self.trying.pop(number, None)
        self.writing.pop(number, None)
        self.blind.discard(number)
        self._reading.pop(number, None)

    def read_in(self, world: World) -> World:
        """The world once all have read what they can: that hinders nobody, so waiting is no use."""
        now = {
            (one, 0, 1) for one, expected in self._reading.items() if fits(world.state, expected)
        }
        return world._replace(begun=world.begun | now) if now else world

    def is_missed(self, value: Any, begun: dict[int, tuple[int, int]]) -> bool:
        """Whether somebody needs a value that nobody will write from now on."""
        if isinstance(value, Sign) or value not in self._writers:
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
