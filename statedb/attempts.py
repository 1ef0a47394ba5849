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
#: How many seconds a try on a new connection is to have; a fifth of a short timeout.
TIME_TO_CONNECT = 0.5


class Attempts:
    """What one call has tried so far, and whether it may try again."""

    #: How long to wait before the next, in seconds.
    wait = 0.0
    #: The Database is being closed: who has lost the server tries once more, not until the end.
    closing = False
    _tries = 0
    #: It was tried on a connection that was opened after one had been found unfit.
    _renewed = False

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
        chronicle = self._pool.chronicle
        try:
            self._judge(error, conn)
        except DatabaseError:
            chronicle.failed()
            raise
        except Exception:
            chronicle.done()
            raise
        chronicle.tried_again(name_of(self._function), error)

    def _judge(self, error: Exception, conn: Connection | None) -> None:
        cause = _cause(error, conn)
        if cause is None:
            if self.in_doubt and isinstance(error, (CallTimeoutError, PoolClosedError)):
                raise outcome_unknown(self._function, error) from error
            raise error
        self._tries += 1
        failure, text = self._what_failed(cause, conn)
        if conn is not None and self._may_renew(cause, conn):
            self._renewed = True
            return
        known = traits(self._function)
        if conn is not None and not known.reads:
            self.in_doubt = self.in_doubt or conn.in_doubt
            again = known.repeatable and failure is not Failure.UNSETTLED
            if failure is not None and not again and (conn.in_doubt or conn.committed):
                raise outcome_unknown(self._function, cause) from cause
        remaining = self.deadline - time.monotonic()
        lost = failure in (Failure.LOST, Failure.REFUSED)
        # A wait for a lock that the server could not end in time would leave the outcome unknown;
        # so would a new connection that is cut as soon as it has asked.
        needed = 0.1 + self._pool.dialect.least_lock_wait
        if lost:
            needed = min(TIME_TO_CONNECT, self._pool.timeout / 5)
        if failure is not None and remaining > needed and not (self.closing and lost):
            longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self._tries, 10))
            self.wait = min(random.uniform(0, longest), remaining - needed)
        elif self.in_doubt:
            raise outcome_unknown(self._function, cause) from cause
        elif failure is not None and remaining <= needed:
            tries = "one try" if self._tries == 1 else f"{self._tries} tries"
            raise CallTimeoutError(
                f"{name_of(self._function)} did not get done within {self._pool.timeout:g} s, in"
                f" {tries}: {text}"
            ) from cause
        else:
            target = None if conn is None else self._pool.target
            raise database_error(self._function, self._pool.dialect, target, cause, text) from cause

    def _may_renew(self, cause: Exception, conn: Connection) -> bool:
        """Whether one more try is due at once, as it may be the connection that is at fault."""
        if self._renewed or not self._pool.dialect.spoils(cause):
            return False
        return traits(self._function).repeatable or not conn.committed

    def _what_failed(self, cause: Exception, conn: Connection | None) -> tuple[Failure | None, str]:
        """Whether trying again can help, and what there is to tell if not."""
        dialect = self._pool.dialect
        failure = dialect.failure(cause)
        text = advice(dialect, cause)
        if conn is None:
            text = f"cannot open {self._pool.target}: {text}"
        elif failure is Failure.REFUSED and dialect.is_lasting(self._pool.target, conn.raw, cause):
            return None, text
        return failure, text


def _cause(error: Exception, conn: Connection | None) -> Exception | None:
    """The driver's error behind a failed try; None where the failure is not the database's.

    What a callback of the caller's raised is his, even if it is an error of the same driver.
    """
    if conn is None:
        # Nothing of a caller's has run yet: all that is not ours comes of connecting.
        return None if isinstance(error, Error) else error
    for candidate in (error, error.__cause__ if isinstance(error, DatabaseError) else None):
        if candidate is conn.error:
            return conn.error
    return None


def database_error(
    function: Callable[..., Any],
    dialect: Dialect,
    target: Any,
    error: Exception,
    text: str | None = None,
) -> DatabaseError:
    kind = ConflictError if dialect.failure(error) is Failure.CONFLICT else DatabaseError
    where = "" if target is None else f" in {target}"
    return kind(f"{name_of(function)} failed{where}: {text or advice(dialect, error)}")


def outcome_unknown(function: Callable[..., Any], cause: Exception) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"the answer to {name_of(function)} was lost; whether it took effect, or a part of it, is"
        f" unknown: {text_of(cause)}"
    )


def name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or repr(function)


def advice(dialect: Dialect, error: BaseException) -> str:
    """What a driver's error says, and what to do about it, if that is known."""
    remedy = dialect.remedy(error)
    return text_of(error) + (f"; {remedy}" if remedy else "")


def text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
