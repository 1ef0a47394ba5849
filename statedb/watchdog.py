"""Watchdog: a thread that ends what outlasts its time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection

from statedb.connection import Connection


class Watchdog:
    """Has each connection cut whose deadline has passed; whoever waits on it sees it lost.

    Whoever sets a deadline before ``due`` has it look again.
    """

    def __init__(
        self,
        watched: Callable[[], Collection[Connection] | None],
        cut: Callable[[Connection], None],
        timeout: float,
    ) -> None:
        self._watched = watched
        self._cut = cut
        self._timeout = timeout
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        #: When it will look again by itself.
        self.due = float("inf")

    def start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._watch, name="statedb-watchdog", daemon=True)
            # While the interpreter exits Python 3.12 starts no more threads. Accepted work is
            # finished all the same, within what the drivers and the engines bound by themselves.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def look_again(self) -> None:
        """Have the thread look at what there is to watch, and when."""
        self._woken.set()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while True:
            # What is noticed while it looks around wakes it once more.
            self.due = float("inf")
            watched = self._watched()
            if watched is None:
                return
            now = time.monotonic()
            due = min([now + self._timeout, *(self._look_at(conn, now) for conn in watched)])
            # Or it would keep them referenced while it sleeps.
            del watched
            self.due = due
            self._woken.wait(max(0.0, due - time.monotonic()))
            self._woken.clear()

    def _look_at(self, conn: Connection, now: float) -> float:
        """When to look at this connection again."""
        deadline = conn.deadline
        if deadline is None:
            return float("inf")
        if deadline > now:
            return deadline
        # Said first, and the deadline looked at once more: so the pool, which does it the other
        # way round, never lends a connection that is being cut.
        conn.cutting = True
        if conn.deadline is None or conn.deadline > now:
            conn.cutting = False
        else:
            self._cut(conn)
        return now + 0.5
