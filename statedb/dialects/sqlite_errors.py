"""SQLite's errors: which of them say what."""

from __future__ import annotations

import sqlite3

from statedb.dialects import Failure

_BUSY, _LOCKED, _INTERRUPT = 5, 6, 9
_CONSTRAINT_UNIQUE, _CONSTRAINT_PRIMARYKEY = 2067, 1555
_BUSY_SNAPSHOT = 517


def _code(error: BaseException) -> int:
    """SQLite's extended result code; Python 3.10 keeps the message only."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        message = str(error)
        if message.startswith("database is locked"):
            code = _BUSY
        elif message.startswith("database table is locked"):
            code = _LOCKED
        elif message == "interrupted":
            code = _INTERRUPT
        elif message.startswith("UNIQUE constraint failed"):
            code = _CONSTRAINT_UNIQUE
    return code or 0


def failure(error: BaseException) -> Failure | None:
    if not isinstance(error, sqlite3.Error):
        return None
    code = _code(error)
    if code in (_BUSY_SNAPSHOT, _INTERRUPT):
        return Failure.CONFLICT
    return Failure.BUSY if code & 0xFF in (_BUSY, _LOCKED) else None


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection has the lock that a statement needs, which has done nothing."""
    code = _code(error)
    return code & 0xFF == _BUSY and code != _BUSY_SNAPSHOT


def is_unique_violation(error: BaseException) -> bool:
    return isinstance(error, sqlite3.IntegrityError) and _code(error) in (
        _CONSTRAINT_UNIQUE,
        _CONSTRAINT_PRIMARYKEY,
    )
