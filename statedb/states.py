"""States: operations on several values of an object at once, as functions of a connection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from statedb.connection import AnyConnection, Connection, adapt
from statedb.errors import InvalidTypeError
from statedb.link import Row
from statedb.names import check_id, decode_name, encode_and_hash, shown
from statedb.objects import no_such_object
from statedb.operation import operation
from statedb.staterows import row_of
from statedb.values import decode_value, encode_value

T = TypeVar("T")

#: Past this many names all values of the object are read and picked from: still one statement.
MAX_NAMES_IN_STATEMENT = 500
#: How many values are written in one statement at most, and how much of their JSON and names; but
#: one alone may have more.
MAX_ROWS_IN_STATEMENT, MAX_CHARACTERS = 256, 1024 * 1024


def _some_values(objectid: Any, values: Any) -> tuple[Any, tuple[Any, ...] | None]:
    return objectid, tuple(values)


def _named_values(objectid: Any, names: Any = None) -> tuple[Any, tuple[Any, ...] | None]:
    # What is no list or tuple may be an iterator, which can be read but once.
    return objectid, tuple(names) if isinstance(names, (list, tuple)) else None


@operation(reads=True, touches=_named_values)
def get_states(
    conn: AnyConnection, objectid: int, names: Iterable[str] | None = None
) -> dict[str, Any]:
    """The object's values by name: all, or those of ``names`` that exist. One statement."""
    conn = adapt(conn)
    wanted = None
    if names is not None:
        wanted = dict(encode_and_hash(name, "a value's name") for name in _several(conn, names))
    key = {"objectid": check_id(objectid, "an objectid")}
    if wanted is None or len(wanted) > MAX_NAMES_IN_STATEMENT:
        rows = conn.fetch_all(conn.sql["select_values"], key)
    else:
        rows = _rows_named(conn, key, sorted(wanted.values()))
    values = {}
    for encoded, text in rows:
        if wanted is None or encoded in wanted:
            name = decode_name(encoded)
            values[name] = decode_value(text, objectid, name)
    return values


def _rows_named(conn: Connection, key: dict[str, Any], digests: list[bytes]) -> Sequence[Row]:
    # Where nothing is asked for an empty hash finds nothing.
    hashes = [conn.binary(digest) for digest in digests or [b""]]
    sql, parameters = conn.sql.for_each("select_values_named", {"name_hash": hashes})
    return conn.fetch_all(sql, parameters | key)


@operation(repeatable=True, touches=_some_values, shares_commit=True)
def set_states(conn: AnyConnection, objectid: int, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write several values of an object, all or nothing; what was written.

    All of them are the caller's: one that a rival created meanwhile is overwritten. A server's rows
    are locked in one order, so that callers who share names wait for each other and no deadlock
    comes of it. Raises as set_state does, before anything is written.
    """
    conn = adapt(conn)
    if not isinstance(values, Mapping):
        raise InvalidTypeError(
            f"the values to set are a mapping of names to values, not {type(values).__name__}"
        )
    rows = {
        name: row_of(conn, objectid, name, encode_value(value, objectid, name))
        for name, value in values.items()
    }
    with conn.transaction():
        key = {"objectid": check_id(objectid, "an objectid")}
        if conn.fetch_one(conn.sql["lock_object"], key) is None:
            raise no_such_object(conn, objectid)
        write_rows(conn, list(rows.values()))
    return {name: decode_value(row["value"], objectid, name) for name, row in rows.items()}


def write_rows(conn: Connection, rows: list[dict[str, Any]]) -> None:
    """Write values of objects that are locked; no two of them are the same object's of one name."""
    if "upsert_values" not in conn.sql:
        # Of an engine in this process more than one row to a statement is no gain. It locks the
        # whole file, and stores side by side what comes one after the other.
        conn.execute_many(conn.sql["upsert_value"], rows)
        return
    rows = sorted(rows, key=lambda row: (row["objectid"], row["name_hash"]))
    for some in in_loads(rows, _length, MAX_ROWS_IN_STATEMENT, MAX_CHARACTERS):
        columns = {key: [row[key] for row in some] for key in some[0]}
        conn.execute(*conn.sql.for_each("upsert_values", columns))


def _length(row: dict[str, Any]) -> int:
    return len(row["value"]) + len(row["name"])


def in_loads(
    rows: Iterable[T], length: Callable[[T], int], most: int, longest: int
) -> Iterator[list[T]]:
    """The rows in lists, each of which is one statement's: so many at most, and so long together.

    One alone may be longer.
    """
    load: list[T] = []
    total = 0
    for row in rows:
        own = length(row)
        total += own
        if load and (len(load) == most or total > longest):
            yield load
            load, total = [], own
        load.append(row)
    if load:
        yield load


def _several(conn: Connection, names: Iterable[str]) -> Iterable[str]:
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise InvalidTypeError(
            f"the names to get are several str, not one {type(names).__name__}: {shown(names)}"
        )
    if isinstance(names, Collection):
        return names
    # An iterator can be read but once, and this may be a further try.
    # It is kept too: within a transaction another call's iterator would have its address.
    kept: list[str]
    _, kept = conn.memo.setdefault((get_states, id(names)), (names, list(names)))
    return kept
