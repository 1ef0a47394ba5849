"""Keeper: the thread that keeps a place in the cluster, and expires who has fallen silent."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from statedb.detector import FailureDetector
from statedb.errors import Error
from statedb.executor import Executor
from statedb.expiry import Doubt, expire_silent_masters
from statedb.masterrows import MasterModel
from statedb.names import shown
from statedb.place import Place, check_in, look_around

#: How many seconds each call is given, or an interval if that is longer; less only where it would
#: be more than half of ``expire_after``. A new connection takes its time.
LEAST_PATIENCE = 2.0

#: The longest wait, in seconds, without a look at the clock: waits do not go on while the host
#: sleeps, but its clock does.
LONGEST_WAIT = 1.0

_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)

R = TypeVar("R")
_log = logging.getLogger("statedb")


def now() -> float:
    """This process's own clock, which nobody sets; on Linux it goes on while the host sleeps."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


class Keeper:
    """Checks in again and again until the place is lost or given back.

    It waits for the database only by futures, of a sibling of the executor, and so sees in time
    that the place is in doubt, even while a check-in hangs. ``on_lost``, ``on_expired`` and
    ``on_end``, called last of all, return at once.
    """

    def __init__(
        self,
        executor: Executor,
        place: Place,
        taken: float,
        *,
        interval: float,
        expire_after: float,
        on_lost: Callable[[], None],
        on_expired: Callable[[list[MasterModel]], None],
        on_end: Callable[[], None],
    ) -> None:
        patience = max(interval, min(LEAST_PATIENCE, expire_after / 2))
        self._executor = executor.sibling(min(executor.timeout, patience))
        self._place = place
        self._interval = interval
        self._expire_after = expire_after
        self._on_lost = on_lost
        self._on_expired = on_expired
        self._on_end = on_end
        self.lost = threading.Event()
        self.in_doubt = threading.Event()
        #: Set when the place is lost, and when it is to be given back.
        self._ended = threading.Event()
        #: Set when what is waited for may have come: an answer, or the end.
        self._wakeup = threading.Event()
        # Reentrant: a signal handler may leave while its thread is about it.
        self._lock = threading.RLock()
        #: From before the last good check-in was sent: by the database's clock, it is due later.
        self._deadline = taken + expire_after
        self._detector = FailureDetector(interval)
        self._doubt = Doubt()
        name = f"statedb-member-{place.masterid}"
        self._thread: threading.Thread | None
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)

    def start(self) -> None:
        assert self._thread is not None
        try:
            self._thread.start()
        except RuntimeError:  # there can be no more threads
            self._executor.close()
            raise

    @property
    def ended(self) -> bool:
        return self.lost.is_set() or self._ended.is_set()

    def is_late(self) -> bool:
        """Whether there was no good check-in for so long that others may have expired this one."""
        return now() >= self._deadline

    def lose(self) -> None:
        """The place is another's, or nobody's: for good."""
        with self._lock:
            if self._ended.is_set():
                return
            self.lost.set()
            # Before the thread sees the end, after which nobody is told anything more.
            self._on_lost()
            self._ended.set()
        self._wakeup.set()
        _log.error("master %d has lost its place", self._place.masterid)

    def end(self) -> None:
        """Check in no more: the place is to be given back."""
        self._ended.set()
        self._wakeup.set()

    def join(self) -> None:
        """Wait until the thread has ended, which takes as long as a call of its executor may."""
        thread = self._thread
        if thread is not None and thread.ident and thread is not threading.current_thread():
            thread.join()

    def disown(self) -> None:
        """Lose the place without telling anybody: it is the parent's of this process."""
        self._lock = threading.RLock()
        self.lost, self._ended, self.in_doubt = (threading.Event() for _ in range(3))
        self.lost.set()
        self._ended.set()
        self._thread = None

    # --- The thread ---

    def _keep(self) -> None:
        due = now()
        try:
            while self._pause(due):
                done = self._check_in_and_look()
                soon, late = (0.8, 1.0) if done and not self.is_late() else (0.0, 0.25)
                due = now() + self._interval * random.uniform(soon, late)
                due = min(due, self._detector.next_look())
            self._executor.close()
        finally:
            self._on_end()

    def _check_in_and_look(self) -> bool:
        """Whether both were done.

        One after the other: that others do not move says nothing while this one cannot either,
        where what is stored can be read but not written.
        """
        try:
            self._check_in()
            if not self._ended.is_set():
                self._expire_silent()
        except _Ended:
            return False
        except Exception as error:
            # Whatever it is: the place is kept for as long as there may be a way to.
            is_strange = not isinstance(error, Error)
            what = str(error)
            _log.warning(
                "master %d is out of touch: %s", self._place.masterid, what, exc_info=is_strange
            )
            return False
        return True

    def _check_in(self) -> None:
        sent = now()
        if not self._await(self._executor.submit(check_in, self._place)):
            self.lose()
            return
        with self._lock:
            self._deadline = sent + self._expire_after
            if not self.is_late():
                self.in_doubt.clear()

    def _expire_silent(self) -> None:
        asked = now()
        sightings = self._await(self._executor.submit(look_around))
        others = [one for one in sightings if one.masterid != self._place.masterid]
        self._detector.look(others, asked, now())
        silent = self._detector.silent()
        if not silent and not self._doubt.is_pending:
            return
        call = self._executor.submit(expire_silent_masters, silent, self._doubt)
        # Even at the end: whom it has expired, nobody else will be told of.
        expired = self._await(call, to_the_end=True)
        if expired:
            names = ", ".join(f"{one.id} ({shown(one.name)})" for one in expired)
            _log.warning("master %d has expired %s", self._place.masterid, names)
            self._on_expired(expired)

    # --- Waiting, and doubt ---

    def _await(self, future: Future[R], *, to_the_end: bool = False) -> R:
        """What the future gives; raises _Ended if the place is not kept any more by then.

        Even ``to_the_end`` it waits no longer than a call may take, should its worker never come.
        """
        future.add_done_callback(lambda _: self._wakeup.set())
        give_up = None
        while not future.done():
            if self._ended.is_set():
                give_up = give_up or now() + (self._executor.timeout if to_the_end else 0.0)
                if now() >= give_up:
                    future.cancel()
                    raise _Ended
            # Cleared first: what is set from here on is looked at.
            self._wakeup.clear()
            if not future.done() and (give_up or not self._ended.is_set()):
                self._wakeup.wait(self._until_doubt())
            self._notice_doubt()
        self._notice_doubt()
        return future.result()

    def _pause(self, until: float) -> bool:
        """Wait until then; False as soon as the place is not kept any more."""
        while (left := until - now()) > 0:
            if self._ended.wait(min(left, self._until_doubt())):
                return False
            self._notice_doubt()
        return not self._ended.is_set()

    def _until_doubt(self) -> float:
        """How long to wait at most."""
        if self.in_doubt.is_set():
            return LONGEST_WAIT
        return min(max(0.0, self._deadline - now()), LONGEST_WAIT)

    def _notice_doubt(self) -> None:
        with self._lock:
            begins = self.is_late() and not self.in_doubt.is_set()
            if begins:
                self.in_doubt.set()
        if begins:
            _log.warning("master %d is in doubt: it cannot check in", self._place.masterid)


class _Ended(Exception):
    """The place is not kept any more, and what is waited for does not matter."""
