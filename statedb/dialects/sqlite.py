"""SQLite, through the standard library's sqlite3."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statedb.dialects import Dialect, Transaction, statements
from statedb.dialects.sqlite_connection import PatientConnection, PatientCursor
from statedb.dialects.sqlite_errors import failure, is_unique_violation, remedy, spoils
from statedb.errors import InvalidURLError
from statedb.sqlfiles import named_parameters, shipped

_FORMS = "sqlite:///relative.db, sqlite:////absolute.db or sqlite:// (memory)"
#: What a file's URL may ask for; the first is what it gets unless it does.
_SETTINGS = {
    "journal_mode": ("wal", "delete", "truncate"),
    "synchronous": ("full", "normal", "extra"),
}
#: With a rollback journal, a writer that waits for readers holds new ones off, but only while it
#: waits within SQLite. So there it waits for a little, and for readers that is long.
_WAIT_WITHIN = 2


@dataclass(frozen=True)
class SQLiteTarget:
    """A database file, or None for one in memory, and how to keep it."""

    path: str | None
    journal_mode: str = "wal"
    synchronous: str = "full"

    def __str__(self) -> str:
        if self.path is None:
            return "sqlite://"
        asked = [
            f"{name}={value}"
            for name, (usual, *_) in _SETTINGS.items()
            if (value := getattr(self, name)) != usual
        ]
        return f"sqlite:///{self.path}{'?' * bool(asked)}{'&'.join(asked)}"


def parse(url: str) -> SQLiteTarget:
    rest = url.partition("://")[2]
    path, question, query = rest.partition("?")
    if path and not path.startswith("/"):
        raise InvalidURLError(
            f"a SQLite URL names no host, so it has three slashes or four: {_FORMS}"
        )
    if path == "/":
        raise InvalidURLError(f"a SQLite URL with three slashes names a file: {_FORMS}")
    path = urllib.parse.unquote(path[1:])
    if "\0" in path:
        raise InvalidURLError("the path in a SQLite URL holds a NUL")
    if path in ("", ":memory:"):
        if question:
            raise InvalidURLError("the URL of a SQLite database in memory takes no parameters")
        return SQLiteTarget(None)
    # Absolute from here on: a later chdir must not lead a later connection to another file.
    return SQLiteTarget(str(Path(path).absolute()), **_settings(query if question else None))


def _settings(query: str | None) -> dict[str, str]:
    settings: dict[str, str] = {}
    for part in () if query is None else query.split("&"):
        name, _, value = part.partition("=")
        if name in settings or value not in _SETTINGS.get(name, ()):
            legal = " and ".join(f"{one}={'|'.join(many)}" for one, many in _SETTINGS.items())
            raise InvalidURLError(f"a SQLite URL takes these parameters, each once: {legal}")
        settings[name] = value
    return settings


def connect(target: SQLiteTarget, timeout: float) -> sqlite3.Connection:
    if target.path is None:
        raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        raw.execute("PRAGMA synchronous = FULL")
        return raw
    deadline = time.monotonic() + timeout
    patient = PatientConnection(target.path, timeout)
    try:
        cursor = sqlite3.Cursor(patient)
        while not _is_in_mode(cursor, target.journal_mode, give_up=time.monotonic() > deadline):
            time.sleep(0.005)
        cursor.execute(f"PRAGMA synchronous = {target.synchronous}")
        if target.journal_mode == "wal":
            patient.keep_log_short()
        else:
            cursor.execute(f"PRAGMA busy_timeout = {_WAIT_WITHIN}").fetchall()
    except BaseException:
        patient.close()
        raise
    return patient


def _is_in_mode(cursor: sqlite3.Cursor, mode: str, *, give_up: bool) -> bool:
    # Two connections that switch at once see "database is locked" without waiting, whatever the
    # busy timeout says; that it is WAL or not is kept in the file, so the loser finds it switched.
    try:
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] != mode:
            cursor.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    except sqlite3.OperationalError as error:
        if give_up or failure(error) is None:
            raise
        return False
    return True


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


def cursor(raw: sqlite3.Connection) -> sqlite3.Cursor:
    # An application's own factory of cursors may give what it likes.
    return PatientCursor(raw) if isinstance(raw, PatientConnection) else sqlite3.Cursor(raw)


def query(cursor: sqlite3.Cursor) -> Callable[..., Any]:
    # In a write-ahead log a query meets no locks, but for a moment when the last writer leaves.
    execute: Callable[..., Any] = sqlite3.Cursor.execute.__get__(cursor)
    return execute


def cut(raw: sqlite3.Connection) -> None:
    raw.interrupt()
    if isinstance(raw, PatientConnection):
        raw.stop_waiting()


def limit_lock_wait(raw: sqlite3.Connection, seconds: float) -> None:
    # In memory there is nobody else to wait for.
    if isinstance(raw, PatientConnection):
        raw.patience = seconds


def _is_there(target: SQLiteTarget) -> bool:
    """Whether statedb has tables there; nothing is written by looking."""
    if target.path is None:
        return True
    try:
        with contextlib.closing(sqlite3.connect(_read_only(target.path), uri=True)) as raw:
            return bool(raw.execute(statements(DIALECT)["find_tables"]).fetchall())
    except sqlite3.Error:
        return Path(target.path).exists()  # what is wrong with it is told by who opens it


def _read_only(path: str) -> str:
    return f"file:{urllib.parse.quote(path)}?mode=ro"


def new_id(cursor: sqlite3.Cursor) -> int | None:
    return cursor.lastrowid if cursor.rowcount == 1 else None


DIALECT = Dialect(
    name="sqlite",
    schemes=("sqlite",),
    driver="sqlite3",
    sql=(shipped("common"), shipped("sqlite")),
    parse=parse,
    connect=connect,
    cursor=cursor,
    query=query,
    failure=failure,
    is_unique_violation=is_unique_violation,
    transaction=transaction,
    begin_implicit=begin_implicit,
    why_unusable=lambda raw: None,
    death_check=None,
    cut=cut,
    limit_lock_wait=limit_lock_wait,
    new_id=new_id,
    # It counts days, as a float, and knows milliseconds; unixepoch('subsec') is too new.
    now="CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000",
    to_driver=named_parameters,
    begin="BEGIN IMMEDIATE",
    # A deferred one has no moment before it reads, and this waits where a reader has to.
    begin_snapshot=("BEGIN", "PRAGMA schema_version"),
    creates_schema=True,
    is_there=_is_there,
    shares_commits=True,
    close_before_fork=True,
    in_memory=lambda target: target.path is None,
    remedy=remedy,
    spoils=spoils,
)
