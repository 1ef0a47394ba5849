"""Workers: threads that run what was submitted, and the queue in front of them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from statedb.errors import PoolClosedError, QueueFullError
from statedb.lanes import Lanes, touched_by
from statedb.operation import ALONE, Batch, Traits
from statedb.ready import LATE, Call, Ready, Turn

_log = logging.getLogger("statedb")


class Workers:
    """As many threads as there are connections, started as they are needed."""

    def __init__(
        self,
        run: Callable[[Call], Any],
        run_together: Callable[[Batch, Sequence[Call]], list[Any]],
        *,
        size: int,
        max_pending: int,
        timeout: float,
        finish: Callable[[], None],
    ) -> None:
        self._run = run
        self._run_together = run_together
        self._size = size
        self._max_pending = max_pending
        self._timeout = timeout
        self._finish = finish
        self._start()

    def _start(self) -> None:
        # Reentrant: under it a Database may be collected, which closes itself.
        self._lock = threading.RLock()
        self._ready = Ready()
        self._lanes = Lanes()
        self._threads: set[threading.Thread] = set()
        #: What wakes those that have nothing to do; the last to fall asleep is woken first.
        self._sleepers: list[threading.Lock] = []
        #: What wakes the one of them that looks now and then whether a turn is late.
        self._lookout: threading.Lock | None = None
        #: Accepted and not yet finished, whether running, ready, or behind another in a lane.
        self._pending = 0
        self._closing = False
        self._cancelling = False
        #: How many have begun, and are over, and for how many seconds they waited in all.
        self._finished = 0
        self._queue_time = 0.0

    def submit(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        known: Traits,
        batch: Batch | None,
    ) -> Future[Any]:
        """A Future of what the function returns; its time runs from now."""
        call = Call(function, args, kwargs, time.monotonic() + self._timeout, batch)
        call.may_wait = not known.reads and batch is known.batch
        touched = touched_by(known.touches, args, kwargs)
        with self._lock:
            if self._closing:
                raise PoolClosedError("this Database is closed")
            if self._pending >= self._max_pending:
                raise QueueFullError(
                    f"{self._pending} futures are pending, and max_pending is {self._max_pending}"
                )
            self._pending += 1
            try:
                call.ordered = touched is not None
                if touched is None or self._lanes.admit(call, *touched, known.reads):
                    self._line_up(call)
            except BaseException:
                # There is no thread to run it, or who submits it is interrupted.
                self._withdraw(call)
                raise
        return call.future

    def _line_up(self, call: Call) -> None:
        """Have a call run as soon as a thread is free; lock held."""
        if self._ready.add(call):
            self._rouse()

    def _withdraw(self, call: Call) -> None:
        """Have it that a call which nobody has taken was never submitted; lock held."""
        self._ready.remove(call)
        self._pending -= 1
        call.withdrawn = True
        if not call.waits:
            self._free(call)

    def _rouse(self) -> None:
        """See to it that some thread takes what is ready; lock held."""
        if not self._wake() and len(self._threads) < self._size:
            name = f"statedb-worker-{len(self._threads)}"
            # A daemon, or the interpreter would wait for it at exit before any hook could end it.
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            # Before it starts: who waits for that may be interrupted, and it runs all the same.
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:
                # Python 3.12 starts none while the interpreter exits; those there are will do.
                self._threads.discard(thread)
                if not self._threads:
                    raise

    def _wake(self) -> bool:
        """Wake one of those that sleep; whether there was any."""
        while self._sleepers:
            alarm = self._sleepers[-1]
            asleep = alarm.locked()
            if asleep:
                alarm.release()
            # Not before: who is interrupted in between has woken it all the same.
            self._sleepers.pop()
            if asleep:
                return True
        return False

    def _wake_all(self) -> None:
        while self._wake():
            pass

    def _work(self) -> None:
        alarm = threading.Lock()
        alarm.acquire()
        while turn := self._next(alarm):
            if len(turn.calls) == 1:
                self._do(turn)
            else:
                self._do_together(turn)
            # Or the last calls' arguments and results would live on while this thread sleeps.
            del turn
        with self._lock:
            self._threads.discard(threading.current_thread())
            last = not self._threads
        if last:
            self._finish()

    def _next(self, alarm: threading.Lock) -> Turn | None:
        """The next turn; None where there will be no more."""
        while True:
            with self._lock:
                while self._ready:
                    if turn := self._ready.take():
                        if turn.queue is not None and self._lookout is None:
                            self._rouse()
                        return turn
                if self._closing and not self._pending:
                    return None
                looks_out = self._lookout is None and self._ready.has_turns_under_way
                if looks_out:
                    self._lookout = alarm
                    # First in line, so the last to be woken for something else.
                    self._sleepers.insert(0, alarm)
                else:
                    self._sleepers.append(alarm)
            if looks_out:
                self._look_out(alarm)
            else:
                alarm.acquire()
                self._is_awake(alarm)

    def _look_out(self, alarm: threading.Lock) -> None:
        """Sleep, but not for long: nobody is to wait for a turn that is late."""
        woken = alarm.acquire(timeout=LATE)
        with self._lock:
            self._lookout = None
            if not woken:
                # It may be woken just now.
                alarm.acquire(blocking=False)
                self._ready.end_waiting_for_late()
        self._is_awake(alarm)

    def _is_awake(self, alarm: threading.Lock) -> None:
        """See to it that nobody means to wake one who does not sleep."""
        if alarm in self._sleepers:
            with self._lock, contextlib.suppress(ValueError):
                self._sleepers.remove(alarm)

    def _begin(self, call: Call) -> bool:
        """Whether a call is to be made: it was not cancelled, and cannot be from now on."""
        if self._cancelling and not call.begun:
            call.future.cancel_quietly()
        if not call.begun and call.future.set_running_or_notify_cancel():
            call.begun = time.monotonic()
        return call.begun > 0

    def _do(self, turn: Turn) -> None:
        (call,) = turn.calls
        result = failure = None
        begun = self._begin(call)
        if begun:
            try:
                result = self._run(call)
            except BaseException as error:
                failure = error
        with self._lock:
            self._done(call)
            self._end(turn)
        if failure is not None:
            _settle(call.future.set_exception, failure)
        elif begun:
            _settle(call.future.set_result, result)
        if call.future.later:
            _settle(call.future.call_back)
        # The failure's traceback holds this frame, which would hold the Future that holds it.
        del call, turn, failure

    def _do_together(self, turn: Turn) -> None:
        calls = turn.calls
        batch = calls[0].batch
        assert batch is not None
        begun = [call for call in calls if self._begin(call)]
        outcomes = self._run_together(batch, begun) if begun else []
        with self._lock:
            for call in calls:
                if not call.begun:
                    self._done(call)
            for call, outcome in zip(begun, outcomes, strict=True):
                if outcome is ALONE:
                    call.batch = None
                    self._line_up(call)
                else:
                    self._done(call)
            self._end(turn)
        for call, outcome in zip(begun, outcomes, strict=True):
            if isinstance(outcome, Exception):
                _settle(call.future.set_exception, outcome)
            elif outcome is not ALONE:
                _settle(call.future.set_result, outcome)
        # What was cancelled calls back as well; what is to be made alone is not done yet.
        for call in calls:
            if call.future.later and call.future.done():
                _settle(call.future.call_back)

    def _done(self, call: Call) -> None:
        """Let those follow that waited for this call, before its Future runs any callback.

        The lock is held.
        """
        self._pending -= 1
        if call.begun:
            self._finished += 1
            self._queue_time += call.begun - (call.deadline - self._timeout)
        self._free(call)
        if self._closing and not self._pending:
            self._wake_all()

    def _free(self, call: Call) -> None:
        """Let those run that waited for a call; lock held."""
        if not call.ordered:
            return
        for freed in self._lanes.finish(call):
            assert isinstance(freed, Call)
            if freed.withdrawn:
                self._free(freed)
            else:
                self._line_up(freed)

    def _end(self, turn: Turn) -> None:
        """See to it that those who waited for the end of a turn can go on; lock held."""
        if self._ready.end(turn):
            self._rouse()

    def stats(self) -> dict[str, Any]:
        """How many futures there were and are, and how long they waited, at one moment."""
        with self._lock:
            return {
                "futures": self._finished,
                "queue_time": self._queue_time,
                "pending": self._pending,
            }

    def close(self, *, cancel_futures: bool, wait: bool) -> None:
        """Accept nothing more, and wait until all that was accepted is finished.

        A worker that calls this, from a done-callback, does not wait: it would be for itself. The
        last thread to end does the rest.
        """
        with self._lock:
            self._closing = True
            self._cancelling = self._cancelling or cancel_futures
            self._wake_all()
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


def _settle(settle: Callable[..., Any], *outcome: Any) -> None:
    """Settle a Future; what its done-callbacks raise must not end this thread."""
    try:
        settle(*outcome)
    except BaseException:  # an Exception concurrent.futures logs itself
        _log.exception("a done-callback of a Future raised what is no Exception")
