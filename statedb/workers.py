"""Workers: threads that run what was submitted, and the queue in front of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from statedb.errors import PoolClosedError, QueueFullError
from statedb.lanes import Job, Lanes
from statedb.operation import traits

_log = logging.getLogger("statedb")


class Call(Job):
    """A function of a connection with its arguments, when it is due, and who waits for it."""

    __slots__ = ("args", "deadline", "function", "future", "kwargs", "ordered")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        due: float,
    ) -> None:
        super().__init__()
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.deadline = due
        self.future: Future[Any] = Future()
        self.ordered = False


class Workers:
    """As many threads as there are connections, started as they are needed."""

    def __init__(
        self,
        run: Callable[[Call], Any],
        *,
        size: int,
        max_pending: int,
        timeout: float,
        finish: Callable[[], None],
    ) -> None:
        self._run = run
        self._size = size
        self._max_pending = max_pending
        self._timeout = timeout
        self._finish = finish
        self._start()

    def _start(self) -> None:
        # Reentrant: under it a Database may be collected, which closes itself.
        self._lock = threading.RLock()
        self._wakeup = threading.Condition(self._lock)
        self._ready: deque[Call] = deque()
        self._lanes = Lanes()
        self._threads: set[threading.Thread] = set()
        self._sleeping = 0
        #: Accepted and not yet finished, whether running, ready, or behind another in a lane.
        self._pending = 0
        self._closing = False
        self._cancelling = False

    def submit(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """A Future of what the function returns; its time runs from now."""
        call = Call(function, args, kwargs, time.monotonic() + self._timeout)
        known = traits(function)
        touched = _touched(known.touches, args, kwargs)
        with self._lock:
            if self._closing:
                raise PoolClosedError("this Database is closed")
            if self._pending >= self._max_pending:
                raise QueueFullError(
                    f"{self._pending} futures are pending, and max_pending is {self._max_pending}"
                )
            if touched is None:
                admitted = True
            else:
                call.ordered = True
                admitted = self._lanes.admit(call, *touched, known.reads)
            if admitted:
                try:
                    self._rouse()
                except RuntimeError:
                    self._lanes.finish(call)
                    raise
                self._ready.append(call)
            self._pending += 1
        return call.future

    def _rouse(self) -> None:
        """See to it that some thread takes what is ready; lock held."""
        if self._sleeping:
            self._sleeping -= 1
            self._wakeup.notify()
        elif len(self._threads) < self._size:
            name = f"statedb-worker-{len(self._threads)}"
            # A daemon, or the interpreter would wait for it at exit before any hook could end it.
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # Python 3.12 starts none while the interpreter exits; those there are will do.
                if not self._threads:
                    raise
            else:
                self._threads.add(thread)

    def _work(self) -> None:
        while (call := self._next()) is not None:
            try:
                self._do(call)
            except BaseException:  # of a done-callback: an Exception concurrent.futures logs itself
                _log.exception("a done-callback of a Future raised what is no Exception")
            # Or the last call's arguments and result would live on while this thread sleeps.
            del call
        with self._lock:
            self._threads.discard(threading.current_thread())
            last = not self._threads
        if last:
            self._finish()

    def _next(self) -> Call | None:
        with self._lock:
            while not self._ready:
                if self._closing and not self._pending:
                    return None
                self._sleeping += 1
                self._wakeup.wait()
            return self._ready.popleft()

    def _do(self, call: Call) -> None:
        future = call.future
        if self._cancelling:
            future.cancel()
        if not future.set_running_or_notify_cancel():
            self._done(call)
            return
        try:
            result = self._run(call)
        except BaseException as error:
            self._done(call)
            future.set_exception(error)
            # The error's traceback holds this frame, which would hold the Future that holds it.
            del call, future
        else:
            self._done(call)
            future.set_result(result)

    def _done(self, call: Call) -> None:
        """Let those follow that waited for this call, before its Future runs any callback."""
        with self._lock:
            self._pending -= 1
            if call.ordered:
                for freed in self._lanes.finish(call):
                    assert isinstance(freed, Call)
                    self._ready.append(freed)
                    self._rouse()
            if self._closing and not self._pending:
                self._sleeping = 0
                self._wakeup.notify_all()

    def close(self, *, cancel_futures: bool, wait: bool) -> None:
        """Accept nothing more, and wait until all that was accepted is finished.

        A worker that calls this, from a done-callback, does not wait: it would be for itself. The
        last thread to end does the rest.
        """
        with self._lock:
            self._closing = True
            self._cancelling = self._cancelling or cancel_futures
            self._sleeping = 0
            self._wakeup.notify_all()
        # What is finished may let others run, and start further threads.
        while threads := self._running():
            if not wait or threading.current_thread() in threads:
                return
            for thread in threads:
                thread.join()
        self._finish()

    def _running(self) -> set[threading.Thread]:
        with self._lock:
            return set(self._threads)

    def after_fork_in_child(self) -> None:
        closing = self._closing
        self._start()
        self._closing = closing


def _touched(
    touches: Callable[..., tuple[Any, tuple[Any, ...] | None]] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, tuple[Any, ...] | None] | None:
    """What a call touches; None where that cannot be told, as of arguments it will not take."""
    if touches is None:
        return None
    try:
        touched = touches(*args, **kwargs)
        hash(touched)
    except Exception:
        return None
    return touched
