"""Futures of calls that are resolved several at a time: first all of them, then their callbacks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class CallFuture(Future[Any]):
    """A Future that calls nobody back before ``call_back``.

    Else a done-callback that waits for one that travelled with it would wait for its own thread,
    which has yet to resolve that one.
    """

    #: Callbacks that are put off; mostly there are none, and then no list.
    later: list[Callable[[Future[Any]], object]] | None = None

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
        super().add_done_callback(fn)

    def cancel_quietly(self) -> bool:
        """Cancel it, but call nobody back."""
        return super().cancel()

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled:
            self.call_back()
        return cancelled

    def call_back(self) -> None:
        """Call the done-callbacks of a Future that is resolved, in their order."""
        while self.later:
            try:
                callback = self.later.pop(0)
            except IndexError:
                return  # whoever added the last one saw that it was late, and took it back
            # By now it is done: this calls at once, and logs what is raised.
            super().add_done_callback(callback)
