"""Planted errors: a history with a wrong answer, and a library with a defect, are found out."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from interposed import altered

import statedb
from faults.callers import Order, obey
from faults.checker import violation
from faults.history import Call, calls_of, operations_by_name
from statedb.dialects import Dialect

pytestmark = pytest.mark.once

CALLS = 300


def _history(url: str, directory: Path, seed: int = 1) -> list[Call]:
    logs = directory / f"{seed}"
    logs.mkdir()
    with statedb.connect(url) as db:
        objectid = db.state.thdGetObjectId("planted", f"{seed}")
        assert obey(db, Order(seed, objectid, logs, CALLS), "process") == []
    return list(calls_of(sorted(logs.iterdir())))


def _wrong(calls: list[Call]) -> set[str]:
    """The names of the values whose history nothing explains."""
    by_name = operations_by_name(calls, repeats=False)
    return {name for name, operations in by_name.items() if violation(operations) is not None}


# --- In a history ---


def _plant_stale_read(calls: list[Call], chance: random.Random) -> str:
    """Have a get answer what was overwritten before it began."""
    first, get = chance.choice(
        [
            (first, get)
            for first, second in itertools.pairwise(_sets_in_turn(calls))
            if first.argument[0] == second.argument[0]
            for get in calls
            if get.what == "get" and get.argument == first.argument[0] and second.end < get.start
        ]
    )
    get.answer = first.argument[1]
    return str(get.argument)


def _sets_in_turn(calls: list[Call]) -> Iterator[Call]:
    """Sets that stood, by name, none of which overlapped the one before."""
    for _, group in itertools.groupby(
        sorted(
            (call for call in calls if call.what == "set" and call.answer == call.argument[1]),
            key=lambda call: (call.argument[0], call.start),
        ),
        key=lambda call: call.argument[0],
    ):
        end = 0.0
        for call in group:
            if call.start > end:
                end = call.end
                yield call


def _plant_lost_update(calls: list[Call], chance: random.Random) -> str:
    """Have an update begin from what an earlier one had found."""
    updates = [call for call in calls if call.what == "update"]
    earlier, later = chance.choice(
        [
            (earlier, later)
            for earlier, later in itertools.permutations(updates, 2)
            if earlier.argument == later.argument
            and earlier.end < later.start
            # It would have to be right twice: a value is made once, but there may be none again.
            and earlier.made[-1][0] is not None
        ]
    )
    later.made[-1] = (earlier.made[-1][0], later.made[-1][1])
    return str(later.argument)


def _plant_value_out_of_nowhere(calls: list[Call], chance: random.Random) -> str:
    get = chance.choice([call for call in calls if call.what == "get"])
    get.answer = "nowhere"
    return str(get.argument)


def _plant_half(calls: list[Call], chance: random.Random) -> str:
    """Have one of the values that are written together be missing."""
    get = chance.choice([call for call in calls if call.what == "get together" and call.answer])
    get.answer.popitem()
    return "together"


PLANTS = [_plant_stale_read, _plant_lost_update, _plant_value_out_of_nowhere, _plant_half]


def test_a_wrong_answer_in_a_history_is_found(url: str, tmp_path: Path) -> None:
    calls = _history(url, tmp_path)
    assert _wrong(calls) == set()
    for plant in PLANTS:
        for seed in range(5):
            with_error = copy.deepcopy(calls)
            name = plant(with_error, random.Random(seed))
            assert _wrong(with_error) == {name}


# --- In the library ---


def _without_compare(dialect: Dialect) -> Dialect:
    """Have updates overwrite whatever was written since they read."""
    condition = "\n  AND stamp = %(expected_stamp)s"
    return dataclasses.replace(
        dialect, to_driver=lambda text: dialect.to_driver(text.replace(condition, ""))
    )


class _Forgetful:
    """A driver's cursor that now and then answers what it was asked before as it did then."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._chance = random.Random(1)
        self._answers: dict[str, Any] = {}
        self._asked = ""

    def execute(self, *statement: Any) -> Any:
        self._asked = str(statement)
        return self._cursor.execute(*statement)

    def fetchall(self) -> Any:
        rows = self._cursor.fetchall()
        if self._chance.random() < 0.9:
            self._answers[self._asked] = rows
        return self._answers.get(self._asked, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def _with_stale_answers(dialect: Dialect) -> Dialect:
    return dataclasses.replace(
        dialect,
        cursor=lambda raw: _Forgetful(dialect.cursor(raw)),
        query=lambda cursor: cursor.execute,
    )


@pytest.mark.parametrize("defect", [_without_compare, _with_stale_answers])
def test_a_defect_of_the_library_is_found(
    url: str, tmp_path: Path, defect: Callable[[Dialect], Dialect]
) -> None:
    with altered(defect):
        # Not every time do two callers meet in such a way that it shows.
        assert any(_wrong(_history(url, tmp_path, seed)) for seed in range(20))
