"""What the executor must know of an operation to run it well: an operation is otherwise a plain
function whose first parameter is a connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Arguments(Protocol):
    """What one call is to be made of, besides a connection."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    #: What ``conn.memo`` is to hold where the call is made by itself after all.
    memo: dict[Any, Any] | None


class _Alone:
    """The type of ALONE, an outcome that says: this call has to be made by itself."""


ALONE: Final = _Alone()

#: Makes several calls at once: a function of a connection and of what each was given. It returns
#: what each gives, in their order: a value, an Exception to raise, or ALONE.
Batch = Callable[[Any, Sequence[Arguments]], list[Any]]


class Traits(NamedTuple):
    """How an operation may be run."""

    #: Doing it again after its answer was lost does no harm: the second time finds what the first
    #: did, or it tells by ``conn.memo`` what was its own.
    repeatable: bool = False
    #: It writes nothing.
    reads: bool = False
    #: It writes; of a user's own function neither is known.
    writes: bool = False
    #: From the operation's arguments, what it touches: a group, and the keys in it, None for all.
    #: Operations that touch the same happen in the order in which they were submitted.
    touches: Callable[..., tuple[Any, tuple[Any, ...] | None]] | None = None
    #: Does what several of its calls ask for; of them no two touch the same, unless they only read.
    batch: Batch | None = None
    #: It runs no code of a caller's, so it may be a savepoint in a transaction with others.
    shares_commit: bool = False


_UNKNOWN = Traits()


def operation(
    *,
    repeatable: bool = False,
    reads: bool = False,
    touches: Callable[..., tuple[Any, tuple[Any, ...] | None]] | None = None,
    batch: Batch | None = None,
    shares_commit: bool = False,
) -> Callable[[F], F]:
    """Say of a function of a connection how it may be run."""
    known = Traits(repeatable or reads, reads, not reads, touches, batch, shares_commit)

    def mark(function: F) -> F:
        function.__statedb__ = known  # type: ignore[attr-defined]
        return function

    return mark


def traits(function: Callable[..., Any]) -> Traits:
    """What is known of a function; of a user's own, nothing."""
    found: Traits = getattr(function, "__statedb__", _UNKNOWN)
    return found
