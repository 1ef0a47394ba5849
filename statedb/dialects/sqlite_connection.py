"""PatientConnection: a connection to a SQLite file that takes turns with the file's other writers.

SQLite's own way of waiting is to look again after ever longer sleeps, so whoever is busy writing is
served again and again, and another may wait for as long as that goes on. Here the connections of a
process queue for one turn; its holder looks again at short and random intervals whether another
process is done.
"""

from __future__ import annotations

import functools
import os
import random
import re
import sqlite3
import threading
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from statedb.dialects.sqlite_errors import is_busy
from statedb.dialects.sqlite_log import LIMIT, Log, has_reset_race
from statedb.dialects.turns import Turns, Writer

#: How long to wait at most, in seconds, before looking again for the first time, and at last; drawn
#: at random below that. Who looks more often than that slows down those who write.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.01
#: How the statements begin that begin a transaction, and those that end one.
_BEGINS = ("BEGIN", "SAVEPOINT")
_AT_ONCE = re.compile("IMMEDI|EXCLUS")
_ENDS = ("COMMIT", "END", "ROLLBACK", "RELEASE")
_READS = ("SELECT", "VALUES", "EXPLAIN")
#: What SQLite skips before a statement.
_SKIPPED = re.compile(r"(?:[\s;\ufeff]|--[^\n]*|/\*.*?\*/)*", re.DOTALL)


class _File:
    """What the connections of this process to one file share."""

    def __init__(self, path: str) -> None:
        self.turns = Turns()
        self.log = Log(path)


_files: weakref.WeakValueDictionary[Any, _File] = weakref.WeakValueDictionary()
_lock = threading.RLock()


def _file(path: str) -> _File:
    # By what it is, not by its name, of which it may have several.
    path = os.path.realpath(path)
    found = Path(path).stat()
    key = (found.st_dev, found.st_ino)
    with _lock:
        file = _files.get(key)
        if file is None:
            file = _files[key] = _File(path)
    return file


def _after_fork_in_child() -> None:
    # Those who wait there, and who has the turn, are not in this process.
    global _files, _lock
    _files, _lock = weakref.WeakValueDictionary(), threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)


class PatientConnection(sqlite3.Connection):
    """One in autocommit. Whoever writes has the turn: a statement, or from BEGIN to the end.

    For no lock does it wait longer than ``patience``, in seconds; then SQLite's own error is
    raised, having changed nothing.
    """

    def __init__(self, path: str, patience: float) -> None:
        super().__init__(path, timeout=0, isolation_level=None, check_same_thread=False)
        self.patience = patience
        self._file = _file(path)
        self._turns = self._file.turns
        self._writer = Writer()
        #: The log that is ours to keep short, if it is.
        self._log: Log | None = None
        # Whoever is collected in a transaction has left.
        weakref.finalize(self, self._turns.leave, self._writer).atexit = False

    def keep_log_short(self) -> None:
        """See to it that the log is begun anew in time, by no checkpoint that may lose commits."""
        if has_reset_race(sqlite3.sqlite_version_info):
            sqlite3.Cursor(self).execute("PRAGMA wal_autocheckpoint = 0")
            self._log = self._file.log
        sqlite3.Cursor(self).execute(f"PRAGMA journal_size_limit = {LIMIT}")

    def in_turn(self, cursor: sqlite3.Cursor, sql: str, parameters: Any) -> sqlite3.Cursor:
        """Have the driver run a statement that writes, or begins or ends a transaction."""
        until = time.monotonic() + self.patience
        try:
            if not self.in_transaction:
                self._take_turn(until)
            try:
                return _execute(cursor, sql, parameters)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            return self.when_free(cursor, sql, parameters, until)
        finally:
            self.leave_unless_within()

    def leave_unless_within(self) -> None:
        """Leave the turn where no transaction is open."""
        if not self.in_transaction:
            self._turns.leave(self._writer)

    def _take_turn(self, until: float) -> None:
        if not self._turns.take(self._writer, self.patience):
            raise sqlite3.OperationalError(
                "database is locked: another transaction of this process has the turn"
            )
        if self._log is not None and self._log.is_due():
            cursor = sqlite3.Cursor(self)
            self.when_free(cursor, "BEGIN IMMEDIATE", (), until)
            try:
                self._log.checkpoint()
            finally:
                cursor.execute("ROLLBACK")

    def when_free(
        self, cursor: sqlite3.Cursor, sql: str, parameters: Any, until: float | None = None
    ) -> sqlite3.Cursor:
        """Have the driver run a statement, again and again while it meets locks of others."""
        until = time.monotonic() + self.patience if until is None else until
        longest = FIRST_PAUSE
        while True:
            try:
                return _execute(cursor, sql, parameters)
            except sqlite3.OperationalError as error:
                if not is_busy(error) or not self._pause(longest, until):
                    raise
            longest = min(longest + FIRST_PAUSE, LONGEST_PAUSE)

    def _pause(self, longest: float, until: float) -> bool:
        """Wait before looking again; whether there is time to."""
        left = until - time.monotonic()
        if left <= 0:
            return False
        self._writer.doze_off()
        return not self._writer.rest(min(random.uniform(longest / 8, longest), left))

    def stop_waiting(self) -> None:
        """Have what it is waiting for raise at once, from another thread."""
        self._writer.wake()

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or PatientCursor)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        # The driver's own makes its cursor past our method.
        cursor: sqlite3.Cursor = self.cursor().execute(sql, parameters)
        return cursor

    # Nor do the driver's own of these come past our cursor.

    def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().executemany(sql, rows)
        return cursor

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().executescript(script)
        return cursor

    def commit(self) -> None:
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> Literal[False]:
        if kind is not None:
            self.rollback()
            return False
        try:
            self.commit()
        except BaseException:
            self.rollback()
            raise
        return False

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._turns.leave(self._writer)


_execute = sqlite3.Cursor.execute


class PatientCursor(sqlite3.Cursor):
    """A cursor that waits as its connection does."""

    connection: PatientConnection

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        kind, connection = _kind(_beginning(sql)), self.connection
        if kind == "ends" or (kind == "writes" and not connection.in_transaction):
            return connection.in_turn(self, sql, parameters)
        try:
            return _execute(self, sql, parameters)
        except BaseException as error:
            # Some failures end the transaction, and so the turn; of memory's end Python's error is.
            connection.leave_unless_within()
            if not isinstance(error, sqlite3.Error) or not is_busy(error):
                raise
        return connection.when_free(self, sql, parameters)

    def executemany(self, sql: str, rows: Any, /) -> PatientCursor:
        if self.connection.in_transaction:
            try:
                super().executemany(sql, rows)
            finally:
                self.connection.leave_unless_within()
        else:
            for row in rows:
                self.execute(sql, row)
        return self

    def executescript(self, script: str, /) -> PatientCursor:
        self.connection.commit()
        statement = ""
        for part in script.split(";"):
            statement += part + ";"
            # One that is in a string or a comment, or in a trigger, ends nothing.
            if sqlite3.complete_statement(statement):
                self.execute(statement)
                statement = ""
        # What is left was not ended.
        self.execute(statement.removesuffix(";"))
        return self


def _beginning(sql: str) -> str:
    """As much of a statement as tells its kind."""
    beginning = sql[:20]
    if not beginning[:1].isalpha():
        start = _SKIPPED.match(sql)
        assert start is not None
        beginning = sql[start.end() :][:20]
    return beginning


@functools.lru_cache(maxsize=512)
def _kind(beginning: str) -> Literal["reads", "defers", "writes", "ends"]:
    """What a statement has to do with turns: it needs one if it writes, or may end one."""
    beginning = beginning.upper()
    if beginning.startswith(_READS):
        return "reads"
    if beginning.startswith(_ENDS):
        return "ends"
    if beginning.startswith(_BEGINS) and not _AT_ONCE.search(beginning):
        # It takes no lock before its transaction needs one.
        return "defers"
    return "writes"
