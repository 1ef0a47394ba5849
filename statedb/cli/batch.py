"""Batch: what a load writes at once, as a function of a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from statedb.cli.records import Claimed, Master, Object, Record, Value
from statedb.connection import Connection
from statedb.masterrows import release_all
from statedb.names import encode_and_hash, encode_name, name_hash
from statedb.stamps import new_stamp
from statedb.states import in_loads, write_rows
from statedb.values import encode_value

#: After how many lines, or characters of JSON, there is enough for one batch.
MOST_LINES, MOST_CHARACTERS = 4_000, 4 * 1024 * 1024
#: How many rows one statement is about at most: SQLite takes 999 parameters.
_AT_ONCE: Final = 128
#: How long its names are together: a server takes them as one packet, in hexadecimal.
_LONGEST_NAMES: Final = 1024 * 1024

_Row = dict[str, Any]


class Batch:
    """Lines of a dump that are to be written together.

    Of what is there twice the last is written, so each row is written once.
    """

    def __init__(self) -> None:
        self._lines = self._characters = 0
        self._object: bytes | None = None
        self._objects: dict[bytes, tuple[bytes, bytes]] = {}
        self._values: dict[tuple[bytes, bytes], tuple[bytes, str]] = {}
        self._masters: dict[bytes, tuple[bytes, Master]] = {}
        self._claims: dict[bytes, tuple[bytes, bytes, int]] = {}

    @property
    def is_full(self) -> bool:
        return self._lines >= MOST_LINES or self._characters >= MOST_CHARACTERS

    def add(self, record: Record) -> None:
        """Add what is legal; raises where a value is none."""
        self._lines += 1
        if isinstance(record, Value):
            self._add_value(record)
        elif isinstance(record, Object):
            names = (encode_name(record.name, "a name"), encode_name(record.class_name, "a class"))
            self._object = name_hash(*names)
            self._objects[self._object] = names
        elif isinstance(record, Master):
            encoded, digest = encode_and_hash(record.name, "a master's name")
            self._masters[digest] = (encoded, record)
        else:
            assert isinstance(record, Claimed)
            thing = (encode_name(record.kind, "a kind"), encode_name(record.name, "a name"))
            self._claims[name_hash(*thing)] = (*thing, record.token)

    def _add_value(self, record: Value) -> None:
        assert self._object is not None
        encoded, digest = encode_and_hash(record.name, "a value's name")
        text = encode_value(record.value, 0, record.name)
        self._values[self._object, digest] = (encoded, text)
        self._characters += len(text)

    def following(self) -> Batch:
        """The next one, for what follows the same object's line."""
        batch = Batch()
        batch._object = self._object
        batch._objects = {one: it for one, it in self._objects.items() if one == self._object}
        return batch

    def write(self, conn: Connection) -> None:
        """Write it, within a transaction. Masters are locked before claims, as everywhere."""
        self._write_objects(conn)
        for rows in _in_parts(self._rows_of_masters(conn), _length_of_names):
            sql, parameters = conn.sql.for_each("upsert_masters", _columns(rows))
            conn.execute(sql, parameters)
            names = {"name_hash": [row["name_hash"] for row in rows]}
            found = conn.fetch_all(*conn.sql.for_each("select_master_ids", names))
            release_all(conn, [row[0] for row in found])
        for rows in _in_parts(self._rows_of_claims(conn), _length_of_names):
            conn.execute(*conn.sql.for_each("upsert_claims", _columns(rows)))

    def _write_objects(self, conn: Connection) -> None:
        bind = conn.binary
        ids: dict[bytes, int] = {}
        for some in _in_parts(sorted(self._objects), lambda one: sum(map(len, self._objects[one]))):
            hashes = {"identity_hash": [bind(digest) for digest in some]}
            lock = conn.sql.for_each("lock_objects", hashes)
            ids.update((row[1], row[0]) for row in conn.fetch_all(*lock))
            while missing := [digest for digest in some if digest not in ids]:
                conn.execute(*conn.sql.for_each("insert_objects", self._columns(conn, missing)))
                # Ours, or a rival's; or nobody's once more, if it was deleted meanwhile.
                ids.update((row[1], row[0]) for row in conn.fetch_all(*lock))
        write_rows(
            conn,
            [
                {
                    "objectid": ids[identity],
                    "name_hash": bind(digest),
                    "name": bind(encoded),
                    "value": text,
                    "stamp": new_stamp(),
                }
                for (identity, digest), (encoded, text) in self._values.items()
            ],
        )

    def _columns(self, conn: Connection, digests: list[bytes]) -> dict[str, list[Any]]:
        bind = conn.binary
        return _columns(
            [
                {
                    "identity_hash": bind(digest),
                    "name": bind(self._objects[digest][0]),
                    "class_name": bind(self._objects[digest][1]),
                }
                for digest in digests
            ]
        )

    def _rows_of_masters(self, conn: Connection) -> list[_Row]:
        return [
            {
                "name_hash": conn.binary(digest),
                "incarnation": one.incarnation,
                "last_active": one.last_active,
                "expire_after": one.expire_after,
                "name": conn.binary(encoded),
            }
            for digest, (encoded, one) in sorted(self._masters.items())
        ]

    def _rows_of_claims(self, conn: Connection) -> list[_Row]:
        return [
            {
                "identity_hash": conn.binary(digest),
                "token": token,
                "kind": conn.binary(kind),
                "name": conn.binary(name),
            }
            for digest, (kind, name, token) in sorted(self._claims.items())
        ]


def _columns(rows: list[_Row]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def _length_of_names(row: _Row) -> int:
    return sum(len(row[one]) for one in ("kind", "name") if one in row)


def _in_parts(rows: Iterable[Any], length: Callable[[Any], int]) -> Iterator[list[Any]]:
    return in_loads(rows, length, _AT_ONCE, _LONGEST_NAMES)
