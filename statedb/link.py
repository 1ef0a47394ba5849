"""Link: statements to one driver connection, the rows of their answers, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from statedb import dialects
from statedb.dialects import Dialect, Failure, Transaction
from statedb.errors import DatabaseError, UnusableConnectionError
from statedb.sqlfiles import Statements

Row = tuple[Any, ...]
Parameters = Mapping[str, Any] | Sequence[Any]
#: Why nothing more can be done in a transaction, after a failure in it.
ENDED = (
    "an earlier statement's failure ended this transaction: nothing of it is committed, and"
    " nothing more can be done in it"
)
#: The statement that a server has where what is committed may not be lasting yet.
_SETTLING = "select_message_logged"
#: In a call's memo: the sessions of its tries whose answers were lost.
_LOST = "lost sessions"
_READS = ("SELECT", "select", "SHOW")


def _never() -> bool:
    return False


def only_read() -> UnusableConnectionError:
    return UnusableConnectionError("nothing can be written within a snapshot, which only reads")


class Link:
    """A driver's connection and its cursor; nothing else touches a driver's cursor.

    Statements are SQL in the driver's own parameter style.
    """

    __slots__ = (
        "_cursor",
        "_query",
        "binary",
        "broken",
        "committed",
        "cutting",
        "deadline",
        "depth",
        "dialect",
        "doomed",
        "error",
        "in_doubt",
        "is_dead",
        "known",
        "lock_wait",
        "memo",
        "owned",
        "raw",
        "reads_only",
        "session",
        "sql",
        "statement_timeout",
    )

    def __init__(self, raw: Any, dialect: Dialect, *, known: dict[Any, Any] | None = None) -> None:
        self.dialect = dialect
        #: The driver's connection.
        self.raw = raw
        #: The dialect's statements by name.
        self.sql: Statements = dialects.statements(dialect)
        #: What the driver wants for bytes.
        self.binary = dialect.binary
        #: Whether statedb opened it, and so knows its settings and state.
        self.owned = known is not None
        #: What operations remember of committed facts, shared by all connections of a Database.
        self.known: dict[Any, Any] = {} if known is None else known
        #: What one call carries from one try to the next.
        self.memo: dict[Any, Any] = {}
        #: When, on the monotonic clock, whoever watches shall cut it; and that it is being cut.
        self.deadline: float | None = None
        self.cutting = False
        #: Where each statement has its own deadline, that many seconds from its start.
        self.statement_timeout: float | None = None
        #: Not to be used again.
        self.broken = False
        #: The answer to a statement that may have been committed was lost.
        self.in_doubt = False
        #: Something was committed since the call began.
        self.committed = False
        #: The driver's error that the last failed statement raised.
        self.error: Exception | None = None
        #: The name of its session, by which another connection could end it.
        self.session = dialect.session(raw) if self.owned else None
        #: For how many seconds a statement may wait for a lock.
        self.lock_wait = 0.0
        #: Whether it has lost its server while it was idle; there may be no server.
        check = dialect.death_check if self.owned else None
        self.is_dead = _never if check is None else check(raw)
        self._cursor = dialect.cursor(raw)
        self._query = dialect.query(self._cursor)
        #: Within how many blocks it is.
        self.depth = 0
        #: Why no more can be done in the transaction that is open, if it cannot.
        self.doomed: str | None = None
        #: It is within a snapshot.
        self.reads_only = False

    @property
    def in_transaction(self) -> bool:
        """Whether what is written now becomes permanent only by a later commit."""
        if self.owned:
            return self.depth > 0
        return self.dialect.transaction(self.raw) is not Transaction.AUTOCOMMIT

    def execute(self, sql: str, parameters: Parameters | None = None) -> int:
        """Run a statement that writes; how many rows it changed."""
        if self.reads_only:
            raise only_read()
        self.send(sql, parameters, commits=not self.depth)
        rows: int = self._cursor.rowcount
        return rows

    def insert(self, sql: str, parameters: Parameters | None = None) -> bool:
        """Run an INSERT of one row; whether there is a new one, False where its key was taken."""
        try:
            return self.execute(sql, parameters) > 0
        except Exception as error:
            if self.dialect.is_unique_violation(error):
                return False
            raise

    def new_id(self) -> int | None:
        """The id that the INSERT just run gave its row, or None where it added none."""
        return self.dialect.new_id(self._cursor)

    def execute_many(self, sql: str, rows: Sequence[Parameters]) -> None:
        """Run a statement that writes once for each of the rows."""
        if self.reads_only:
            raise only_read()
        self.send(sql, rows, commits=not self.depth, many=True)

    def fetch_all(self, sql: str, parameters: Parameters | None = None) -> Sequence[Row]:
        """All rows of a query. One that begins with SELECT is taken to write nothing."""
        commits = not self.depth and not sql.startswith(_READS)
        if self.doomed is not None or self.statement_timeout is not None:
            self._begin_statement()
        try:
            execute = self._cursor.execute if commits else self._query
            if parameters is None:
                execute(sql)
            else:
                execute(sql, parameters)
            # All at once: SQLite keeps its read lock until a query has come to its end.
            rows: Sequence[Row] = self._cursor.fetchall()
        except BaseException as error:
            if commits or not self._has_met_lock(error):
                self._failed(error, commits)
                raise
            rows = self._fetch_when_free(sql, parameters)
        if commits:
            self.committed = True
        if self.statement_timeout is not None:
            self.deadline = None
        return rows

    def _has_met_lock(self, error: BaseException) -> bool:
        """Whether a query can be asked again, now waiting for who has locked what it reads."""
        return self.owned and not self.depth and self.dialect.failure(error) is Failure.BUSY

    def _fetch_when_free(self, sql: str, parameters: Any) -> Sequence[Row]:
        try:
            self._cursor.execute(sql, () if parameters is None else parameters)
            rows: Sequence[Row] = self._cursor.fetchall()
        except BaseException as error:
            self._failed(error, commits=False)
            raise
        return rows

    def fetch_one(self, sql: str, parameters: Parameters | None = None) -> Row | None:
        """The first row of a query, or None."""
        rows = self.fetch_all(sql, parameters)
        return rows[0] if rows else None

    def send(self, sql: str, parameters: Any = None, *, commits: bool, many: bool = False) -> None:
        """Run a statement whose rows are of no interest; one that ``commits`` is done for good."""
        if self.doomed is not None or self.statement_timeout is not None:
            self._begin_statement()
        try:
            if many:
                self._cursor.executemany(sql, parameters)
            elif parameters is None:
                self._cursor.execute(sql)
            else:
                self._cursor.execute(sql, parameters)
        except BaseException as error:
            # Of many, those before the one that failed stay: something may have been done.
            self.committed = self.committed or (many and commits)
            self._failed(error, commits)
            raise
        if commits:
            self.committed = True
        if self.statement_timeout is not None:
            self.deadline = None

    def _begin_statement(self) -> None:
        if self.doomed is not None:
            raise DatabaseError(self.doomed)
        assert self.statement_timeout is not None
        self.deadline = time.monotonic() + self.statement_timeout

    def _failed(self, error: BaseException, commits: bool) -> None:
        if self.owned:
            self._note_failure(error, commits)
        if self.statement_timeout is not None:
            self.deadline = None

    def _note_failure(self, error: BaseException, commits: bool) -> None:
        failure = self.dialect.failure(error)
        if isinstance(error, Exception):
            self.error = error
        else:
            # Interrupted between question and answer, which would be taken for the next one's.
            failure = Failure.LOST
        if failure in (Failure.LOST, Failure.REFUSED, Failure.UNSETTLED):
            self.broken = True
        if failure in (Failure.LOST, Failure.UNSETTLED) and commits:
            self.in_doubt = True
            if self.session is not None:
                self.memo[_LOST] = (*self.memo.get(_LOST, ()), self.session)
        if self.depth and failure is not Failure.BUSY:
            state = self.dialect.transaction(self.raw)
            if failure is not None or state is not Transaction.OPEN:
                self.doomed = ENDED

    def begin_if_implicit(self) -> None:
        """Begin the transaction that an application's driver would begin at the next write."""
        if not self.owned and self.dialect.transaction(self.raw) is Transaction.IMPLICIT:
            self.dialect.begin_implicit(self.raw, self._cursor)

    def end_lost(self) -> None:
        """See to it that nothing of this call's earlier tries takes effect from now on.

        One whose answer was lost may still wait for a lock, or be on its way: done again it could
        be overwritten by what it has itself overwritten.
        """
        try:
            for session in self.memo.get(_LOST, ()):
                while not self.dialect.end_session(self._cursor, self.sql, session):
                    pass  # it has waited for that at the server, for a while
        except BaseException as error:
            self._failed(error, commits=False)
            raise
        self.memo.pop(_LOST, None)

    def settle(self) -> None:
        """Have what was found here be as lasting as what is committed now, where that may differ.

        PostgreSQL shows what was committed while its wait for a standby was cut short.
        """
        if _SETTLING in self.sql:
            self.execute(self.sql[_SETTLING])

    def reset(self) -> None:
        """Roll back whatever was begun, so that the connection is as new."""
        self.raw.rollback()
        self.depth = 0
        self.doomed = None
        self.broken = self.cutting = self.reads_only = False

    def disown(self) -> None:
        """Have it refuse all further use: it is the parent's of this process, which was forked."""
        self.broken = True
        self.doomed = "this connection, and its transaction, are of the process that was forked"

    def close(self) -> None:
        """Close the driver's connection, whatever state it is in."""
        # SQLite would keep the file open for a statement that is in an error's traceback still.
        self._close(self._cursor)
        self._close(self.raw)

    def _close(self, what: Any) -> None:
        try:
            what.close()
        except Exception as error:
            if not self.dialect.is_driver_error(error) and not isinstance(error, OSError):
                raise
