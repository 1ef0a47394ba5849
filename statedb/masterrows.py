"""MasterModel, and the rows that it is read from; several of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from statedb.connection import Connection
from statedb.link import Row
from statedb.names import decode_name
from statedb.times import from_microseconds

#: How many masters one statement is about at most.
AT_ONCE = 256


@dataclass(frozen=True)
class MasterModel:
    """A master; ``last_active`` is an aware datetime, in UTC, by the database's clock."""

    id: int
    name: str
    active: bool
    last_active: datetime


def model_of(row: Sequence[Any]) -> MasterModel:
    """The model of a row of id, name, active and last_active."""
    return MasterModel(row[0], decode_name(row[1]), bool(row[2]), from_microseconds(row[3]))


def rows_of_masters(
    conn: Connection, statement: str, masterids: list[int], others: Mapping[str, Any]
) -> Iterator[Row]:
    """The rows of a query that is about several masters."""
    for some in in_parts(masterids):
        sql, parameters = conn.sql.for_each(statement, {"masterid": some})
        yield from conn.fetch_all(sql, {**parameters, **others})


def change_masters(
    conn: Connection, statement: str, masterids: list[int], others: Mapping[str, Any]
) -> None:
    """Run a statement that writes, about several masters."""
    for some in in_parts(masterids):
        sql, parameters = conn.sql.for_each(statement, {"masterid": some})
        conn.execute(sql, {**parameters, **others})


def in_parts(masterids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(masterids), AT_ONCE):
        yield masterids[start : start + AT_ONCE]


def release_all(conn: Connection, masterids: list[int]) -> None:
    """Release all that these masters hold; their rows are locked, so they claim nothing more."""
    change_masters(conn, "update_claims_released", masterids, {})
