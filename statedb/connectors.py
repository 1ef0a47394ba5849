"""Connectors: under which names a Database has its operations; no logic of theirs is here."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from statedb import masters, state
from statedb.connection import AnyConnection
from statedb.executor import Executor
from statedb.masters import MasterModel
from statedb.membership import Member
from statedb.objects import known_object

P = ParamSpec("P")
R = TypeVar("R")


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
        used again. It is remembered for a minute, or until this Database finds it gone. Raises
        InvalidNameError, or InvalidTypeError for what is no str.
        """
        known = self._known(name, class_name)
        if known is None:
            return self._executor.run(state.get_object_id, name, class_name)
        return known

    def _known(self, name: str, class_name: str) -> int | None:
        self._executor.check_open()
        return known_object(self._executor.known, name, class_name)


class MastersConnector(_Connector):
    """``db.masters``: each operation as a Future, and under a ``thd`` name in this thread."""

    findMasterId = _Async(masters.find_master_id)
    thdFindMasterId = _Sync(masters.find_master_id)
    setMasterState = _Async(masters.set_master_state)
    thdSetMasterState = _Sync(masters.set_master_state)
    getMaster = _Async(masters.get_master)
    thdGetMaster = _Sync(masters.get_master)
    getMasters = _Async(masters.get_masters)
    thdGetMasters = _Sync(masters.get_masters)
    setAllMastersActiveLongTimeAgo = _Async(masters.set_all_masters_active_long_time_ago)
    thdSetAllMastersActiveLongTimeAgo = _Sync(masters.set_all_masters_active_long_time_ago)
    expireMasters = _Async(masters.expire_masters)
    thdExpireMasters = _Sync(masters.expire_masters)
    claim = _Async(masters.claim)
    thdClaim = _Sync(masters.claim)
    release = _Async(masters.release)
    thdRelease = _Sync(masters.release)
    getClaims = _Async(masters.get_claims)
    thdGetClaims = _Sync(masters.get_claims)
    forgetMaster = _Async(masters.forget_master)
    thdForgetMaster = _Sync(masters.forget_master)
    holdClaim = _Async(masters.hold_claim)
    thdHoldClaim = _Sync(masters.hold_claim)

    def __init__(self, executor: Executor, owner: object) -> None:
        super().__init__(executor)
        self._owner = weakref.ref(owner)

    def join(
        self,
        name: str,
        interval: float = 60.0,
        expire_after: float = 600.0,
        on_expired: Callable[[list[MasterModel]], object] | None = None,
        on_lost: Callable[[Member], object] | None = None,
    ) -> Member:
        """Take this process's place in the cluster; the Member, a context manager that leaves it.

        The master of this name is active from now on, as a new incarnation of it: what it held is
        free, and a process that had its place before loses it. A thread checks in every
        ``interval`` seconds. After ``expire_after`` seconds of silence, at least three intervals,
        the others expire it; so it expires others who are overdue by the database's clock and whom
        it has itself watched not move for as long.

        It waits for a transaction in which a claim of this master is held.

        ``on_expired(masters)`` is told whom it has expired, and ``on_lost(member)``, once, that
        the place is lost; both on a thread of their own. Not to be called within a transaction.
        """
        return Member(
            self._executor,
            self._owner(),
            name,
            interval=interval,
            expire_after=expire_after,
            on_expired=on_expired,
            on_lost=on_lost,
        )
