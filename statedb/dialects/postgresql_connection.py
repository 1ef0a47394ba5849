"""OwnConnection and PooledConnection: psycopg's connection, as statedb opens it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import Diagnostic
from psycopg.rows import tuple_row


class NotReplicated(psycopg.OperationalError):
    """What was committed here need not be on a standby, though the server was to wait for that."""


class NotCommitted(psycopg.OperationalError):
    """The connection was lost before any COMMIT was sent, so nothing of this takes effect."""


class OwnConnection(psycopg.Connection[Any]):
    """A connection in autocommit whose statements do not succeed where their commit did not.

    Where the wait for a synchronous standby is cancelled, PostgreSQL reports success, and a
    warning: lost, with the server that gave it, would be what it had acknowledged.
    """

    def __init__(self, pgconn: pq.abc.PGconn, *arguments: Any) -> None:
        super().__init__(pgconn, *arguments)
        self.autocommit = True
        #: The name that its session has on the server.
        self.session: str | None = None
        #: The warnings since the last statement that a commit did not wait for its standbys.
        self.unreplicated: list[str] = []
        # Not a method: the connection would refer to itself.
        self.add_notice_handler(partial(_keep, self.unreplicated))


def _keep(unreplicated: list[str], notice: Diagnostic) -> None:
    # The routine's name, since the text is in the server's language. 01000 is any warning.
    if notice.source_function == "SyncRepWaitForLSN":
        unreplicated.append(notice.message_primary or "not replicated")


class PooledConnection(OwnConnection):
    """One whose statements a pooler gives to any session, but those of a transaction to the same.

    So whatever is written has a transaction, at whose beginning that session is told what else each
    is told once: its name too, by which it can be ended as long as there is something to commit.
    """

    def __init__(self, pgconn: pq.abc.PGconn, *arguments: Any) -> None:
        super().__init__(pgconn, *arguments)
        self.prepare_threshold = None
        #: What a transaction is told at its beginning, but for the bound of its waits for locks.
        self.opening = ""
        #: In milliseconds.
        self.lock_timeout = 0


class OwnCursor(psycopg.Cursor[Any]):
    """A cursor of such a connection, whose rows are plain tuples."""

    def __init__(self, raw: OwnConnection) -> None:
        super().__init__(raw, row_factory=tuple_row)
        self._unreplicated = raw.unreplicated

    def execute(self, *arguments: Any, **settings: Any) -> Any:
        super().execute(*arguments, **settings)
        if self._unreplicated:
            self._raise()
        return self

    def executemany(self, *arguments: Any, **settings: Any) -> None:
        super().executemany(*arguments, **settings)
        if self._unreplicated:
            self._raise()

    def _raise(self) -> None:
        text = self._unreplicated[0]
        self._unreplicated.clear()
        raise NotReplicated(text)


class PooledCursor(OwnCursor):
    """A cursor of such a connection. What only reads is not to go by its ``execute``."""

    def __init__(self, raw: PooledConnection) -> None:
        super().__init__(raw)
        self._raw = raw
        # What it does has no results, and leaves those that are here.
        self._aside = OwnCursor(raw)

    def execute(self, query: Any, *arguments: Any, **settings: Any) -> Any:
        if self._raw.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            super().execute(query, *arguments, **settings)
        elif isinstance(query, str) and query.startswith("BEGIN"):
            self._begin(query)
        else:
            self._do_alone(partial(psycopg.Cursor.execute, self, query, *arguments, **settings))
        return self

    def executemany(self, *arguments: Any, **settings: Any) -> None:
        if self._raw.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            super().executemany(*arguments, **settings)
        else:
            self._do_alone(partial(psycopg.Cursor.executemany, self, *arguments, **settings))

    def _begin(self, begin: str = "BEGIN") -> None:
        if begin == "BEGIN":
            begin = "BEGIN ISOLATION LEVEL READ COMMITTED"
        bound = f"SET LOCAL lock_timeout = {self._raw.lock_timeout}"
        # In one message: one round trip.
        self._aside.execute(f"{begin}; {self._raw.opening}; {bound}".encode())

    def _do_alone(self, run: Callable[[], Any]) -> None:
        """Run what would commit itself in a transaction.

        On its own it could wait in the pooler, of no session yet, and be passed on when whoever
        sent it has long been told that it is lost, and done it again. COMMIT is sent when the
        transaction has its session.
        """
        try:
            self._begin()
            run()
        except Exception as error:
            # Whatever it is, such as a parameter that cannot be encoded: or what comes next on
            # this connection would be a part of it.
            if self._is_rolled_back() or not isinstance(error, psycopg.Error):
                raise
            raise NotCommitted(str(error)) from error
        self._aside.execute("COMMIT")

    def _is_rolled_back(self) -> bool:
        with contextlib.suppress(psycopg.Error):
            self._aside.execute("ROLLBACK")
            return True
        return False
