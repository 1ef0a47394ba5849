"""The bare driver, on statedb's own connection and tables: what a careful user of it would write.

Between statedb's calls the connection of a Database with one is idle, and so can be another's. Two
connections that look alike would differ by up to four times with the cores that they are put on.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from hashlib import sha256
from typing import Any

from benchmarks.peers.ours import Ours
from benchmarks.peers.side import LocalSide
from benchmarks.workload import CLASS, Value, one_more, stored_before

SELECT = "SELECT value FROM statedb_states WHERE objectid = {objectid} AND name_hash = {hash}"
SELECT_STAMP = SELECT.replace("SELECT value", "SELECT value, stamp")
SELECT_MANY = (
    "SELECT name, value FROM statedb_states WHERE objectid = {objectid} AND name_hash IN ({hashes})"
)
UPDATE = (
    "UPDATE statedb_states SET value = {value}, stamp = {stamp}"
    " WHERE objectid = {objectid} AND name_hash = {hash}"
)
UPDATE_STAMPED = UPDATE + " AND stamp = {expected}"
INSERT = (
    "INSERT INTO statedb_states (objectid, name_hash, stamp, name, value)"
    " VALUES ({objectid}, {hash}, {stamp}, {name}, {value})"
)
INSERT_OBJECT = (
    "INSERT INTO statedb_objects (identity_hash, name, class_name) VALUES ({hash}, {name}, {class})"
)
OVERWRITE = (
    " ON CONFLICT (objectid, name_hash)"
    " DO UPDATE SET value = excluded.value, stamp = excluded.stamp"
)
OVERWRITE_MYSQL = " ON DUPLICATE KEY UPDATE value = VALUES(value), stamp = VALUES(stamp)"


class _Hashes(dict[str, bytes]):
    """The hash of each name: a user would do without them, and so they are made once."""

    def __missing__(self, name: str) -> bytes:
        digest = self[name] = sha256(name.encode()).digest()
        return digest


class Bare(LocalSide):
    name = "bare driver"

    def __init__(self, engine: str, ours: Ours) -> None:
        super().__init__()
        self._engine = engine
        # Other rows of the same tables, or the one would find what the other has done.
        self._objectid = ours.db.state.thdGetObjectId("bare", CLASS)
        ours.db.state.thdSetStates(self._objectid, stored_before())
        raw = ours.db.run(lambda conn: conn.raw)
        # The cursors that statedb's connection to a file makes see to locks before the driver does.
        self._cursor = sqlite3.Cursor(raw) if engine == "sqlite" else raw.cursor()
        self._hashes = _Hashes()
        # A new one each time, or a server would find nothing to change, and write nothing.
        self._stamps = itertools.count(1)
        overwrite = OVERWRITE_MYSQL if engine == "mariadb" else OVERWRITE
        self._select = self._sql(SELECT)
        self._select_stamp = self._sql(SELECT_STAMP)
        self._update = self._sql(UPDATE)
        self._update_stamped = self._sql(UPDATE_STAMPED)
        self._insert = self._sql(INSERT)
        self._upsert = self._sql(INSERT + overwrite)
        returning = " RETURNING id" if engine == "postgresql" else ""
        self._insert_object = self._sql(INSERT_OBJECT + returning)

    def _sql(self, text: str, **more: str) -> str:
        """A statement with parameters by name, as this driver writes them."""
        form = ":{}" if self._engine == "sqlite" else "%({})s"
        names = ("objectid", "hash", "stamp", "expected", "name", "class", "value")
        return text.format(**{name: form.format(name) for name in names}, **more)

    def promising(self, method: str) -> Callable[..., Future[Any]] | None:
        return None

    def get(self, key: str) -> Value:
        self._cursor.execute(self._select, {"objectid": self._objectid, "hash": self._hashes[key]})
        return json.loads(self._cursor.fetchone()[0])

    def put(self, key: str, value: Value) -> None:
        self._cursor.execute(self._update, self._row(key, value))
        assert self._cursor.rowcount == 1

    def put_new(self, key: str, value: Value) -> None:
        self._cursor.execute(self._upsert, self._row(key, value))

    def object_id(self, name: str) -> Any:
        row = {"hash": self._hashes[name], "name": name.encode(), "class": CLASS.encode()}
        self._cursor.execute(self._insert_object, row)
        if self._engine == "postgresql":
            return self._cursor.fetchone()[0]
        return self._cursor.lastrowid

    def create(self, key: str, value: Value) -> Value:
        # If the key were there, a user would read it now; here none is.
        self._cursor.execute(self._insert, self._row(key, value))
        return value

    def update(self, key: str) -> Value:
        found = {"objectid": self._objectid, "hash": self._hashes[key]}
        while True:
            self._cursor.execute(self._select_stamp, found)
            text, stamp = self._cursor.fetchone()
            value = one_more(json.loads(text))
            row = {"value": json.dumps(value), "stamp": next(self._stamps), "expected": stamp}
            self._cursor.execute(self._update_stamped, found | row)
            if self._cursor.rowcount == 1:
                return value

    def get_many(self, keys: list[str]) -> dict[str, Value]:
        names = {f"hash{number}": self._hashes[key] for number, key in enumerate(keys)}
        form = ":{}" if self._engine == "sqlite" else "%({})s"
        hashes = ", ".join(form.format(name) for name in names)
        found = {"objectid": self._objectid, **names}
        self._cursor.execute(self._sql(SELECT_MANY, hashes=hashes), found)
        return {bytes(name).decode(): json.loads(value) for name, value in self._cursor.fetchall()}

    def put_many(self, values: dict[str, Value]) -> None:
        self._transaction(self._row(key, value) for key, value in values.items())

    def _transaction(self, rows: Iterable[dict[str, Any]]) -> None:
        self._cursor.execute("BEGIN")
        self._cursor.executemany(self._upsert, list(rows))
        self._cursor.execute("COMMIT")

    def _row(self, key: str, value: Value) -> dict[str, Any]:
        return {
            "objectid": self._objectid,
            "hash": self._hashes[key],
            "stamp": next(self._stamps),
            "name": key.encode(),
            "value": json.dumps(value),
        }

    def close(self) -> None:
        self._cursor.close()
