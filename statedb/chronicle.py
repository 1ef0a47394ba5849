"""Chronicle: what happens to one Database's connections and calls, counted and told to the log."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

_log = logging.getLogger("statedb")


@dataclass(frozen=True)
class Stats:
    """What a Database has done since it was made, and is doing now, in this process.

    Members are not in it: each checks in on a connection of its own.
    """

    #: Calls that are done, whatever they answered; a ``transaction()`` is one, with all within.
    operations: int
    #: Calls that ended in a DatabaseError.
    failures: int
    #: Tries after the first, of all calls.
    retries: int
    #: Connections that were opened in place of lost ones.
    reconnects: int
    #: Futures that have begun and are done.
    futures: int
    #: How many seconds those waited before, all together.
    queue_time: float
    #: Futures that are not done yet, begun or not.
    pending: int
    #: Connections that are open.
    connections: int
    #: Those of them that a call has, or that are being opened.
    connections_in_use: int
    #: How many connections there may be.
    pool_size: int
    #: How many calls wait for one.
    waiting: int


class Chronicle:
    """What has happened; anybody may add to it."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._operations = self._failures = self._retries = self._reconnects = 0
        #: Lost, and not yet replaced.
        self._missing = 0
        #: When the first of those was lost, or the first try to connect failed.
        self._away_since: float | None = None

    def done(self, calls: int = 1) -> None:
        with self._lock:
            self._operations += calls

    def failed(self) -> None:
        with self._lock:
            self._failures += 1

    def tried_again(self, name: str, error: BaseException) -> None:
        with self._lock:
            self._retries += 1
        _log.info("%s is tried again: %s", name, _first_line(error))

    def lost(self, error: BaseException | None) -> None:
        """A connection is gone; no error where it was idle."""
        reason = f": {_first_line(error)}" if error is not None else " while it was idle"
        if self._is_first(missing=1):
            _log.warning("a connection to %s was lost%s", self._target, reason)

    def not_connected(self, error: BaseException) -> None:
        if self._is_first():
            _log.warning("cannot connect to %s: %s", self._target, _first_line(error))

    def connected(self) -> None:
        with self._lock:
            if self._missing:
                self._missing -= 1
                self._reconnects += 1
            since, self._away_since = self._away_since, None
        if since is not None:
            seconds = time.monotonic() - since
            _log.info("connected to %s again, after %.1f s", self._target, seconds)

    def stats(self) -> dict[str, int]:
        """How much has happened, at one moment."""
        with self._lock:
            return {
                "operations": self._operations,
                "failures": self._failures,
                "retries": self._retries,
                "reconnects": self._reconnects,
            }

    def _is_first(self, missing: int = 0) -> bool:
        """Whether nothing was amiss before; the log is told once, not by every call."""
        with self._lock:
            self._missing += missing
            if self._away_since is not None:
                return False
            self._away_since = time.monotonic()
            return True


def _first_line(error: BaseException) -> str:
    # Servers add lines with details, which may tell of what is stored.
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}"
