"""Shared commits: several calls that write, in one transaction, each in a savepoint of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from statedb.connection import Connection
from statedb.operation import ALONE, Arguments


def commit_together(conn: Connection, calls: Sequence[Arguments]) -> list[Any]:
    """What several calls give, once all of it is committed; what fails harms no other."""
    with conn.transaction():
        return [_in_savepoint(conn, call) for call in calls]


def _in_savepoint(conn: Connection, call: Arguments) -> Any:
    conn.memo = {}
    try:
        with conn.transaction():
            return call.function(conn, *call.args, **call.kwargs)
    except Exception as error:
        # Of the engine's failures a call that is made alone can tell more, and may try again.
        return ALONE if error is conn.error else error
