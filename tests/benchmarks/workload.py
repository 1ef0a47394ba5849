"""What is called: each operation's calls, by their number, and what must come of them.

Every side makes the same calls: statedb, the bare driver, and the peers, of which Buildbot's runs
in an environment without statedb. So nothing is imported here but the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

#: How many keys a wide key set has. It is more than are ever in flight, so that no two calls in
#: flight touch one key.
WIDE = 2000
BULK = 100
KNOWN_OBJECTS = 500
OBJECT, CLASS = "benchmark", "Scheduler"

Value = Any


def value(number: int) -> Value:
    """A value as programs store them; each number's is another, or a server might write nothing."""
    return {"branch": "main", "revision": number}


@dataclass(frozen=True)
class Operation:
    """Calls of one kind: `method` is the name that every side has for it."""

    name: str
    method: str
    #: What the call of this number is given.
    arguments: Callable[[int], tuple[Any, ...]]
    #: Whether these results can be those of the calls of these numbers.
    right: Callable[[Sequence[int], Sequence[Any]], bool] = lambda numbers, results: True
    #: The key and the value that are stored after the call of this number.
    leaves: Callable[[int], tuple[str, Value]] | None = None


def _keys(first: int) -> list[str]:
    return [f"get{(first + n) % WIDE}" for n in range(BULK)]


def _written(number: int) -> dict[str, Value]:
    return {f"set{(number * BULK + n) % WIDE}": value(number) for n in range(BULK)}


def _all_found(numbers: Sequence[int], results: Sequence[Any]) -> bool:
    return list(results) == [value(n % WIDE) for n in numbers]


def _all_created(numbers: Sequence[int], results: Sequence[Any]) -> bool:
    return list(results) == [value(n) for n in numbers]


def _all_bulks_found(numbers: Sequence[int], results: Sequence[Any]) -> bool:
    return all(
        result == {key: value(int(key[3:])) for key in _keys(n * BULK)}
        for n, result in zip(numbers, results, strict=True)
    )


_OPERATIONS = (
    Operation("get", "get", lambda n: (f"get{n % WIDE}",), _all_found),
    Operation(
        "set",
        "put",
        lambda n: (f"set{n % WIDE}", value(n)),
        leaves=lambda n: (f"set{n % WIDE}", value(n)),
    ),
    Operation(
        "new",
        "put_new",
        lambda n: (f"new{n}", value(n)),
        leaves=lambda n: (f"new{n}", value(n)),
    ),
    Operation(
        "new id",
        "object_id",
        lambda n: (f"new object{n}",),
        lambda numbers, results: len(set(results)) == len(numbers),
    ),
    Operation(
        "known id",
        "object_id",
        lambda n: (f"object{n % KNOWN_OBJECTS}",),
        lambda numbers, results: len(set(results)) == min(len(numbers), KNOWN_OBJECTS),
    ),
    Operation(
        "create",
        "create",
        lambda n: (f"created{n}", value(n)),
        _all_created,
        lambda n: (f"created{n}", value(n)),
    ),
    Operation(
        "update",
        "update",
        lambda n: (f"counter{n % WIDE}",),
        leaves=lambda n: (f"counter{n % WIDE}", n // WIDE + 1),
    ),
    Operation("get 100", "get_many", lambda n: (_keys(n * BULK),), _all_bulks_found),
    Operation(
        "set 100",
        "put_many",
        lambda n: (_written(n),),
        leaves=lambda n: (f"set{(n * BULK + BULK - 1) % WIDE}", value(n)),
    ),
)
OPERATIONS = {operation.name: operation for operation in _OPERATIONS}


def stored_before() -> dict[str, Value]:
    """What every side has stored before anything is measured."""
    return {
        **{f"get{n}": value(n) for n in range(WIDE)},
        **{f"set{n}": value(-1) for n in range(WIDE)},
        **{f"counter{n}": 0 for n in range(WIDE)},
    }


def one_more(count: Value) -> Value:
    """What an update makes of a counter."""
    return count + 1
