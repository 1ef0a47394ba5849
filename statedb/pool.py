"""Pool: a fixed number of connections, lent to one call at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from statedb.chronicle import Chronicle
from statedb.connection import Connection
from statedb.dialects import Dialect, Failure, Transaction
from statedb.errors import CallTimeoutError, DatabaseError, PoolClosedError
from statedb.watchdog import Watchdog

# A forked child must never touch its parent's connections, not even by letting go of them: it would
# say goodbye on the parent's socket, or have SQLite act on locks that only the parent has.
_inherited: list[Any] = []


class Pool:
    """Connections to one target: opened when first needed, taken last in first out.

    ``prepare`` is called with the first connection before it is lent.
    """

    def __init__(
        self,
        dialect: Dialect,
        target: Any,
        *,
        size: int,
        timeout: float,
        prepare: Callable[[Connection], None],
        known: dict[Any, Any],
    ) -> None:
        self.dialect = dialect
        self.target = target
        self._prepare = prepare
        self.size = size
        self.timeout = timeout
        self._known = known
        self._in_memory = dialect.in_memory(target)
        self._closes_before_fork = dialect.close_before_fork and not self._in_memory
        #: Why this process, a fork of another, can open no connection, if it cannot.
        self._orphaned: str | None = None
        self._start()

    def _start(self) -> None:
        # Reentrant, as the workers' is: under it a Database may be collected, which closes itself.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._idle: list[Connection] = []
        #: Opened before something was found amiss that they may not get over.
        self._spoilt: set[Connection] = set()
        self._all: set[Connection] = set()
        #: Places taken: connections, and those that are being opened.
        self._places = 0
        self._waiting: deque[_Waiter] = deque()
        self._preparing = threading.Lock()
        self._prepared = False
        self._closed = False
        self._forking = False
        self._watchdog = Watchdog(self._lent, self._cut, self.timeout)
        self.chronicle = Chronicle(self.target)

    # --- Lending ---

    def take(
        self, deadline: float, *, unchecked: bool = False, lasting: float | None = None
    ) -> Connection:
        """A connection for one call, which whoever takes it gives back.

        ``unchecked`` gives one that may have lost its server while it was idle: who only reads
        finds out, and can read again. ``lasting`` says for how many seconds a statement may wait
        for a lock, where that does not follow from the deadline.

        Raises CallTimeoutError where none is free in time, and what the driver raises where none
        can be opened.
        """
        conn = None
        waiter = None
        try:
            with self._lock:
                if self._closed:
                    raise PoolClosedError("this Database is closed")
                if self._forking or (not self._idle and self._places >= self.size):
                    waiter = _Waiter()
                    self._waiting.append(waiter)
                elif self._idle:
                    # Not by pop(): who is interrupted in it has taken it, and does not know which.
                    conn = self._idle[-1]
                    del self._idle[-1]
                else:
                    self._places += 1
            if waiter is not None:
                conn = self._wait(waiter, deadline)
            if conn is None or (not unchecked and conn.is_dead()):
                dead, conn = conn, None
                conn = self._open(deadline, dead)
            conn.deadline = deadline
            if deadline < self._watchdog.due:
                self._watchdog.look_again()
            remaining = lasting or deadline - time.monotonic()
            if not 0.7 < remaining / conn.lock_wait < 1.4:
                self._limit_lock_wait(conn, _lock_wait(remaining))
        except BaseException:
            if conn is not None and conn not in self._idle:
                conn.broken = True
                self.give_back(conn)
            raise
        return conn

    def _wait(self, waiter: _Waiter, deadline: float) -> Connection | None:
        try:
            got = waiter.ready.acquire(timeout=max(0.0, deadline - time.monotonic()))
        except BaseException:
            # Interrupted: what it was or will be given goes to the next.
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                elif not waiter.closed:
                    self._pass_on(waiter.conn)
            raise
        if not got:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                    raise CallTimeoutError(
                        f"none of {self.size} connections was free within {self.timeout:g} s;"
                        f" a larger pool_size, or shorter transactions, may help"
                    )
        if waiter.closed:
            raise PoolClosedError("this Database was closed before a connection was free")
        return waiter.conn

    def give_back(self, conn: Connection, *, has_read: bool = False) -> None:
        """Take back what take() gave; one that is broken, or in a state not ours, is closed.

        ``has_read`` says that an operation of ours has read, and no more.
        """
        # The watchdog first says that it cuts, then looks at the deadline once more: either it
        # sees this, or the next line sees that the connection is not to be trusted.
        conn.deadline = None
        if conn not in self._all:
            return  # inherited from the process that was forked meanwhile, and not ours to touch
        try:
            if conn.error is not None and self.dialect.spoils(conn.error):
                self._spoil()
            usable = not (conn.cutting or conn.broken) and (has_read or self._is_clean(conn))
            usable = usable and conn not in self._spoilt
            if not usable and self._in_memory:
                # Closing it would lose all that it holds, and no server is there to be lost.
                conn.reset()
                usable = True
            if not usable:
                self._discard(conn)
                if conn.error is not None and self._is_loss(conn.error):
                    self.chronicle.lost(conn.error)
            conn.error = None
            conn.in_doubt = conn.committed = False
        except BaseException:
            # Interrupted, or in memory and past use: its place at least is to be had.
            self._discard(conn)
            with self._lock:
                self._pass_on(None)
            raise
        with self._lock:
            if usable and not (self._waiting or self._closed or self._forking):
                self._idle.append(conn)
                return
            if usable and (self._closed or (self._forking and self._closes_before_fork)):
                self._all.discard(conn)
                conn.close()
                usable = False
            self._pass_on(conn if usable else None)
            if self._closed:
                self._watchdog.look_again()

    def _is_clean(self, conn: Connection) -> bool:
        try:
            return self.dialect.transaction(conn.raw) is Transaction.AUTOCOMMIT
        except Exception:
            return False  # a user's function has closed it

    def _is_loss(self, error: BaseException) -> bool:
        return self.dialect.failure(error) in (Failure.LOST, Failure.REFUSED)

    def _spoil(self) -> None:
        """Lend none of the connections again that are open now."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._places -= len(idle)
            self._spoilt.update(self._all)
        for conn in idle:
            self._discard(conn)

    def _discard(self, conn: Connection) -> None:
        with self._lock:
            self._all.discard(conn)
            self._spoilt.discard(conn)
        conn.close()

    def _pass_on(self, conn: Connection | None) -> None:
        """Give a connection, or the place to open one, to who has waited longest; lock held."""
        if self._waiting and not self._forking:
            waiter = self._waiting.popleft()
            waiter.conn = conn
            waiter.ready.release()
        elif conn is not None:
            self._idle.append(conn)
        else:
            self._places -= 1
        self._changed.notify_all()

    # --- Opening ---

    def _open(self, deadline: float, dead: Connection | None) -> Connection:
        """A new connection, in the place that was taken for it, or that a dead one had."""
        try:
            if dead is not None:
                self._discard(dead)
                self.chronicle.lost(None)
            if self._orphaned is not None:
                raise DatabaseError(self._orphaned)
            seconds = _lock_wait(deadline - time.monotonic())
            try:
                raw = self.dialect.connect(self.target, seconds)
            except Exception as error:
                if self._is_loss(error):
                    self.chronicle.not_connected(error)
                raise
            self.chronicle.connected()
            conn = Connection(raw, self.dialect, known=self._known)
            conn.lock_wait = seconds
            try:
                conn.deadline = deadline
                with self._lock:
                    self._all.add(conn)
                    self._watchdog.start()
                if deadline < self._watchdog.due:
                    self._watchdog.look_again()
                if not self._prepared:
                    self._prepare_once(conn, deadline)
            except BaseException:
                self._discard(conn)
                raise
        except BaseException:
            with self._lock:
                self._pass_on(None)
            raise
        return conn

    def _prepare_once(self, conn: Connection, deadline: float) -> None:
        if not self._preparing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise CallTimeoutError(f"the tables could not be checked within {self.timeout:g} s")
        try:
            if not self._prepared:
                self._prepare(conn)
                self._prepared = True
                # What that has committed is none of the call's.
                conn.committed = False
        finally:
            self._preparing.release()

    def stats(self) -> dict[str, int]:
        """How many connections and who waits for one, at one moment."""
        with self._lock:
            return {
                "connections": len(self._all),
                "connections_in_use": self._places - len(self._idle),
                "pool_size": self.size,
                "waiting": len(self._waiting),
            }

    def _limit_lock_wait(self, conn: Connection, seconds: float) -> None:
        """Let no statement wait for a lock much longer than its call may last."""
        self.dialect.limit_lock_wait(conn.raw, seconds)
        conn.lock_wait = seconds

    def _lent(self) -> list[Connection] | None:
        """What the watchdog is to watch; None where there will be nothing more."""
        with self._lock:
            return list(self._all) if self._places or not self._closed else None

    def _cut(self, conn: Connection) -> None:
        # Under the lock, and only one of ours: what has been closed may have lent its descriptor's
        # number to another file.
        with self._lock, contextlib.suppress(Exception):
            if conn in self._all:
                self.dialect.cut(conn.raw)

    # --- Ends ---

    def close(self, *, held: int, wait: bool) -> None:
        """Close all connections: idle ones now, lent ones when they come back.

        Waits, within the timeout, for all but ``held`` of them, which the caller itself has.
        """
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._places -= len(idle)
            self._all.difference_update(idle)
            for waiter in self._waiting:
                waiter.closed = True
                waiter.ready.release()
            self._waiting.clear()
            for conn in idle:
                conn.close()
            if wait:
                self._changed.wait_for(lambda: self._places <= held, self.timeout)
            all_closed = self._places == 0
        self._watchdog.look_again()
        if all_closed:
            self._watchdog.join()

    def before_fork(self, held: int) -> None:
        """Lend nothing more, and wait, within the timeout, until all but ``held`` are back."""
        with self._lock:
            self._forking = True
            self._changed.wait_for(
                lambda: self._places - len(self._idle) <= held, min(self.timeout, 10.0)
            )
            if self._closes_before_fork:
                for conn in self._idle:
                    self._all.discard(conn)
                    conn.close()
                self._places -= len(self._idle)
                self._idle.clear()

    def after_fork_in_parent(self) -> None:
        with self._lock:
            self._forking = False
            while self._waiting and (self._idle or self._places < self.size):
                if self._idle:
                    self._pass_on(self._idle.pop())
                else:
                    self._places += 1
                    self._pass_on(None)

    def after_fork_in_child(self) -> None:
        _inherited.extend(self._all)
        for conn in self._all:
            conn.disown()
        if self._all and self._in_memory:
            self._orphaned = (
                "an in-memory database lives in the process that opened it, not in its forks:"
                " connect() anew, or use a file"
            )
        elif self._all and self._closes_before_fork:
            # The library would take the locks of the inherited connection for this process's own.
            self._orphaned = (
                "this process was forked while a connection to the database's file was in use, and"
                " cannot open it safely any more: fork outside of transactions"
            )
        closed = self._closed
        self._start()
        self._closed = closed


def _lock_wait(remaining: float) -> float:
    """How long a statement may wait for a lock: a little less than its call may last.

    That it ended waiting is then told by the server, and is sure to have had no effect.
    """
    return max(0.05, remaining - min(1.0, remaining / 10))


class _Waiter:
    """A call that waits for a connection, or for the place to open one."""

    __slots__ = ("closed", "conn", "ready")

    def __init__(self) -> None:
        self.ready = threading.Lock()
        self.ready.acquire()
        self.conn: Connection | None = None
        self.closed = False
