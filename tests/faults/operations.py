"""Operations: the calls on one value, each with the ways in which it may have happened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final


class Sign:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: There is no value; also what a deletion leaves.
ABSENT: Final = Sign("ABSENT")
#: There is some value; there is one or none; and: what was found is left.
PRESENT: Final = Sign("PRESENT")
ANYTHING: Final = Sign("ANYTHING")
UNTOUCHED: Final = Sign("UNTOUCHED")

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

    @property
    def expected(self) -> list[Any]:
        """What its moments have to find, its tries' included."""
        steps = [step for way in (*self.ways, (self.tries,)) for step in way if step]
        return [expected for expected, _ in steps]

    @property
    def left(self) -> set[Any]:
        """What it may leave."""
        return {left for way in (*self.ways, (self.tries,)) for _, left in filter(None, way)}

    @property
    def needed(self) -> set[Any]:
        """The values without which it cannot happen, if it has to."""
        if self.end == math.inf or len(self.ways) > 1:
            return set()
        return {expected for expected, _ in self.ways[0] if not isinstance(expected, Sign)}


def read(value: Any) -> Way:
    return ((value, UNTOUCHED),)


def write(value: Any, *, found: Any = ANYTHING) -> Way:
    return ((found, value),)


def fits(state: Any, expected: Any) -> bool:
    """Whether a value is what a step has to find."""
    if expected is ANYTHING:
        return True
    if expected is PRESENT:
        return state is not ABSENT
    return bool(state == expected)
