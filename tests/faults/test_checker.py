"""The checker: it finds what cannot have been, and nothing else."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from faults import checker
from faults.checker import _Extent, violation
from faults.operations import (
    ABSENT,
    ANYTHING,
    PRESENT,
    UNTOUCHED,
    Operation,
    Step,
    Way,
    read,
    write,
)
from faults.unfinished import Unfinished


def _one(
    start: int, end: float, *ways: Way, tries: Step | None = None, tried_until: float = math.inf
) -> Operation:
    return Operation(start, end, ways, tries=tries, tried_until=tried_until)


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
    assert violation(history) is not None
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


def test_what_was_tried_again_may_have_happened_each_time() -> None:
    tries = (ANYTHING, 1)
    seen = [_one(3 * turn, 3 * turn + 1, read(1)) for turn in range(1, 4)]
    between = [_one(3 * turn + 1, 3 * turn + 2, write(7)) for turn in range(1, 4)]
    tried = _one(0, 20, write(1), tries=tries)
    assert violation([_one(0, 20, write(1)), *seen, *between]) is not None
    assert violation([tried, *seen, *between]) is None
    # But not once it is over, or has ended without being known: then once at most.
    late = [_one(21, 22, write(2)), _one(23, 24, read(1)), _one(25, 26, write(3))]
    assert violation([tried, *seen, *between, *late]) is not None
    lost = _one(0, math.inf, write(1), tries=tries, tried_until=20)
    assert violation([lost, *seen, *between, *late]) is None
    assert violation([lost, *seen, *between, *late, _one(27, 28, read(1))]) is not None
    # A creation is tried where there is none.
    create = _one(0, 20, read(7), tries=(ABSENT, 1))
    gone = write(ABSENT, found=1)
    history = [create, _one(1, 2, read(1)), _one(3, 4, gone), _one(5, 6, read(1)), _one(7, 8, gone)]
    assert violation([*history, _one(9, 10, write(7))]) is None
    assert violation([*history[:2], _one(3, 4, write(7)), _one(5, 6, read(1))]) is not None


def test_of_several_lost_ones_as_many_may_have_happened_as_are_needed() -> None:
    lost = [_one(0, math.inf, write(number)) for number in range(12)]
    seen = [_one(1 + 2 * turn, 2 + 2 * turn, read(turn)) for turn in range(12)]
    assert violation([*lost, *seen]) is None
    assert violation([*lost, *seen, _one(50, 51, read(0))]) is not None


def _by_trying_all(history: list[Operation]) -> bool:
    """Whether some order explains it, found in the simplest way there is."""
    choices = []
    for one in history:
        ways = [(0, way) for way in one.ways]
        if one.end == math.inf:
            # It may have happened as far as to any of its steps.
            ways = [(0, way[:length]) for _, way in ways for length in range(len(way) + 1)]
        if one.tries is not None:
            # Of these seeds none needs a third try, with which it would take too long.
            ways = [(many, (one.tries,) * many + way) for many in range(3) for _, way in ways]
        choices.append(ways)
    return any(_is_in_some_order(history, chosen) for chosen in itertools.product(*choices))


def _is_in_some_order(history: list[Operation], chosen: tuple[tuple[int, Way], ...]) -> bool:
    numbers = [number for number, (_, way) in enumerate(chosen) for _ in way]
    for order in set(itertools.permutations(numbers)):
        latest = -math.inf
        state: Any = ABSENT
        steps = [iter(way) for _, way in chosen]
        tries = [many for many, _ in chosen]
        for number in order:
            one = history[number]
            latest = max(latest, one.start)
            end = min(one.end, one.tried_until) if tries[number] > 0 else one.end
            tries[number] -= 1
            expected, left = next(steps[number])
            fits = expected is ANYTHING or (
                state is not ABSENT if expected is PRESENT else state == expected
            )
            if latest > end or not fits:
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


@pytest.fixture(params=["as it is", "narrow"])
def extent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So narrow that small histories too have it go back, and look at more."""
    made: list[Unfinished] = []

    def unfinished(history: list[Operation]) -> Unfinished:
        made.append(Unfinished(history))
        return made[-1]

    if request.param == "narrow":
        extents = [_Extent(0, 1), _Extent(1, 1), _Extent(3, 2), _Extent(math.inf, math.inf)]
        monkeypatch.setattr(checker, "_EXTENTS", extents)
        monkeypatch.setattr(checker, "Unfinished", unfinished)
    yield
    if request.param == "narrow":
        # One for each history, of which there are sixty, and one each time that it goes back.
        assert len(made) > 80


@pytest.mark.usefixtures("extent")
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


@pytest.mark.usefixtures("extent")
@pytest.mark.parametrize("seed", range(20))
def test_it_does_so_of_what_was_lost_and_of_what_was_done_again(seed: int) -> None:
    chance = random.Random(seed)
    explained = 0
    for _ in range(60):
        history: list[Operation] = []
        for number in range(3):
            start = chance.randrange(8)
            end = math.inf if chance.random() < 0.3 else start + chance.randrange(1, 8)
            ways = [_some_way(chance, number) for _ in range(chance.choice([1, 1, 1, 2]))]
            if chance.random() < 0.3:
                ways[0] = (*read(chance.choice([ABSENT, 1, 2])), *ways[0])
            # Of more than one operation the simple way would take too long.
            is_tried = chance.random() < 0.3 and all(one.tries is None for one in history)
            tries = (chance.choice([ANYTHING, ABSENT]), number) if is_tried else None
            until = min(end, start + chance.randrange(1, 8))
            history.append(_one(start, end, *ways, tries=tries, tried_until=until))
        expected = _by_trying_all(history)
        assert (violation(history) is None) is expected, history
        explained += expected
    assert 0 < explained < 60
