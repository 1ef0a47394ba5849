"""Pages: all that the tables hold, some rows at a time, as functions of a connection.

Each page begins after the key of the last row of the one before. They are to be read within a
snapshot: then they are all of one moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from statedb.connection import Connection
from statedb.link import Row
from statedb.names import decode_name
from statedb.objects import ObjectModel, get_objects
from statedb.resultspec import Filter, ResultSpec

#: How many rows are in a page at most.
ROWS: Final = 500
#: A longer value, in characters of JSON, is read by itself: a page of the longest would be 2 GiB.
LONGEST: Final = 32 * 1024


class StoredValue(NamedTuple):
    """A value as it is stored: its JSON, unless somebody else has written it."""

    objectid: int
    name: str
    text: str | bytes


class Standing(NamedTuple):
    """A master, and how things stand with it. Times are in microseconds."""

    id: int
    name: str
    active: bool
    last_active: int
    expire_after: int | None
    incarnation: int
    #: For how long it has not been seen, by the database's clock.
    silence: int


class Token(NamedTuple):
    """The last token of a thing, held or not."""

    kind: str
    name: str
    token: int


def pages_of_objects(conn: Connection, *filters: Filter) -> Iterator[list[ObjectModel]]:
    """Objects by their ids."""
    last = 0
    while True:
        more = [*filters, Filter("id", "gt", [last])]
        page = get_objects(conn, ResultSpec(more, limit=ROWS))
        if page:
            yield page
            last = page[-1].id
        if len(page) < ROWS:
            return


def pages_of_values(conn: Connection, objectid: int = 0) -> Iterator[list[StoredValue]]:
    """The values of all objects from this one on, by object and the hashes of their names."""
    key: dict[str, Any] = {"objectid": objectid, "name_hash": conn.binary(b"")}
    for rows in _pages(conn, "select_page_of_values", key, {"longest": LONGEST}):
        yield [StoredValue(row[0], decode_name(row[2]), _text(conn, row)) for row in rows]


def _text(conn: Connection, row: Row) -> str | bytes:
    text: str | bytes | None = row[3]
    if text is None:
        key = {"objectid": row[0], "name_hash": conn.binary(row[1])}
        ((text,),) = conn.fetch_all(conn.sql["select_value"], key)
    return text


def pages_of_masters(conn: Connection) -> Iterator[list[Standing]]:
    """Masters by the hashes of their names."""
    for rows in _pages(conn, "select_standings", {"name_hash": conn.binary(b"")}):
        yield [
            Standing(row[1], decode_name(row[2]), bool(row[3]), *map(_int, row[4:]))  # type: ignore[arg-type]
            for row in rows
        ]


def _int(number: Any) -> int | None:
    # What MySQL has subtracted may come as a Decimal.
    return None if number is None else int(number)


def pages_of_tokens(conn: Connection) -> Iterator[list[Token]]:
    """The things that were ever claimed, by the hashes of their kinds and names."""
    for rows in _pages(conn, "select_tokens", {"identity_hash": conn.binary(b"")}):
        yield [Token(decode_name(row[1]), decode_name(row[2]), row[3]) for row in rows]


def _pages(
    conn: Connection, statement: str, key: dict[str, Any], others: dict[str, Any] | None = None
) -> Iterator[list[Row]]:
    """The pages of a statement whose first columns are the key after which it begins."""
    sql = conn.sql[statement]
    while True:
        rows = list(conn.fetch_all(sql, {**key, **(others or {}), "count": ROWS}))
        if rows:
            yield rows
            last = zip(key, rows[-1], strict=False)
            key = {
                name: conn.binary(value) if isinstance(value, bytes) else value
                for name, value in last
            }
        if len(rows) < ROWS:
            return
