"""Block: what is written within it becomes permanent at its end, or nothing of it."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, TypeVar

from statedb.dialects import Transaction
from statedb.link import ENDED, Link

L = TypeVar("L", bound=Link)


class Block(Generic[L]):
    """One ``with conn.transaction():`` or ``with conn.snapshot():``."""

    __slots__ = ("_conn", "_savepoint", "_snapshot")

    def __init__(self, conn: L, *, snapshot: bool = False) -> None:
        self._conn = conn
        self._savepoint: str | None = None
        self._snapshot = snapshot

    def __enter__(self) -> L:
        conn = self._conn
        if conn.in_transaction:
            conn.begin_if_implicit()
            # Not through the driver's own savepoints: psycopg's would commit what it has begun.
            self._savepoint = f"statedb_{conn.depth}"
            conn.send(f"SAVEPOINT {self._savepoint}", commits=False)
        else:
            dialect = conn.dialect
            for begin in dialect.begin_snapshot if self._snapshot else (dialect.begin,):
                conn.send(begin, commits=False)
            conn.reads_only = self._snapshot
        conn.depth += 1
        return conn

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                self._end()
            except BaseException:
                self._undo()
                raise
        else:
            self._undo()

    def _end(self) -> None:
        conn = self._conn
        if self._savepoint is None:
            conn.send("COMMIT", commits=not self._snapshot)
        else:
            conn.send(f"RELEASE SAVEPOINT {self._savepoint}", commits=False)
        conn.depth -= 1
        conn.reads_only = False

    def _is_undone(self) -> bool:
        """Whether the engine has ended the transaction itself, as SQLite does on a full disk."""
        conn = self._conn
        return conn.owned and conn.dialect.transaction(conn.raw) is Transaction.AUTOCOMMIT

    def _undo(self) -> None:
        """Undo what was written within; if that fails too, the first error is told."""
        conn = self._conn
        conn.depth -= 1
        conn.reads_only = False
        first = conn.error
        if conn.broken:
            return
        conn.doomed = None
        if self._savepoint is None and self._is_undone():
            return
        try:
            if self._savepoint is None:
                conn.send("ROLLBACK", commits=False)
            else:
                # Where it succeeds the transaction around it stands, whatever failed within.
                conn.send(f"ROLLBACK TO SAVEPOINT {self._savepoint}", commits=False)
                conn.send(f"RELEASE SAVEPOINT {self._savepoint}", commits=False)
        except Exception as error:
            if not conn.dialect.is_driver_error(error):
                raise
            conn.doomed = ENDED if conn.owned and self._savepoint is not None else None
            conn.broken = conn.broken or self._savepoint is None
            conn.error = first
