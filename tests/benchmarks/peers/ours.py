"""statedb itself, as its users call it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import statedb
from benchmarks.peers.side import LocalSide
from benchmarks.workload import CLASS, OBJECT, one_more, stored_before


class Ours(LocalSide):
    name = "statedb"

    def __init__(self, url: str, *, pool_size: int | None = None, fill: bool = True) -> None:
        super().__init__()
        settings = {} if pool_size is None else {"pool_size": pool_size}
        self.db = statedb.connect(url, **settings)
        self.db.upgrade()
        state = self.db.state
        self.objectid = objectid = state.thdGetObjectId(OBJECT, CLASS)
        if fill:
            state.thdSetStates(objectid, stored_before())
        self._waiting: dict[str, Callable[..., Any]] = {
            "get": lambda key: state.thdGetState(objectid, key),
            "put": lambda key, value: state.thdSetState(objectid, key, value),
            "object_id": lambda name: state.thdGetObjectId(name, CLASS),
            "create": lambda key, value: state.thdAtomicCreateState(objectid, key, lambda: value),
            "update": lambda key: state.thdUpdateState(objectid, key, one_more),
            "get_many": lambda keys: state.thdGetStates(objectid, keys),
            "put_many": lambda values: state.thdSetStates(objectid, values),
        }
        self._promising: dict[str, Callable[..., Future[Any]]] = {
            "get": lambda key: state.getState(objectid, key),
            "put": lambda key, value: state.setState(objectid, key, value),
            "object_id": lambda name: state.getObjectId(name, CLASS),
            "create": lambda key, value: state.atomicCreateState(objectid, key, lambda: value),
            "update": lambda key: state.updateState(objectid, key, one_more),
            "get_many": lambda keys: state.getStates(objectid, keys),
            "put_many": lambda values: state.setStates(objectid, values),
        }
        self._waiting["put_new"] = self._waiting["put"]
        self._promising["put_new"] = self._promising["put"]

    def get(self, key: str) -> Any:
        return self.db.state.thdGetState(self.objectid, key)

    def waiting(self, method: str) -> Callable[..., Any] | None:
        return self._waiting[method]

    def promising(self, method: str) -> Callable[..., Future[Any]] | None:
        return self._promising[method]

    def close(self) -> None:
        self.db.close()
