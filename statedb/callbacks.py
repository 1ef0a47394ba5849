"""Callbacks: a thread that calls what users want to be told by, so that nothing waits for them."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger("statedb")


class Callbacks:
    """Calls one function after another; what one raises is logged, and harms nothing."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="statedb-callbacks", daemon=True)
        self._thread.start()

    def call(self, callback: Callable[[], object]) -> None:
        self._queue.put(callback)

    def end(self) -> None:
        """Have the thread end, after what it was to call before."""
        self._queue.put(None)

    def join(self, timeout: float) -> None:
        """Wait so many seconds for the thread's end; not at all from a callback."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (callback := self._queue.get()) is not None:
            try:
                callback()
            except BaseException:  # such as SystemExit: further callbacks are to be called
                _log.exception("a callback of a member raised")
            # Or what it holds would live on while this thread waits.
            del callback
