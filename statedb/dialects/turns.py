"""Turns: who may write to a file, first come, first served, among the connections of a process."""

from __future__ import annotations

import contextlib
import threading
from collections import deque


class Writer:
    """One who takes turns, and how to wake it while it waits."""

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def rest(self, seconds: float) -> bool:
        """Wait so long, or until somebody wakes it; whether somebody did."""
        return self._gate.acquire(timeout=max(0.0, seconds))

    def doze_off(self) -> None:
        """Forget that somebody has woken it."""
        self._gate.acquire(blocking=False)

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was awake
            self._gate.release()


class Turns:
    """The turn to write, which one at a time has."""

    def __init__(self) -> None:
        # Reentrant: under it a connection may be collected, which leaves.
        self._lock = threading.RLock()
        self._holder: Writer | None = None
        self._waiting: deque[Writer] = deque()

    def take(self, writer: Writer, seconds: float) -> bool:
        """Wait for the turn, at most so long and not after being woken; whether it is had.

        Whatever is raised, ``leave`` makes all good.
        """
        with self._lock:
            if self._holder is None or self._holder is writer:
                self._holder = writer
                return True
            writer.doze_off()
            self._waiting.append(writer)
        try:
            writer.rest(seconds)
        finally:
            with self._lock:
                had = self._holder is writer
                if not had:
                    self._waiting.remove(writer)
        return had

    def leave(self, writer: Writer) -> None:
        """Give the turn to who has waited longest, if it is this writer's."""
        with self._lock:
            if self._holder is writer:
                self._holder = self._waiting.popleft() if self._waiting else None
                if self._holder is not None:
                    self._holder.wake()
            elif writer in self._waiting:
                self._waiting.remove(writer)
