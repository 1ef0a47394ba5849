"""Member: a process's place in the cluster, as the process uses it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from statedb.callbacks import Callbacks
from statedb.claims import Claim, claim, release_claim
from statedb.errors import (
    Error,
    InvalidSettingError,
    InvalidTypeError,
    MasterInDoubtError,
    MasterLostError,
    UnusableConnectionError,
)
from statedb.executor import Executor
from statedb.keeper import Keeper, now
from statedb.masters import MasterModel
from statedb.names import encode_name, shown
from statedb.place import leave_place, take_place
from statedb.process import members_of
from statedb.times import check_seconds, in_microseconds

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_log = logging.getLogger("statedb")

#: The shortest interval between check-ins, in seconds.
LEAST_INTERVAL = 0.01


class Member:
    """A process's place in the cluster; a context manager that leaves it.

    A thread of its own, on a connection of its own, checks in every ``interval`` seconds and
    expires who has fallen silent. All of it can be used from any thread.
    """

    def __init__(
        self,
        executor: Executor,
        owner: object,
        name: str,
        *,
        interval: float,
        expire_after: float,
        on_expired: Callable[[list[MasterModel]], object] | None,
        on_lost: Callable[[Member], object] | None,
    ) -> None:
        encode_name(name, "a master's name")
        #: Under which it joined.
        self.name = name
        self.interval = check_seconds("interval", interval, LEAST_INTERVAL)
        self.expire_after = check_seconds("expire_after", expire_after, LEAST_INTERVAL)
        # In whole microseconds: as floats, 0.6 is less than 3 * 0.2.
        if in_microseconds(self.expire_after) < 3 * in_microseconds(self.interval):
            raise InvalidSettingError(
                f"expire_after is at least three times the interval, so that one check-in may fail:"
                f" {expire_after} is less than 3 * {interval}"
            )
        for what, callback in (("on_expired", on_expired), ("on_lost", on_lost)):
            if callback is not None and not callable(callback):
                raise InvalidTypeError(f"{what} is a function, not {type(callback).__name__}")
        _check_alone(executor, "join()")
        self._executor = executor
        # Or the Database could be collected, and would close itself, while this goes on.
        self._owner = owner
        self._on_expired = on_expired
        self._on_lost = on_lost
        self._callbacks = Callbacks() if on_expired or on_lost else None
        # Held while the place is given back, by this thread.
        self._leaving = threading.Lock()
        self._leaver = 0
        self._left = False
        try:
            self._join()
        except BaseException:
            if self._callbacks is not None:
                self._callbacks.end()
            raise

    def _join(self) -> None:
        taken = now()
        self._place = self._executor.run(take_place, self.name, self.expire_after)
        try:
            self._keeper = Keeper(
                self._executor,
                self._place,
                taken,
                interval=self.interval,
                expire_after=self.expire_after,
                on_lost=self._tell_of_loss,
                on_expired=self._tell_of_expiry,
                on_end=self._tell_no_more,
            )
            _members.add(self)
            self._keeper.start()
            # Closed meanwhile, the Database has seen no member that had to leave.
            self._executor.check_open()
        except BaseException:
            self._give_up()
            raise
        _log.info("master %d (%s) has joined", self.id, shown(self.name))

    def _give_up(self) -> None:
        """Undo what was begun of joining; what fails of that, the others' expiry will do."""
        _members.discard(self)
        if hasattr(self, "_keeper"):
            self._keeper.end()
        with contextlib.suppress(Error):
            self._give_back()

    @property
    def id(self) -> int:
        """The master's id."""
        return self._place.masterid

    @property
    def incarnation(self) -> int:
        """Which activation of the master this member is."""
        return self._place.incarnation

    @property
    def lost(self) -> threading.Event:
        """Set once the place is lost, for good."""
        return self._keeper.lost

    @property
    def in_doubt(self) -> threading.Event:
        """Set while no check-in was good for so long that others may have expired this one."""
        return self._keeper.in_doubt

    # --- The place, to whoever asks for it ---

    def check(self) -> None:
        """Raise unless this process has its place, as far as can be known without asking.

        MasterLostError is final; MasterInDoubtError ends with the next good check-in. What must
        surely not happen once the place is lost belongs into a transaction, after ``hold_claim``.
        """
        if self._keeper.ended:
            why = "lost its place" if self.lost.is_set() else "left"
            raise MasterLostError(f"master {self.id} ({shown(self.name)}) has {why}: join() anew")
        if self._keeper.is_late():
            raise MasterInDoubtError(
                f"master {self.id} ({shown(self.name)}) could not check in for"
                f" {self.expire_after:g} s: whether it still has its place is not known"
            )

    def claim(self, kind: str, name: str) -> Claim:
        """Link a thing exclusively to this member, as ``masters.claim`` does; the Claim.

        Raises as ``check`` does, AlreadyClaimedError, and MasterLostError if the database says so.
        """
        self.check()
        try:
            return self._executor.run(claim, self.id, kind, name, incarnation=self.incarnation)
        except MasterLostError:
            self._keeper.lose()
            raise

    def release(self, claim: Claim) -> bool:
        """Whether the claim still held; it is free now. Who has claimed it since keeps it."""
        self.check()
        return self._executor.run(release_claim, claim)

    def leave(self) -> None:
        """Give the place back: inactive, holding nothing. Again, or after a loss, does nothing.

        No thread of its own is left then. Raises DatabaseError where the database cannot be told:
        try again, or the others will expire this master.
        """
        _check_alone(self._executor, "leave()")
        if self._leaver == threading.get_ident():
            return  # a signal handler's, in the midst of it
        self._keeper.end()
        try:
            if self._leaving.acquire(timeout=self._executor.timeout):
                self._leaver = threading.get_ident()
                try:
                    if not self._left and not self.lost.is_set():
                        self._give_back()
                    self._left = True
                finally:
                    self._leaver = 0
                    self._leaving.release()
        finally:
            self._end_threads()
        _members.discard(self)

    def _give_back(self) -> None:
        if _exiting.is_set():
            # Now that no more threads can be started, what watches a new connection's time.
            self._executor.run(leave_place, self._place)
        else:
            # Not by the keeper's executor, which may be waiting for an answer that never comes.
            executor = self._executor.sibling()
            try:
                executor.run(leave_place, self._place)
            finally:
                executor.close()
        _log.info("master %d (%s) has left", self.id, shown(self.name))

    def _end_threads(self) -> None:
        self._keeper.join()
        if self._callbacks is not None:
            self._callbacks.join(self._executor.timeout)

    def _forsake(self) -> None:
        """Check in no more, and leave it to the others to find out."""
        self._keeper.end()
        self._end_threads()
        _members.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.leave()
        except Error as failure:
            if error is None:
                raise
            # The block's own error is the one to be seen.
            _log.warning("master %d could not leave: %s", self.id, str(failure))

    def __repr__(self) -> str:
        state = "active"
        if self._keeper.ended:
            state = "lost" if self.lost.is_set() else "left"
        return f"<statedb.Member {self.id} {shown(self.name)}, {state}>"

    # --- What its keeper tells ---

    def _tell_of_expiry(self, expired: list[MasterModel]) -> None:
        if self._callbacks is not None and self._on_expired is not None:
            self._callbacks.call(partial(self._on_expired, expired))

    def _tell_of_loss(self) -> None:
        if self._callbacks is not None and self._on_lost is not None:
            self._callbacks.call(partial(self._on_lost, self))

    def _tell_no_more(self) -> None:
        if self._callbacks is not None:
            self._callbacks.end()

    def _disown(self) -> None:
        self._keeper.disown()
        self._callbacks = None


def _check_alone(executor: Executor, what: str) -> None:
    if executor.is_busy_here:
        # Its own connection might wait for what this thread has locked.
        raise UnusableConnectionError(f"{what} cannot be a part of a transaction or an operation")


# --- The process's end, and its forks ---

_members: weakref.WeakSet[Member] = weakref.WeakSet()


_exiting = threading.Event()


def leave_all(owner: object = None) -> None:
    """Have all members of a Database leave, or of this process.

    Where one cannot, the others of its Database only stop checking in: each try takes its time.
    """
    unreachable = set()
    for member in members_of(_members):
        if owner is not None and member._owner is not owner:
            continue
        if member._executor in unreachable:
            member._forsake()
            continue
        try:
            member.leave()
        except Error as error:
            # As text: the error's traceback would keep a connection for as long as the record.
            _log.warning("master %d could not leave: %s", member.id, str(error))
            unreachable.add(member._executor)
            member._forsake()


# Registered after the hook of process.py, and so called before it.
@atexit.register
def _leave_at_exit() -> None:
    _exiting.set()
    leave_all()


def _after_fork_in_child() -> None:
    for member in members_of(_members):
        member._disown()
    _members.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
