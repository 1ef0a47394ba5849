"""Executor: runs an operation here or on a worker, tries again what is transient, and joins what
is called from within."""

from __future__ import annotations

import atexit
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

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
from statedb.workers import Call, Workers

P = ParamSpec("P")
R = TypeVar("R")

#: The first and the longest wait between tries, in seconds; each is drawn at random below that.
FIRST_WAIT, LONGEST_WAIT = 0.01, 1.0


class _Here(threading.local):
    """What the current thread is in the middle of."""

    connection: Connection | None = None


class Executor:
    """Runs functions of a connection, within one timeout for each call."""

    def __init__(
        self,
        dialect: Dialect,
        target: Any,
        *,
        pool_size: int,
        max_pending: int,
        timeout: float,
        prepare: Callable[[Connection], None],
    ) -> None:
        self.dialect = dialect
        self.target = target
        self.timeout = timeout
        self._here = _Here()
        self._closing = threading.Event()
        self._waits = True
        #: What operations remember of committed facts.
        self.known: dict[Any, Any] = {}
        self._pool = Pool(
            dialect, target, size=pool_size, timeout=timeout, prepare=prepare, known=self.known
        )
        self._workers = Workers(
            self._run_submitted,
            size=pool_size,
            max_pending=max_pending,
            timeout=timeout,
            finish=self._close_pool,
        )
        _executors.add(self)

    # --- Running ---

    def run(
        self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What the operation returns, run in this thread."""
        current = self._here.connection
        if current is not None:
            return self._join(current, operation, args, kwargs)
        self.check_open()
        return self._call(operation, args, kwargs, time.monotonic() + self.timeout)

    def submit(
        self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """A Future of what the operation returns, run by a worker."""
        current = self._here.connection
        if current is None:
            return self._workers.submit(operation, args, kwargs)
        # Waiting for a worker from within an operation could be waiting for oneself.
        future: Future[R] = Future()
        try:
            future.set_result(self._join(current, operation, args, kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_submitted(self, call: Call) -> Any:
        if time.monotonic() > call.deadline:
            raise CallTimeoutError(
                f"{_name(call.function)} waited {self.timeout:g} s in the queue and was not begun"
            )
        return self._call(call.function, call.args, call.kwargs, call.deadline)

    def _join(self, conn: Connection, function: Callable[..., R], args: Any, kwargs: Any) -> R:
        """Run within what this thread is in the middle of: same connection, same transaction."""
        try:
            return function(conn, *args, **kwargs)
        except Exception as error:
            if error is conn.error:
                raise _failed(function, conn.dialect, error) from error
            raise

    def _call(self, function: Callable[..., R], args: Any, kwargs: Any, deadline: float) -> R:
        attempts = _Attempts(self, function, deadline)
        memo: dict[Any, Any] = {}
        while True:
            conn = self._take(attempts)
            conn.memo = memo
            self._here.connection = conn
            try:
                return function(conn, *args, **kwargs)
            except Exception as error:
                attempts.failed(error, conn)
            except BaseException:
                # Interrupted at an unknown place, perhaps between a statement and its answer.
                conn.broken = True
                raise
            finally:
                self._here.connection = None
                self._pool.give_back(conn)
            self._pause(attempts)

    def _take(self, attempts: _Attempts) -> Connection:
        while True:
            try:
                return self._pool.take(attempts.deadline)
            except Exception as error:
                attempts.failed(error)
            self._pause(attempts)

    def _pause(self, attempts: _Attempts) -> None:
        """Wait until the next try. close() ends the wait, and leaves a lost server one more try."""
        if self._closing.wait(attempts.wait):
            attempts.closing = True
        self._pool.look_again()

    # --- Transactions ---

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction, which calls from this thread join until its end."""
        current = self._here.connection
        if current is not None:
            with current.transaction():
                yield current
            return
        self.check_open()
        conn, block = self._begin()
        self._here.connection = conn
        try:
            with ExitStack() as stack:
                stack.push(block)
                yield conn
        except Exception as error:
            if error is not conn.error:
                raise
            if conn.in_doubt:
                raise OutcomeUnknownError(
                    f"the answer to a COMMIT was lost; whether the transaction took effect is"
                    f" unknown: {_text(error)}"
                ) from error
            raise _failed(self.transaction, self.dialect, error) from error
        finally:
            self._here.connection = None
            conn.statement_timeout = None
            self._pool.give_back(conn)

    def _begin(self) -> tuple[Connection, Any]:
        deadline = time.monotonic() + self.timeout
        attempts = _Attempts(self, self.transaction, deadline)
        while True:
            conn = self._take(attempts)
            block = conn.transaction()
            try:
                block.__enter__()
            except BaseException as error:
                try:
                    if not isinstance(error, Exception):
                        raise
                    attempts.failed(error, conn)
                finally:
                    self._pool.give_back(conn)
            else:
                conn.memo = {}
                # From here on each statement has the timeout to itself, and the caller all the time
                # he wants in between.
                conn.statement_timeout = self.timeout
                conn.deadline = None
                return conn, block
            self._pause(attempts)

    # --- Ends ---

    def check_open(self) -> None:
        if self._closing.is_set():
            raise PoolClosedError("this Database is closed")

    def close(self, *, cancel_futures: bool = False, wait: bool = True) -> None:
        """Finish what was accepted, and end all threads and connections."""
        self._closing.set()
        self._waits = wait
        self._workers.close(cancel_futures=cancel_futures, wait=wait)

    def _close_pool(self) -> None:
        self._pool.close(held=self._held(), wait=self._waits)

    def _held(self) -> int:
        return 0 if self._here.connection is None else 1

    def before_fork(self) -> None:
        self._pool.before_fork(self._held())

    def after_fork_in_parent(self) -> None:
        self._pool.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        closed = self._closing.is_set()
        self._here = _Here()
        self._closing = threading.Event()
        if closed:
            self._closing.set()
        self._pool.after_fork_in_child()
        self._workers.after_fork_in_child()


class _Attempts:
    """What one call has tried so far, and whether it may try again."""

    #: How long to wait before the next, in seconds.
    wait = 0.0
    #: The Database is being closed: who has lost the server tries once more, not until the end.
    closing = False
    _tries = 0
    _in_doubt = False

    def __init__(self, executor: Executor, function: Callable[..., Any], deadline: float) -> None:
        self._executor = executor
        self._function = function
        self.deadline = deadline

    def failed(self, error: Exception, conn: Connection | None = None) -> None:
        """Note a failed try; raises what the caller is to see unless it may be tried again."""
        cause = _cause(error, conn)
        if cause is None:
            if self._in_doubt and isinstance(error, (CallTimeoutError, PoolClosedError)):
                raise self._unknown(error) from error
            raise error
        self._tries += 1
        failure = self._executor.dialect.failure(cause)
        known = traits(self._function)
        if conn is not None and not known.reads:
            self._in_doubt = self._in_doubt or conn.in_doubt
            if failure is not None and not known.repeatable and (conn.in_doubt or conn.committed):
                raise self._unknown(cause) from cause
        text = _text(cause)
        if conn is None:
            text = f"cannot open {self._executor.target}: {text}"
        remaining = self.deadline - time.monotonic()
        lost = failure in (Failure.LOST, Failure.REFUSED)
        if failure is not None and remaining > 0 and not (self.closing and lost):
            longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self._tries, 10))
            self.wait = min(random.uniform(0, longest), remaining)
        elif self._in_doubt:
            raise self._unknown(cause) from cause
        elif failure is not None and remaining <= 0:
            raise CallTimeoutError(
                f"{_name(self._function)} did not get done within {self._executor.timeout:g} s, in"
                f" {self._tries} tries: {text}"
            ) from cause
        else:
            raise _failed(self._function, self._executor.dialect, cause, text) from cause

    def _unknown(self, cause: Exception) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"the answer to {_name(self._function)} was lost; whether it took effect, or a part of"
            f" it, is unknown: {_text(cause)}"
        )


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


def _failed(
    function: Callable[..., Any], dialect: Dialect, error: Exception, text: str | None = None
) -> DatabaseError:
    kind = ConflictError if dialect.failure(error) is Failure.CONFLICT else DatabaseError
    return kind(f"{_name(function)} failed: {text or _text(error)}")


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or repr(function)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


# --- The process's end, and its forks ---

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for executor in list(_executors):
        executor.close()


# From before a fork until after it, so that nothing is collected in between.
_forking: list[Executor] = []


def _before_fork() -> None:
    _forking.extend(_executors)
    for executor in _forking:
        executor.before_fork()


def _after_fork_in_parent() -> None:
    for executor in _forking:
        executor.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for executor in _forking:
        executor.after_fork_in_child()
    _forking.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
