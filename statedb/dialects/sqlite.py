"""SQLite, through the standard library's sqlite3."""

from __future__ import annotations

import sqlite3
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from statedb.dialects import Dialect, Failure, Transaction
from statedb.errors import InvalidURLError
from statedb.sqlfiles import named_parameters, shipped

_FORMS = "sqlite:///relative.db, sqlite:////absolute.db or sqlite:// (memory)"


@dataclass(frozen=True)
class SQLiteTarget:
    """A database file, or None for one in memory."""

    path: str | None

    def __str__(self) -> str:
        return "sqlite://" if self.path is None else f"sqlite:///{self.path}"


def parse(url: str) -> SQLiteTarget:
    rest = url.partition("://")[2]
    path, question, _ = rest.partition("?")
    if question:
        raise InvalidURLError(f"a SQLite URL takes no parameters after '?': {_FORMS}")
    if path and not path.startswith("/"):
        raise InvalidURLError(
            f"a SQLite URL names no host, so it has three slashes or four: {_FORMS}"
        )
    path = urllib.parse.unquote(path[1:])
    if "\0" in path:
        raise InvalidURLError("the path in a SQLite URL holds a NUL")
    # Absolute from here on: a later chdir must not lead a later connection to another file.
    absolute = None if path in ("", ":memory:") else str(Path(path).absolute())
    return SQLiteTarget(absolute)


def connect(target: SQLiteTarget, timeout: float) -> sqlite3.Connection:
    deadline = time.monotonic() + timeout
    path = ":memory:" if target.path is None else target.path
    raw = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        if target.path is not None:
            _use_write_ahead_log(raw, deadline)
        raw.execute("PRAGMA synchronous = FULL")
    except BaseException:
        raw.close()
        raise
    return raw


def _use_write_ahead_log(raw: sqlite3.Connection, deadline: float) -> None:
    # Two connections that switch at once see "database is locked" without waiting, whatever the
    # busy timeout says; the mode is kept in the file, so the loser finds it switched.
    while not _is_write_ahead_log(raw, give_up=time.monotonic() > deadline):
        time.sleep(0.005)


def _is_write_ahead_log(raw: sqlite3.Connection, *, give_up: bool) -> bool:
    try:
        if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raw.execute("PRAGMA journal_mode = WAL").fetchall()
    except sqlite3.OperationalError as error:
        if give_up or failure(error) is None:
            raise
        return False
    return True


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


def is_unique_violation(error: BaseException) -> bool:
    return isinstance(error, sqlite3.IntegrityError) and _code(error) in (
        _CONSTRAINT_UNIQUE,
        _CONSTRAINT_PRIMARYKEY,
    )


def transaction(raw: sqlite3.Connection) -> Transaction:
    if raw.in_transaction:
        return Transaction.OPEN
    # Up to Python 3.11 a connection has no `autocommit`; from 3.12 on, True means SQLite's own.
    if raw.isolation_level is None or getattr(raw, "autocommit", None) is True:
        return Transaction.AUTOCOMMIT
    return Transaction.IMPLICIT


def begin_implicit(raw: sqlite3.Connection, cursor: sqlite3.Cursor) -> None:
    # The driver's own BEGIN is deferred. What follows writes, and a deferred transaction that has
    # read cannot become a writing one when another writer was faster: so it begins as a writer.
    kind = raw.isolation_level
    cursor.execute("BEGIN EXCLUSIVE" if kind == "EXCLUSIVE" else "BEGIN IMMEDIATE")


def limit_lock_wait(raw: sqlite3.Connection, seconds: float) -> None:
    raw.execute(f"PRAGMA busy_timeout = {max(1, int(seconds * 1000))}")


def new_id(cursor: sqlite3.Cursor) -> int | None:
    return cursor.lastrowid if cursor.rowcount == 1 else None


DIALECT = Dialect(
    name="sqlite",
    schemes=("sqlite",),
    driver="sqlite3",
    sql=(shipped("common"), shipped("sqlite")),
    parse=parse,
    connect=connect,
    cursor=sqlite3.Cursor,
    failure=failure,
    is_unique_violation=is_unique_violation,
    transaction=transaction,
    begin_implicit=begin_implicit,
    why_unusable=lambda raw: None,
    death_check=None,
    cut=sqlite3.Connection.interrupt,
    limit_lock_wait=limit_lock_wait,
    new_id=new_id,
    # It counts days, as a float, and knows milliseconds; unixepoch('subsec') is too new.
    now="CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000",
    to_driver=named_parameters,
    begin="BEGIN IMMEDIATE",
    creates_schema=True,
    shares_commits=True,
    close_before_fork=True,
    in_memory=lambda target: target.path is None,
)
