"""The checker: it finds what cannot have been, and nothing else."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest

from faults.checker import (
    ABSENT,
    ANYTHING,
    PRESENT,
    UNTOUCHED,
    Operation,
    Way,
    read,
    violation,
    write,
)


def _one(start: int, end: float, *ways: Way) -> Operation:
    return Operation(start, end, ways)


def test_what_comes_one_after_the_other_is_explained_by_that_order() -> None:
    history = [
        _one(0, 1, read(ABSENT)),
        _one(2, 3, write(1)),
        _one(4, 5, read(1)),
        _one(6, 7, write(2, found=1)),
        _one(8, 9, write(ABSENT, found=PRESENT)),
        _one(10, 11, read(ABSENT)),
    ]
    assert violation(history) is None


def test_what_overlaps_may_have_happened_in_any_order() -> None:
    for seen in (ABSENT, 1, 2):
        history = [_one(0, 10, write(1)), _one(0, 10, write(2)), _one(1, 9, read(seen))]
        assert violation(history) is None


@pytest.mark.parametrize(
    ("what", "history"),
    [
        ("stale", [_one(0, 1, write(1)), _one(2, 3, write(2)), _one(4, 5, read(1))]),
        ("stale", [_one(0, 1, write(1)), _one(2, 3, read(ABSENT))]),
        (
            "stale, though the write is not over",
            [_one(0, 99, write(1)), _one(1, 2, read(1)), _one(3, 4, read(ABSENT))],
        ),
        ("out of nowhere", [_one(0, 1, write(1)), _one(2, 3, read(7))]),
        ("out of the future", [_one(0, 1, read(1)), _one(2, 3, write(1))]),
        (
            "a lost update",
            [
                _one(0, 1, write(1)),
                _one(2, 9, write(2, found=1)),
                _one(3, 8, write(3, found=1)),
            ],
        ),
        ("created twice", [_one(0, 5, write(1, found=ABSENT)), _one(0, 5, write(2, found=ABSENT))]),
        ("deleted twice", [_one(0, 1, write(1)), *[_one(2, 5, write(ABSENT, found=PRESENT))] * 2]),
        (
            "seen in two orders",
            [
                *[_one(0, 9, write(1)), _one(0, 9, write(2))],
                *[_one(1, 2, read(1)), _one(3, 4, read(2)), _one(5, 6, read(1))],
            ],
        ),
        (
            "a rival's that cannot have been first",
            [
                _one(0, 1, write(1)),
                _one(2, 5, ((ABSENT, UNTOUCHED), (1, UNTOUCHED))),
            ],
        ),
    ],
)
def test_what_cannot_have_been_is_found(what: str, history: list[Operation]) -> None:
    assert violation(history) is history[-1] or violation(history) is not None
    # Nor is it explained by what happened to another value in between.
    assert violation([*history, _one(100, 101, write(1)), _one(102, 103, read(1))]) is not None


def test_what_was_lost_may_happen_later_or_never() -> None:
    lost = _one(0, math.inf, write(1))
    assert violation([lost, _one(1, 2, read(ABSENT)), _one(3, 4, read(1))]) is None
    assert violation([lost, _one(1, 2, read(ABSENT)), _one(3, 4, read(ABSENT))]) is None
    # But not before it was called, nor twice.
    assert violation([_one(5, math.inf, write(1)), _one(1, 2, read(1))]) is not None
    again = [_one(1, 2, read(1)), _one(3, 4, write(2)), _one(5, 6, read(1))]
    assert violation([lost, *again]) is not None
    # Unless it was done again.
    assert violation([_one(0, math.inf, write(1) + write(1)), *again]) is None
    assert violation([_one(0, 9, write(1), write(1) + write(1)), *again]) is None


def test_of_several_lost_ones_as_many_may_have_happened_as_are_needed() -> None:
    lost = [_one(0, math.inf, write(number)) for number in range(12)]
    seen = [_one(1 + 2 * turn, 2 + 2 * turn, read(turn)) for turn in range(12)]
    assert violation([*lost, *seen]) is None
    assert violation([*lost, *seen, _one(50, 51, read(0))]) is not None


def _by_trying_all(history: list[Operation]) -> bool:
    """Whether some order explains it, found in the simplest way there is."""
    choices = []
    for one in history:
        ways = list(one.ways)
        if one.end == math.inf:
            # It may have happened as far as to any of its steps.
            ways = [way[:length] for way in ways for length in range(len(way) + 1)]
        choices.append(ways)
    return any(_is_in_some_order(history, ways) for ways in itertools.product(*choices))


def _is_in_some_order(history: list[Operation], ways: tuple[Way, ...]) -> bool:
    numbers = [number for number, way in enumerate(ways) for _ in way]
    for order in set(itertools.permutations(numbers)):
        latest = -math.inf
        state: Any = ABSENT
        steps = [iter(way) for way in ways]
        for number in order:
            latest = max(latest, history[number].start)
            expected, left = next(steps[number])
            fits = expected is ANYTHING or (
                state is not ABSENT if expected is PRESENT else state == expected
            )
            if latest > history[number].end or not fits:
                break
            state = state if left is UNTOUCHED else left
        else:
            return True
    return False


def _some_way(chance: random.Random, number: int) -> Way:
    return chance.choice(
        [
            write(number),
            read(chance.randrange(5)),
            read(ABSENT),
            write(number, found=chance.randrange(5)),
            write(number, found=ABSENT),
            write(ABSENT, found=PRESENT),
        ]
    )


@pytest.mark.parametrize("seed", range(20))
def test_it_agrees_with_trying_every_order(seed: int) -> None:
    chance = random.Random(seed)
    explained = 0
    for _ in range(60):
        history = []
        for number in range(5):
            start = chance.randrange(12)
            end = start + chance.randrange(1, 8)
            history.append(_one(start, end, _some_way(chance, number)))
        expected = _by_trying_all(history)
        assert (violation(history) is None) is expected
        explained += expected
    assert 0 < explained < 60


@pytest.mark.parametrize("seed", range(20))
def test_it_does_so_of_what_was_lost_and_of_what_was_done_again(seed: int) -> None:
    chance = random.Random(seed)
    explained = 0
    for _ in range(60):
        history = []
        for number in range(4):
            start = chance.randrange(8)
            end = math.inf if chance.random() < 0.3 else start + chance.randrange(1, 8)
            once = _some_way(chance, number)
            again = chance.choice([(once,), (once, write(number) + once), (once, once + once)])
            history.append(_one(start, end, *again))
        expected = _by_trying_all(history)
        assert (violation(history) is None) is expected, history
        explained += expected
    assert 0 < explained < 60
