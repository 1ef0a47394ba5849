"""History: what several callers called and were told, as each of them wrote it down."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from faults.checker import violation
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

if TYPE_CHECKING:
    from typing_extensions import Self

#: What a call came to, besides the name of an error: its answer, or nothing that is known.
ANSWERED, UNKNOWN = "answered", "unknown"
#: Names whose values are written together only, the same for each, and read together: as one value.
TOGETHER = ["t0", "t1", "t2"]


class Log:
    """The file of one caller. What was written is there even if the process is ended at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def _write(self, *line: Any) -> None:
        os.write(self._file, (json.dumps(line) + "\n").encode())

    def begin(self, what: str, argument: Any) -> None:
        self._number += 1
        self._write("begin", self._number, time.monotonic_ns(), what, argument)

    def call_back(self, found: Any, made: Any) -> None:
        """Note that an update's callback is about to make something of what it got."""
        self._write("call back", self._number, found, made)

    def end(self, outcome: str, answer: Any = None) -> None:
        self._write("end", self._number, time.monotonic_ns(), outcome, answer)


@dataclass
class Call:
    """One call, as its caller saw it."""

    start: int
    what: str
    argument: Any
    #: When it ended, with whatever outcome.
    end: float = math.inf
    outcome: str = UNKNOWN
    answer: Any = None
    #: What an update's callback got and made, each time that it ran; None for no value.
    made: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def is_answered(self) -> bool:
        return self.outcome == ANSWERED


def calls_of(paths: Iterable[Path]) -> Iterator[Call]:
    for path in paths:
        calls: dict[int, Call] = {}
        # Who is killed may have written half of a line.
        for line in path.read_text("utf-8").split("\n")[:-1]:
            kind, number, *rest = json.loads(line)
            if kind == "begin":
                calls[number] = Call(*rest)
            elif kind == "call back":
                calls[number].made.append((rest[0], rest[1]))
            else:
                call = calls[number]
                call.end, call.outcome, call.answer = rest
        yield from calls.values()


def operations_by_name(calls: Iterable[Call], *, repeats: bool) -> dict[str, list[Operation]]:
    """What the calls did to each value, or may have done.

    ``repeats`` says that answers may have been lost: each try may have happened.
    """
    operations: dict[str, list[Operation]] = defaultdict(list)
    for call in calls:
        # Of a failure only an unknown outcome may have had an effect.
        if call.outcome in (ANSWERED, UNKNOWN):
            what = f"{call.what} {call.argument}: {call.outcome} {call.answer}"
            tried = _TRIES[call.what](call) if repeats and call.what in _TRIES else {}
            for name, ways in _WAYS[call.what](call).items():
                end = call.end if call.is_answered else math.inf
                tries = tried.get(name)
                operations[name].append(Operation(call.start, end, ways, what, tries, call.end))
    return operations


def explained(calls: Iterable[Call], *, repeats: bool = False) -> dict[str, list[Operation]]:
    """What the calls did to each value; AssertionError where no order explains their answers."""
    operations = operations_by_name(calls, repeats=repeats)
    for name, of_one in operations.items():
        wrong = violation(of_one)
        assert wrong is None, f"nothing explains {name}: {wrong}"
    return operations


#: By name, in which ways a call may have happened.
_Ways = dict[str, tuple[Way, ...]]


def _ways_of_get(call: Call) -> _Ways:
    return {call.argument: (read(_stored(call.answer)),)} if call.is_answered else {}


def _ways_of_gets(call: Call) -> _Ways:
    if not call.is_answered:
        return {}
    return {name: (read(_stored(call.answer.get(name))),) for name in call.argument}


def _ways_of_get_together(call: Call) -> _Ways:
    if not call.is_answered:
        return {}
    values = {call.answer.get(name) for name in TOGETHER}
    # Half of what was written together is a value that nobody has written.
    return {"together": (read(_stored(values.pop()) if len(values) == 1 else "torn"),)}


def _ways_of_set(call: Call) -> _Ways:
    name, value = call.argument
    if not call.is_answered or call.answer == value:
        return {name: (write(value),)}
    # There was none, and a rival was first to create it: the rival's stands.
    return {name: (((ABSENT, UNTOUCHED), *read(call.answer)),)}


def _ways_of_sets(call: Call) -> _Ways:
    return {name: (write(value),) for name, value in call.argument.items()}


def _ways_of_set_together(call: Call) -> _Ways:
    return {"together": (write(call.argument),)}


def _ways_of_create(call: Call) -> _Ways:
    name, value = call.argument
    if not call.is_answered or call.answer == value:
        return {name: (write(value, found=ABSENT),)}
    return {name: (read(call.answer),)}


def _ways_of_update(call: Call) -> _Ways:
    ways = tuple(
        write(made, found=_stored(found))
        for found, made in call.made
        if not call.is_answered or made == call.answer
    )
    # One that was not called back has written nothing, unless it says that it has.
    return {call.argument: ways} if ways or call.is_answered else {}


def _ways_of_delete(call: Call) -> _Ways:
    deleted = not call.is_answered or call.answer
    return {call.argument: (write(ABSENT, found=PRESENT) if deleted else read(ABSENT),)}


_WAYS: dict[str, Callable[[Call], _Ways]] = {
    "get": _ways_of_get,
    "gets": _ways_of_gets,
    "get together": _ways_of_get_together,
    "set": _ways_of_set,
    "sets": _ways_of_sets,
    "set together": _ways_of_set_together,
    "create": _ways_of_create,
    "update": _ways_of_update,
    "delete": _ways_of_delete,
}


#: By name, what a try did whose answer was lost, of those calls that are simply made again.
_TRIES: dict[str, Callable[[Call], dict[str, Step]]] = {
    "set": lambda call: {call.argument[0]: (ANYTHING, call.argument[1])},
    "sets": lambda call: {name: (ANYTHING, value) for name, value in call.argument.items()},
    "set together": lambda call: {"together": (ANYTHING, call.argument)},
    "create": lambda call: {call.argument[0]: (ABSENT, call.argument[1])},
}


def _stored(value: Any) -> Any:
    return ABSENT if value is None else value


def met(operations: Iterable[Operation]) -> int:
    """How many operations overlapped an earlier one on the same value."""
    count = 0
    latest = -math.inf
    for one in sorted(operations, key=lambda one: one.start):
        count += one.start < latest
        latest = max(latest, one.end if one.end != math.inf else latest)
    return count


def outcomes(calls: Iterable[Call]) -> Counter[str]:
    return Counter(call.outcome for call in calls)
