"""Database: what connect() gives, with its connectors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from statedb import dialects, schema
from statedb.chronicle import Stats
from statedb.connection import Connection
from statedb.connectors import MastersConnector, StateConnector
from statedb.errors import InvalidSettingError, InvalidTypeError, UnusableConnectionError
from statedb.executor import Executor
from statedb.membership import leave_all
from statedb.times import check_seconds

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_log = logging.getLogger("statedb")

P = ParamSpec("P")
R = TypeVar("R")


def connect(
    url: str, *, pool_size: int = 4, timeout: float = 30.0, max_pending: int = 100_000
) -> Database:
    """A Database at this URL. Nothing is opened before it is needed.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``sqlite://`` (memory);
    ``postgresql://user:password@host:5432/database`` and all else that libpq takes;
    ``mysql://user:password@host1:3306,host2:3306/database?ssl_ca=…``, ``mariadb://`` too.

    ``pool_size`` is how many connections, and as many worker threads, there are at most.
    ``timeout``, in seconds, bounds each call as a whole: waiting for a connection, connecting,
    locks, a silent server, tries again. ``max_pending`` is how many futures may be unfinished; one
    more is a QueueFullError. Raises InvalidURLError, a ValueError, and DriverMissingError.
    """
    return Database(url, pool_size=pool_size, timeout=timeout, max_pending=max_pending)


class Database:
    """State and masters in one database; a context manager that closes it.

    Each operation can be called in three ways: ``db.state.getState(…)`` gives a Future,
    ``db.state.thdGetState(…)`` the value in this thread, and ``statedb.state.get_state(conn, …)``
    is a part of the transaction of any connection.
    """

    def __init__(self, url: str, *, pool_size: int, timeout: float, max_pending: int) -> None:
        _check_count("pool_size", pool_size)
        _check_count("max_pending", max_pending)
        timeout = check_seconds("timeout", timeout, 0.001)
        self._dialect = dialects.for_url(url)
        self._target = self._dialect.parse(url)
        if self._dialect.in_memory(self._target):
            # Each connection would have a memory of its own.
            pool_size = 1
        self._executor = Executor(
            self._dialect,
            self._target,
            pool_size=pool_size,
            max_pending=max_pending,
            timeout=timeout,
            prepare=schema.check,
        )
        #: Whether close() was called.
        self.closed = False
        #: Objects and their values.
        self.state = StateConnector(self._executor)
        #: Who is in the cluster, and what each one holds.
        self.masters = MastersConnector(self._executor, self)

    def run(
        self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What the function of a connection returns, run in this thread.

        It is tried again after a deadlock or a lost connection, only while nothing that it sent
        can have been committed; after that such a failure is an OutcomeUnknownError. What it
        writes in several statements is atomic within ``with conn.transaction():``.
        """
        return self._executor.run(operation, *args, **kwargs)

    def submit(
        self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """A Future of what the function of a connection returns, run by a worker thread.

        Raises QueueFullError and PoolClosedError at once. The Future's done-callbacks run on the
        worker: one that waits there for another Future may wait for itself.
        """
        return self._executor.submit(operation, *args, **kwargs)

    def transaction(self) -> AbstractContextManager[Connection]:
        """A context manager: what this thread does with this Database within is one transaction.

        It yields the Connection, for functions of one. Futures asked for within are done at once.
        Each statement may last the timeout; the block as a whole as long as you like, but on
        SQLite it keeps all other writers waiting. Raises ConflictError where the engine undid it,
        and OutcomeUnknownError where the answer to COMMIT was lost.
        """
        return self._executor.transaction()

    def stats(self) -> Stats:
        """Counts and gauges for a metrics exporter; it asks the database nothing.

        What is counted only grows, but for a forked child, which counts anew.
        """
        return self._executor.stats()

    def snapshot(self) -> AbstractContextManager[Connection]:
        """A context manager: what this thread reads with this Database within is of one moment.

        It yields the Connection. What writes is refused by UnusableConnectionError. Each statement
        may last the timeout; the block as long as you like: a server keeps what was overwritten
        meanwhile, SQLite its whole log, and with a rollback journal its writers waiting. Not within
        a transaction.
        """
        return self._executor.transaction(snapshot=True)

    def upgrade(self) -> None:
        """Create the tables, or bring them up to date. Safe to run again, and by many at once.

        Not within a transaction or an operation of this Database: on MySQL it would commit it.
        """
        self._executor.check_open()
        if self._executor.is_busy_here:
            raise UnusableConnectionError("upgrade() cannot be a part of a transaction")
        # On a connection of its own: others are not lent before the tables are right.
        executor = self._executor.sibling()
        try:
            found = executor.run(schema.upgrade)
        finally:
            executor.close()
        if found < schema.VERSION:
            before = f"version {found}" if found else "none"
            version = schema.VERSION
            _log.info("%s has tables of version %d; before: %s", self._target, version, before)

    def close(self, *, cancel_futures: bool = False) -> None:
        """Finish what was accepted, each within its timeout; then close all connections.

        ``cancel_futures`` cancels what has not begun. From a done-callback it does not wait.
        Members leave at the end.
        """
        self.closed = True
        if self._executor.in_memory:
            leave_all(self)  # while there is anything to leave
        self._executor.close(cancel_futures=cancel_futures)
        leave_all(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<statedb.Database {self._target}{', closed' if self.closed else ''}>"

    def __del__(self) -> None:
        if not getattr(self, "closed", True):
            try:
                warnings.warn(f"{self!r} was never closed", ResourceWarning, 2, source=self)
            finally:
                self._executor.close(wait=False)


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidTypeError(f"{name} is an int, not {type(value).__name__}")
    if value < 1:
        raise InvalidSettingError(f"{name} is at least 1, not {value}")
