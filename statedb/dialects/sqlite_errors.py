"""SQLite's errors: which of them say what."""

from __future__ import annotations

import sqlite3

from statedb.dialects import Failure, remedies

_BUSY, _LOCKED, _INTERRUPT = 5, 6, 9
_READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 8, 10, 11, 13, 14, 26
_CONSTRAINT_UNIQUE, _CONSTRAINT_PRIMARYKEY = 2067, 1555
_BUSY_SNAPSHOT = 517
_BY_MESSAGE = {
    "database is locked": _BUSY,
    "database table is locked": _LOCKED,
    "interrupted": _INTERRUPT,
    "UNIQUE constraint failed": _CONSTRAINT_UNIQUE,
    "attempt to write a readonly database": _READONLY,
    "disk I/O error": _IOERR,
    "database disk image is malformed": _CORRUPT,
    "database or disk is full": _FULL,
    "unable to open database file": _CANTOPEN,
    "file is not a database": _NOTADB,
}


def _code(error: BaseException) -> int:
    """SQLite's extended result code; Python 3.10 keeps the message only."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        message = str(error)
        return next((code for text, code in _BY_MESSAGE.items() if message.startswith(text)), 0)
    return int(code)


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


def remedy(error: BaseException) -> str | None:
    if not isinstance(error, sqlite3.Error):
        return None
    if str(error).startswith("no such table: statedb_"):
        return remedies.TABLE
    return remedies.SQLITE.get(_code(error) & 0xFF)


def spoils(error: BaseException) -> bool:
    """Whether it comes of how the file was when it was opened, or of which file that was."""
    return isinstance(error, sqlite3.Error) and _code(error) & 0xFF in (
        _READONLY,
        _CORRUPT,
        _NOTADB,
    )
