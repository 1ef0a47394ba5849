"""Shared commits: several calls that write, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from statedb.connection import Connection
from statedb.operation import ALONE, Arguments

#: For how many seconds calls join a transaction that nobody else can write beside. Few values are
#: so large that it matters: 64 small ones take about a millisecond.
LONGEST: Final = 0.02


def commit_together(conn: Connection, calls: Sequence[Arguments]) -> list[Any]:
    """What several calls give, once all of it is committed; what fails harms no other."""
    # Mostly none fails. Where one does, all is undone, and done again with each call in a savepoint
    # of its own: two more statements, which together take as long as a call itself.
    try:
        with conn.transaction():
            return _each(_made, conn, calls)
    except Exception as error:
        # The file is locked, and has been for about as long as there was time to wait; or this
        # connection is given up.
        if conn.broken or (error is conn.error and conn.dialect.failure(error) is not None):
            raise
    with conn.transaction():
        return _each(_made_in_savepoint, conn, calls)


def _each(make: Any, conn: Connection, calls: Sequence[Arguments]) -> list[Any]:
    last = time.monotonic() + LONGEST
    return [make(conn, call) if time.monotonic() < last else ALONE for call in calls]


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
