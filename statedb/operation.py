"""What the executor must know of an operation to run it well: an operation is otherwise a plain
function whose first parameter is a connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Traits:
    """How an operation may be run."""

    #: Doing it again after its answer was lost does no harm: the second time finds what the first
    #: did, or it tells by ``conn.memo`` what was its own.
    repeatable: bool = False
    #: It writes nothing.
    reads: bool = False
    #: From the operation's arguments, what it touches: a group, and the keys in it, None for all.
    #: Operations that touch the same happen in the order in which they were submitted.
    touches: Callable[..., tuple[Any, tuple[Any, ...] | None]] | None = None


_UNKNOWN = Traits()


def operation(
    *,
    repeatable: bool = False,
    reads: bool = False,
    touches: Callable[..., tuple[Any, tuple[Any, ...] | None]] | None = None,
) -> Callable[[F], F]:
    """Say of a function of a connection how it may be run."""

    def mark(function: F) -> F:
        function.__statedb__ = Traits(repeatable or reads, reads, touches)  # type: ignore[attr-defined]
        return function

    return mark


def traits(function: Callable[..., Any]) -> Traits:
    """What is known of a function; of a user's own, nothing."""
    found: Traits = getattr(function, "__statedb__", _UNKNOWN)
    return found
