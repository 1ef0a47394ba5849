"""Writers and readers of one value of a cluster, each with a Database of its own, who keep account.

The value says of each writer which of its numbers have been written: they are 1, 2, 3 and so on, so
the last one and those that were left out tell all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import statedb
from statedb import Database, DatabaseError, OutcomeUnknownError

if TYPE_CHECKING:
    from typing_extensions import Self

KEY = "account"
#: How long somebody waits who was told of an error, as a careful program does.
PAUSE = 0.05


def add(account: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    """The account with one more number of this writer's."""
    mine = account.get(name, {"last": 0, "left_out": [], "twice": 0})
    last = mine["last"]
    if number <= last:
        mine = {**mine, "twice": mine["twice"] + 1}
    else:
        left_out = [*mine["left_out"], *range(last + 1, number)]
        mine = {**mine, "last": number, "left_out": left_out}
    return {**account, name: mine}


class _Caller:
    """A thread that makes one call after the other, until the end of the context."""

    def __init__(self, url: str, objectid: int, name: str, timeout: float) -> None:
        self.name = name
        self.objectid = objectid
        #: When each call that succeeded began and ended, by the monotonic clock.
        self.good: list[tuple[float, float]] = []
        #: When each error came, and what it said.
        self.errors: list[tuple[float, str]] = []
        #: What a call raised that is no error of the database's.
        self.strange: list[str] = []
        #: How long the longest call took.
        self.longest = 0.0
        self._url, self._timeout = url, timeout
        self._stop = threading.Event()
        self._anew = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def begin_anew(self) -> None:
        """Have it go back to the first host of its URL, as a new process would."""
        self._anew.set()

    def call(self, db: Database) -> None:
        raise NotImplementedError

    def failed(self, error: DatabaseError) -> None:
        self.errors.append((time.monotonic(), f"{type(error).__name__}: {error}"))

    def _run(self) -> None:
        while not self._stop.is_set():
            self._anew.clear()
            with statedb.connect(self._url, timeout=self._timeout, pool_size=2) as db:
                self._call_on(db)

    def _call_on(self, db: Database) -> None:
        while not self._stop.is_set() and not self._anew.is_set():
            began = time.monotonic()
            try:
                self.call(db)
            except DatabaseError as error:
                self.failed(error)
                self._stop.wait(PAUSE)
            except Exception as error:
                self.strange.append(repr(error))
                self._stop.wait(PAUSE)
            else:
                self.good.append((began, time.monotonic()))
            self.longest = max(self.longest, time.monotonic() - began)

    def went_on_after(self, moment: float) -> float | None:
        """How long after a moment the first good call ended that began after it; None so far."""
        later = [ended for began, ended in self.good if began >= moment]
        return later[0] - moment if later else None

    def good_within(self, start: float, end: float) -> int:
        """How many good calls lie between two moments."""
        return sum(start <= began and ended <= end for began, ended in self.good)

    def errors_within(self, start: float, end: float) -> int:
        return sum(start <= moment <= end for moment, _ in self.errors)


class Writer(_Caller):
    """Adds its numbers to the account."""

    def __init__(self, url: str, objectid: int, name: str, timeout: float) -> None:
        super().__init__(url, objectid, name, timeout)
        self.tried = 0
        self.acknowledged: set[int] = set()
        self.last_acknowledged = 0
        self.unknown: set[int] = set()

    def call(self, db: Database) -> None:
        self.tried = number = self.tried + 1
        db.state.thdUpdateState(
            self.objectid, KEY, lambda account: add(account, self.name, number), default={}
        )
        self.acknowledged.add(number)
        self.last_acknowledged = number

    def failed(self, error: DatabaseError) -> None:
        super().failed(error)
        if isinstance(error, OutcomeUnknownError):
            self.unknown.add(self.tried)

    def faults(self, account: dict[str, Any]) -> list[str]:
        """What is wrong about the account, once all is over."""
        mine = account[self.name]
        written = set(range(1, mine["last"] + 1)) - set(mine["left_out"])
        wrong = {
            "lost": self.acknowledged - written,
            "out of nowhere": written - self.acknowledged - self.unknown,
            "written twice": set(range(mine["twice"])),
        }
        return [f"{self.name}: {what}: {sorted(which)}" for what, which in wrong.items() if which]


class Reader(_Caller):
    """Looks whether what it reads can be: all that was acknowledged, nothing that was not tried."""

    def __init__(
        self, url: str, objectid: int, name: str, timeout: float, writers: Sequence[Writer]
    ) -> None:
        super().__init__(url, objectid, name, timeout)
        self._writers = writers
        self.wrong: list[str] = []

    def call(self, db: Database) -> None:
        before = {one.name: one.last_acknowledged for one in self._writers}
        account = db.state.thdGetState(self.objectid, KEY, {})
        for one in self._writers:
            mine = account.get(one.name, {"last": 0, "left_out": []})
            stale = mine["last"] < before[one.name]
            lost = {number for number in mine["left_out"] if number in one.acknowledged}
            if stale or lost or mine["last"] > one.tried:
                self.wrong.append(
                    f"{mine} after {before[one.name]}, before {one.tried}; lost {lost}"
                )
