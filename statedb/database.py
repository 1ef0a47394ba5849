"""Database: what connect() gives, with its connectors."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from statedb import dialects, schema, state
from statedb.connection import AnyConnection, Connection
from statedb.errors import InvalidSettingError, InvalidTypeError, UnusableConnectionError
from statedb.executor import Executor

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

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
    """State in one database; a context manager that closes it.

    Each operation can be called in three ways: ``db.state.getState(…)`` gives a Future,
    ``db.state.thdGetState(…)`` the value in this thread, and ``statedb.state.get_state(conn, …)``
    is a part of the transaction of any connection.
    """

    def __init__(self, url: str, *, pool_size: int, timeout: float, max_pending: int) -> None:
        _check_number("pool_size", pool_size, int, 1)
        _check_number("max_pending", max_pending, int, 1)
        _check_number("timeout", timeout, (int, float), 0.001)
        self._dialect = dialects.for_url(url)
        self._target = self._dialect.parse(url)
        if self._dialect.in_memory(self._target):
            # Each connection would have a memory of its own.
            pool_size = 1
        self._max_pending = max_pending
        self._timeout = float(timeout)
        self._executor = self._new_executor(pool_size=pool_size, prepare=schema.check)
        self.closed = False
        #: Objects and their values.
        self.state = StateConnector(self._executor)

    def _new_executor(self, *, pool_size: int, prepare: Callable[[Connection], None]) -> Executor:
        return Executor(
            self._dialect,
            self._target,
            pool_size=pool_size,
            max_pending=self._max_pending,
            timeout=self._timeout,
            prepare=prepare,
        )

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

    def upgrade(self) -> None:
        """Create the tables, or bring them up to date. Safe to run again, and by many at once.

        Not within a transaction or an operation of this Database: on MySQL it would commit it.
        """
        self._executor.check_open()
        if self._executor.is_busy_here:
            raise UnusableConnectionError("upgrade() cannot be a part of a transaction")
        if self._dialect.in_memory(self._target):
            self._executor.run(schema.upgrade)
            return
        # On a connection of its own: others are not lent before the tables are right.
        executor = self._new_executor(pool_size=1, prepare=lambda conn: None)
        try:
            executor.run(schema.upgrade)
        finally:
            executor.close()

    def close(self, *, cancel_futures: bool = False) -> None:
        """Finish what was accepted, each within its timeout; then close all connections.

        ``cancel_futures`` cancels what has not begun. From a done-callback it does not wait.
        """
        self.closed = True
        self._executor.close(cancel_futures=cancel_futures)

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


def _check_number(name: str, value: Any, kind: Any, least: float) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidTypeError(f"{name} is a number, not {type(value).__name__}")
    if not least <= value < float("inf"):
        raise InvalidSettingError(f"{name} is at least {least}, not {value}")


class _Name(Generic[P, R]):
    """A name under which a connector has an operation; bound when it is first asked for."""

    def __init__(self, operation: Callable[Concatenate[AnyConnection, P], R]) -> None:
        self._operation = operation

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__doc__ = self._operation.__doc__

    def _bind(self, connector: _Connector, how: Callable[..., Any], result: str) -> Any:
        operation = self._operation
        signature = inspect.signature(operation)

        def bound(*args: Any, **kwargs: Any) -> Any:
            return how(operation, *args, **kwargs)

        bound.__name__ = bound.__qualname__ = self._name
        bound.__doc__ = operation.__doc__
        bound.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=list(signature.parameters.values())[1:],
            return_annotation=result.format(signature.return_annotation),
        )
        # From now on it is found in the connector itself, before this descriptor.
        connector.__dict__[self._name] = bound
        return bound


class _Sync(_Name[P, R]):
    """Gives the value, in the caller's thread."""

    @overload
    def __get__(self, connector: None, owner: type) -> _Sync[P, R]: ...
    @overload
    def __get__(self, connector: _Connector, owner: type) -> Callable[P, R]: ...
    def __get__(self, connector: _Connector | None, owner: type) -> Any:
        if connector is None:
            return self
        return self._bind(connector, connector._executor.run, "{}")


class _Async(_Name[P, R]):
    """Gives a Future of the value."""

    @overload
    def __get__(self, connector: None, owner: type) -> _Async[P, R]: ...
    @overload
    def __get__(self, connector: _Connector, owner: type) -> Callable[P, Future[R]]: ...
    def __get__(self, connector: _Connector | None, owner: type) -> Any:
        if connector is None:
            return self
        return self._bind(connector, connector._executor.submit, "Future[{}]")


class _Connector:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor


class StateConnector(_Connector):
    """``db.state``: each operation as a Future, and under a ``thd`` name in this thread."""

    getState = _Async(state.get_state)
    thdGetState = _Sync(state.get_state)
    setState = _Async(state.set_state)
    thdSetState = _Sync(state.set_state)
    atomicCreateState = _Async(state.atomic_create_state)
    thdAtomicCreateState = _Sync(state.atomic_create_state)
    deleteState = _Async(state.delete_state)
    thdDeleteState = _Sync(state.delete_state)
    updateState = _Async(state.update_state)
    thdUpdateState = _Sync(state.update_state)
    getStates = _Async(state.get_states)
    thdGetStates = _Sync(state.get_states)
    setStates = _Async(state.set_states)
    thdSetStates = _Sync(state.set_states)
    getObjects = _Async(state.get_objects)
    thdGetObjects = _Sync(state.get_objects)
    deleteObject = _Async(state.delete_object)
    thdDeleteObject = _Sync(state.delete_object)

    def getObjectId(self, name: str, class_name: str) -> Future[int]:
        """A Future of thdGetObjectId; done at once where the id is remembered."""
        known = self._known(name, class_name)
        if known is None:
            return self._executor.submit(state.get_object_id, name, class_name)
        future: Future[int] = Future()
        future.set_result(known)
        return future

    def thdGetObjectId(self, name: str, class_name: str) -> int:
        """The id of the object of this name and class, which is added if there is none.

        All callers get the same id, however many ask at once, until the object is deleted; no id is
        used again. It is remembered, and asked for anew once it turns out to be gone. Raises
        InvalidNameError, or InvalidTypeError for what is no str.
        """
        known = self._known(name, class_name)
        if known is None:
            return self._executor.run(state.get_object_id, name, class_name)
        return known

    def _known(self, name: str, class_name: str) -> int | None:
        self._executor.check_open()
        if not isinstance(name, str) or not isinstance(class_name, str):
            return None
        known: int | None = self._executor.known.get((name, class_name))
        return known
