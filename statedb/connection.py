"""Connection: one DB-API connection and its dialect, as operations and users' functions see it."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from statedb import dialects
from statedb.blocks import Block
from statedb.errors import UnusableConnectionError
from statedb.link import Link, only_read
from statedb.wrappers import WrappedConnection, unwrapped

# Of the drivers' connections, the applications' too, those that have been asked.
_certifying: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


class DriverConnection(Protocol):
    """What an application's own connection has in common with every other."""

    def cursor(self) -> Any: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


class Connection(Link):
    """A connection, as operations and the functions of users see it.

    One that statedb opened is in autocommit: each statement commits itself, but within ``with
    conn.transaction():``. On an application's connection that is as the application has it.
    Statements are SQL in the driver's own parameter style.
    """

    __slots__ = ()

    def transaction(self) -> Block[Connection]:
        """A context manager: all that is written within becomes permanent at its end, or nothing.

        Within another one, and where an application has a transaction open, it is a savepoint.
        Where an application's driver would begin a transaction at the first write, that one is
        begun and left open. Not within a snapshot.
        """
        if self.reads_only:
            raise only_read()
        return Block(self)

    def snapshot(self) -> Block[Connection]:
        """A context manager: what is read within is all of one moment; what writes is refused.

        Not within a transaction, which has a moment of its own.
        """
        if self.in_transaction:
            raise UnusableConnectionError("a snapshot cannot begin within a transaction")
        return Block(self, snapshot=True)

    def certifies(self) -> bool:
        """Whether other servers do not heed the locks of this one, only what it has written.

        There a row that is to stay as it is until the transaction's end has to be written.
        """
        question = self.dialect.certification
        if question is None:
            return False
        known = _certifying.get(self.raw)
        if known is None:
            row = self.fetch_one(question)
            # Bytes, where an application has its texts so.
            known = _certifying[self.raw] = row is not None and row[-1] in ("ON", b"ON")
        return known


#: What operations take: statedb's own, an application's, and what a framework put around that.
AnyConnection = Connection | DriverConnection | WrappedConnection


def adapt(conn: AnyConnection) -> Connection:
    """The connection itself if it is statedb's, else one around an application's own.

    Raises InvalidTypeError for what is no connection, and UnusableConnectionError for a psycopg
    connection in pipeline mode, a PyMySQL one with unread rows, and one given back to its pool.
    What a framework has around the driver's connection may refuse with an error of its own.
    """
    if type(conn) is Connection:
        return conn
    raw = unwrapped(conn)
    dialect = dialects.for_connection(raw, conn)
    reason = dialect.why_unusable(raw)
    if reason is not None:
        raise UnusableConnectionError(f"this {dialect.driver} connection {reason}")
    return Connection(raw, dialect)
