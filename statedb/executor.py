"""Executor: runs an operation here or on a worker, tries again what is transient, and joins what
is called from within."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from statedb import process
from statedb.attempts import Attempts, database_error, name_of, outcome_unknown, text_of
from statedb.chronicle import Stats
from statedb.connection import Connection
from statedb.dialects import Dialect
from statedb.errors import CallTimeoutError, OutcomeUnknownError, PoolClosedError
from statedb.link import only_read
from statedb.operation import ALONE, Batch, Traits, traits
from statedb.pool import Pool
from statedb.ready import Call
from statedb.sharedcommit import commit_together
from statedb.workers import Workers

P = ParamSpec("P")
R = TypeVar("R")


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
        self._dialect = dialect
        self._target = target
        #: In seconds, of each call as a whole.
        self.timeout = timeout
        #: Whether closing it loses all that the database holds.
        self.in_memory = dialect.in_memory(target)
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
            self._run_together,
            size=pool_size,
            max_pending=max_pending,
            timeout=timeout,
            finish=self._close_pool,
        )
        process.attend_to(self)

    def sibling(
        self, timeout: float | None = None, prepare: Callable[[Connection], None] | None = None
    ) -> Executor:
        """An executor to the same database with one connection, its own; for who may not wait.

        Of a database in memory there is only one connection: a sibling shares it.
        """
        if self.in_memory:
            return _Guest(self)
        return Executor(
            self._dialect,
            self._target,
            pool_size=1,
            max_pending=100,
            timeout=self.timeout if timeout is None else timeout,
            prepare=prepare or (lambda conn: None),
        )

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
            known = traits(operation)
            return self._workers.submit(operation, args, kwargs, known, self._batch_of(known))
        # Waiting for a worker from within an operation could be waiting for oneself.
        future: Future[R] = Future()
        try:
            future.set_result(self._join(current, operation, args, kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def _batch_of(self, known: Traits) -> Batch | None:
        """How several calls of an operation are made at once, if they can be."""
        if known.reads or not self._dialect.shares_commits:
            return known.batch
        return commit_together if known.shares_commit else None

    def _run_submitted(self, call: Call) -> Any:
        if time.monotonic() > call.deadline:
            late = CallTimeoutError(
                f"{name_of(call.function)} waited {self.timeout:g} s in the queue, and was not"
                f" begun{' again' if call.in_doubt else ''}"
            )
            self._pool.chronicle.failed()
            if call.in_doubt:
                raise outcome_unknown(call.function, late) from late
            raise late
        return self._call(
            call.function, call.args, call.kwargs, call.deadline, call.in_doubt, call.memo
        )

    def _run_together(self, batch: Batch, calls: Sequence[Call]) -> list[Any]:
        """What each of several calls gives; ALONE where it has to be made by itself."""
        now = time.monotonic()
        timely = [call for call in calls if now <= call.deadline]
        if not timely:
            return [ALONE for _ in calls]
        if len(timely) < len(calls):
            outcomes = dict(zip(timely, self._run_together(batch, timely), strict=True))
            return [outcomes.get(call, ALONE) for call in calls]
        try:
            conn = self._pool.take(min([call.deadline for call in calls]))
        except Exception:
            # Each finds out for itself what is amiss, and whether there is time to try again.
            return [ALONE for _ in calls]
        conn.memo = {}
        self._here.connection = conn
        try:
            made = batch(conn, calls)
        except BaseException as error:
            # What is no Exception comes of a caller's own value: alone he gets it again, and the
            # others are none the worse. It may have come between a statement and its answer.
            conn.broken = conn.broken or not isinstance(error, Exception)
            for call in calls:
                call.in_doubt = conn.in_doubt
                call.memo = {**conn.memo}
            return [ALONE for _ in calls]
        finally:
            self._here.connection = None
            self._pool.give_back(conn)
        self._pool.chronicle.done(sum(outcome is not ALONE for outcome in made))
        return made

    def _join(self, conn: Connection, function: Callable[..., R], args: Any, kwargs: Any) -> R:
        """Run within what this thread is in the middle of: same connection, same transaction."""
        known = traits(function)
        if conn.reads_only and known.writes:
            raise only_read()
        try:
            return function(conn, *args, **kwargs)
        except Exception as error:
            if error is not conn.error:
                raise
            if conn.in_doubt and not known.reads:
                raise outcome_unknown(function, error) from error
            raise database_error(function, conn.dialect, self._target, error) from error

    def _call(
        self,
        function: Callable[..., R],
        args: Any,
        kwargs: Any,
        deadline: float,
        in_doubt: bool = False,
        memo: dict[Any, Any] | None = None,
    ) -> R:
        attempts: Attempts | None = None
        memo = {} if memo is None else memo
        reads = traits(function).reads
        done = False
        while True:
            conn = None
            has_read = False
            try:
                conn = self._pool.take(deadline, unchecked=reads and attempts is None)
                conn.memo = memo
                self._here.connection = conn
                if memo:
                    conn.end_lost()
                if not done:
                    result = function(conn, *args, **kwargs)
                    done = True
                if in_doubt or (attempts is not None and attempts.in_doubt):
                    # It may have found what a lost try of its own has left, and no more than that.
                    # Where this is lost too it is not done again: what it reports it reports once.
                    conn.settle()
                has_read = reads
                self._pool.chronicle.done()
                return result
            except Exception as error:
                attempts = attempts or Attempts(function, self._pool, deadline, in_doubt)
                attempts.failed(error, conn)
            except BaseException:
                if conn is not None:
                    # Interrupted at an unknown place, perhaps between a statement and its answer.
                    conn.broken = True
                raise
            finally:
                self._here.connection = None
                if conn is not None:
                    self._pool.give_back(conn, has_read=has_read)
            self._pause(attempts)

    def _take(self, attempts: Attempts) -> Connection:
        """A connection whose statements have the timeout each to itself."""
        while True:
            try:
                return self._pool.take(attempts.deadline, lasting=self.timeout)
            except Exception as error:
                attempts.failed(error)
            self._pause(attempts)

    def _pause(self, attempts: Attempts) -> None:
        """Wait until the next try. close() ends the wait, and leaves a lost server one more try."""
        if self._closing.wait(attempts.wait):
            attempts.closing = True

    # --- Transactions ---

    @contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """A connection in a transaction, which calls from this thread join until its end."""
        begin = Connection.snapshot if snapshot else Connection.transaction
        current = self._here.connection
        if current is not None:
            with begin(current):
                yield current
            return
        self.check_open()
        conn, block = self._begin(begin)
        self._here.connection = conn
        try:
            with ExitStack() as stack:
                stack.push(block)
                yield conn
            self._pool.chronicle.done()
        except Exception as error:
            if error is not conn.error:
                self._pool.chronicle.done()
                raise
            self._pool.chronicle.failed()
            if conn.in_doubt:
                raise OutcomeUnknownError(
                    f"the answer to a COMMIT was lost; whether the transaction took effect is"
                    f" unknown: {text_of(error)}"
                ) from error
            raise database_error(begin, self._dialect, self._target, error) from error
        finally:
            self._here.connection = None
            conn.statement_timeout = None
            self._pool.give_back(conn)

    def _begin(self, begin: Callable[[Connection], Any]) -> tuple[Connection, Any]:
        deadline = time.monotonic() + self.timeout
        attempts = Attempts(begin, self._pool, deadline)
        while True:
            conn = self._take(attempts)
            block = begin(conn)
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

    def stats(self) -> Stats:
        counts = self._pool.chronicle.stats()
        return Stats(**counts, **self._workers.stats(), **self._pool.stats())

    @property
    def is_busy_here(self) -> bool:
        """Whether this thread is within an operation or a transaction."""
        return self._here.connection is not None

    def check_open(self) -> None:
        if self._closing.is_set():
            raise PoolClosedError("this Database is closed")

    def close(self, *, cancel_futures: bool = False, wait: bool = True) -> None:
        """Finish what was accepted, and end all threads and connections."""
        self._closing.set()
        self._waits = wait
        self._workers.close(cancel_futures=cancel_futures, wait=wait)

    def _close_pool(self) -> None:
        self._pool.close(held=int(self.is_busy_here), wait=self._waits)

    def before_fork(self) -> None:
        self._pool.before_fork(held=int(self.is_busy_here))

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


class _Guest(Executor):
    """Another's executor, for one who may end using it but not end it."""

    def __init__(self, host: Executor) -> None:
        self.__dict__ = host.__dict__

    def close(self, *, cancel_futures: bool = False, wait: bool = True) -> None:
        pass
