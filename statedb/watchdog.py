"""Watchdog: a thread that ends what outlasts its time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from statedb.connection import Connection


class Watchdog:
    """Cuts each connection whose deadline has passed; whoever waits on it sees it lost.

    No deadline is set nearer than ``timeout``, so none that is set while the thread sleeps can be
    due before it wakes. Whoever sets a nearer one calls ``look_again``.
    """

    def __init__(
        self,
        watched: Callable[[], Collection[Connection] | None],
        cut: Callable[[Any], None],
        timeout: float,
    ) -> None:
        self._watched = watched
        self._cut = cut
        self._timeout = timeout
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._watch, name="statedb-watchdog", daemon=True)
            # While the interpreter exits Python 3.12 starts no more threads. Accepted work is
            # finished all the same, within what the drivers and the engines bound by themselves.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def look_again(self) -> None:
        self._woken.set()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while (watched := self._watched()) is not None:
            now = time.monotonic()
            nearest = now + self._timeout
            nearest = min([nearest, *(self._look_at(conn, now) for conn in watched)])
            # Or it would keep them referenced while it sleeps.
            del watched
            self._woken.wait(max(0.0, nearest - time.monotonic()))
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
            # It may have been closed this moment, which does as well.
            with contextlib.suppress(Exception):
                self._cut(conn.raw)
        return now + 0.5
