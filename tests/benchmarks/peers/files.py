"""diskcache and sqlitedict: keys and values in a SQLite file, as durable as statedb has them.

diskcache does not wait for the disk unless it is told to; sqlitedict neither waits for it nor for
the commit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import diskcache
import sqlitedict

from benchmarks.peers.side import LocalSide, ThreadedSide
from benchmarks.workload import Value, one_more, stored_before


class DiskCache(ThreadedSide):
    name = "diskcache"
    threads = 4

    def __init__(self, path: str, *, fill: bool = True) -> None:
        super().__init__()
        self._cache = diskcache.Cache(
            path, eviction_policy="none", sqlite_synchronous=2, timeout=60, cull_limit=0
        )
        assert self._cache._sql("PRAGMA synchronous").fetchone() == (2,)
        if fill:
            self.put_many(stored_before())

    def get(self, key: str) -> Value:
        return self._cache[key]

    def put(self, key: str, value: Value) -> None:
        self._cache[key] = value

    put_new = put

    def create(self, key: str, value: Value) -> Value:
        while not self._cache.add(key, value):
            if (found := self._cache.get(key)) is not None:
                return found
        return value

    def update(self, key: str) -> Value:
        with self._cache.transact():
            value = self._cache[key] = one_more(self._cache[key])
        return value

    def get_many(self, keys: list[str]) -> dict[str, Value]:
        return {key: self._cache[key] for key in keys}

    def put_many(self, values: dict[str, Value]) -> None:
        with self._cache.transact():
            for key, value in values.items():
                self._cache[key] = value

    def close(self) -> None:
        # Each thread has a connection, which its end closes.
        super().close()
        self._cache.close()


class SqliteDict(LocalSide):
    name = "sqlitedict"

    def __init__(self, path: str, *, fill: bool = True) -> None:
        super().__init__()
        self._dict = sqlitedict.SqliteDict(
            path, journal_mode="WAL", encode=json.dumps, decode=json.loads
        )
        self._dict.conn.execute("PRAGMA synchronous = FULL")
        assert self._dict.conn.select_one("PRAGMA synchronous") == (2,)
        assert self._dict.conn.select_one("PRAGMA journal_mode") == ("wal",)
        if fill:
            self.put_many(stored_before())

    def promising(self, method: str) -> Callable[..., Future[Any]] | None:
        return None  # its one commit would be all threads'

    def get(self, key: str) -> Value:
        return self._dict[key]

    def put(self, key: str, value: Value) -> None:
        self._dict[key] = value
        self._dict.commit(blocking=True)

    put_new = put

    def get_many(self, keys: list[str]) -> dict[str, Value]:
        return {key: self._dict[key] for key in keys}

    def put_many(self, values: dict[str, Value]) -> None:
        self._dict.update(values)
        self._dict.commit(blocking=True)

    def close(self) -> None:
        self._dict.close()
