"""Shared commits: several calls that write, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from statedb.connection import Connection
from statedb.operation import ALONE, Arguments


def commit_together(conn: Connection, calls: Sequence[Arguments]) -> list[Any]:
    """What several calls give, once all of it is committed; what fails harms no other."""
    # Mostly none fails. Where one does, all is undone, and done again with each call in a savepoint
    # of its own: two more statements, which together take as long as a call itself.
    try:
        with conn.transaction():
            return [_made(conn, call) for call in calls]
    except Exception as error:
        # The file is locked, and has been for about as long as there was time to wait.
        if error is conn.error and conn.dialect.failure(error) is not None:
            raise
    with conn.transaction():
        return [_made_in_savepoint(conn, call) for call in calls]


def _made(conn: Connection, call: Arguments) -> Any:
    conn.memo = {}
    return call.function(conn, *call.args, **call.kwargs)


def _made_in_savepoint(conn: Connection, call: Arguments) -> Any:
    try:
        with conn.transaction():
            return _made(conn, call)
    except Exception as error:
        # Of the engine's failures a call that is made alone can tell more, and may try again.
        return ALONE if error is conn.error else error
