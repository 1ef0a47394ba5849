"""CallFuture: a Future that is light until somebody waits for it, and calls back when told to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import Any

_DONE = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))
_log = logging.getLogger("concurrent.futures")


class CallFuture(Future[Any]):
    """The Future of a call, which the worker that makes it resolves.

    It calls nobody back before ``call_back``: else a done-callback that waits for another that
    travelled with it would wait for its own thread, which has yet to resolve that one.

    The base class gives every Future a condition to wait on and two lists, which take longer to
    make than all else that becomes of most. Here they are made for who waits. Whoever resolves it
    first says that it is done, then looks whether there is a condition; whoever waits first makes
    the condition, then looks whether it is done: so one of them sees the other. The module's
    functions, as ``wait``, know a Future by the names that its base class uses.
    """

    _state = PENDING
    _result = None
    _exception = None
    #: Callbacks that are put off; mostly there are none, and then no list.
    later: list[Callable[[Future[Any]], object]] | None = None

    def __init__(self) -> None:
        """All it needs to begin with, the class has."""

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        condition: threading.Condition | None = self.__dict__.get("condition")
        if condition is None:
            self.__dict__.setdefault("_waiters", [])
            condition = self.__dict__.setdefault("condition", threading.Condition())
        return condition

    # --- For who has it ---

    def done(self) -> bool:
        return self._state in _DONE

    def result(self, timeout: float | None = None) -> Any:
        if self._state is FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        if not self.done():
            waiting: list[Any] = self.__dict__.setdefault("later", [])
            waiting.append(fn)
            if not self.done():
                return
            # It was resolved meanwhile, and whoever did that may have called back already.
            try:
                waiting.remove(fn)
            except ValueError:
                return
        self._call(fn)

    def cancel(self) -> bool:
        cancelled = self.cancel_quietly()
        if cancelled:
            self.call_back()
        return cancelled

    # --- For who resolves it ---

    def cancel_quietly(self) -> bool:
        """Cancel it, but call nobody back; whether it is cancelled."""
        with self._condition:
            mine = object()
            if self.__dict__.setdefault("fate", mine) is mine:
                self._state = CANCELLED
                self._condition.notify_all()
            return self.cancelled()

    def set_running_or_notify_cancel(self) -> bool:
        if self.__dict__.setdefault("fate", RUNNING) is RUNNING:
            self._state = RUNNING
            return True
        with self._condition:
            self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
        return False

    def set_result(self, result: Any) -> None:
        self._check_not_done()
        self._result = result
        self._state = FINISHED
        if "condition" in self.__dict__:
            with self._condition:
                for waiter in self._waiters:
                    waiter.add_result(self)
                self._condition.notify_all()

    def set_exception(self, exception: BaseException | None) -> None:
        self._check_not_done()
        self._exception = exception
        self._state = FINISHED
        if "condition" in self.__dict__:
            with self._condition:
                for waiter in self._waiters:
                    waiter.add_exception(self)
                self._condition.notify_all()

    def _check_not_done(self) -> None:
        if self.done():
            raise InvalidStateError(f"{self._state}: {self!r}")

    def call_back(self) -> None:
        """Call the done-callbacks of a Future that is resolved, in their order."""
        while self.later:
            try:
                callback = self.later.pop(0)
            except IndexError:
                return  # whoever added the last one saw that it was late, and took it back
            self._call(callback)

    def _call(self, callback: Callable[[Future[Any]], object]) -> None:
        try:
            callback(self)
        except Exception:
            _log.exception("exception calling callback for %r", self)
