"""Attempts: what one call has tried, whether it may try again, and else what its caller sees."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from statedb.connection import Connection
from statedb.dialects import Dialect, Failure
from statedb.errors import (
    CallTimeoutError,
    ConflictError,
    DatabaseError,
    Error,
    OutcomeUnknownError,
    PoolClosedError,
)
from statedb.operation import traits
from statedb.pool import Pool

#: The first and the longest wait between tries, in seconds; each is drawn at random below that.
FIRST_WAIT, LONGEST_WAIT = 0.01, 1.0


class Attempts:
    """What one call has tried so far, and whether it may try again."""

    #: How long to wait before the next, in seconds.
    wait = 0.0
    #: The Database is being closed: who has lost the server tries once more, not until the end.
    closing = False
    _tries = 0

    def __init__(
        self, function: Callable[..., Any], pool: Pool, deadline: float, in_doubt: bool = False
    ) -> None:
        self._function = function
        self._pool = pool
        self.deadline = deadline
        #: An earlier try may have taken effect.
        self.in_doubt = in_doubt

    def failed(self, error: Exception, conn: Connection | None = None) -> None:
        """Note a failed try; raises what the caller is to see unless it may be tried again."""
        cause = _cause(error, conn)
        if cause is None:
            if self.in_doubt and isinstance(error, (CallTimeoutError, PoolClosedError)):
                raise outcome_unknown(self._function, error) from error
            raise error
        self._tries += 1
        failure = self._pool.dialect.failure(cause)
        known = traits(self._function)
        if conn is not None and not known.reads:
            self.in_doubt = self.in_doubt or conn.in_doubt
            again = known.repeatable and failure is not Failure.UNSETTLED
            if failure is not None and not again and (conn.in_doubt or conn.committed):
                raise outcome_unknown(self._function, cause) from cause
        text = text_of(cause)
        if conn is None:
            text = f"cannot open {self._pool.target}: {text}"
        remaining = self.deadline - time.monotonic()
        lost = failure in (Failure.LOST, Failure.REFUSED)
        # A wait for a lock that the server could not end in time would leave the outcome unknown.
        needed = 0.0 if lost else 0.1 + self._pool.dialect.least_lock_wait
        if failure is not None and remaining > needed and not (self.closing and lost):
            longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self._tries, 10))
            self.wait = min(random.uniform(0, longest), remaining - needed)
        elif self.in_doubt:
            raise outcome_unknown(self._function, cause) from cause
        elif failure is not None and remaining <= needed:
            raise CallTimeoutError(
                f"{name_of(self._function)} did not get done within {self._pool.timeout:g} s, in"
                f" {self._tries} tries: {text}"
            ) from cause
        else:
            raise database_error(self._function, self._pool.dialect, cause, text) from cause


def _cause(error: Exception, conn: Connection | None) -> Exception | None:
    """The driver's error behind a failed try; None where the failure is not the database's.

    What a callback of the caller's raised is his, even if it is an error of the same driver.
    """
    if conn is None:
        # Nothing of a caller's has run yet: all that is not ours comes of connecting.
        return None if isinstance(error, Error) else error
    for candidate in (error, error.__cause__ if isinstance(error, DatabaseError) else None):
        if candidate is not None and candidate is conn.error:
            return conn.error
    return None


def database_error(
    function: Callable[..., Any], dialect: Dialect, error: Exception, text: str | None = None
) -> DatabaseError:
    kind = ConflictError if dialect.failure(error) is Failure.CONFLICT else DatabaseError
    return kind(f"{name_of(function)} failed: {text or text_of(error)}")


def outcome_unknown(function: Callable[..., Any], cause: Exception) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"the answer to {name_of(function)} was lost; whether it took effect, or a part of it, is"
        f" unknown: {text_of(cause)}"
    )


def name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or repr(function)


def text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
