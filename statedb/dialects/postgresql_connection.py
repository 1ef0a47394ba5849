"""OwnConnection: psycopg's connection, as statedb opens it."""

from __future__ import annotations

from functools import partial
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import Diagnostic
from psycopg.rows import tuple_row


class NotReplicated(psycopg.OperationalError):
    """What was committed here need not be on a standby, though the server was to wait for that."""


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
