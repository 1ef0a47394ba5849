"""A program of its own: writes to a database without end, and says of each write that it is done.

python tireless.py URL LOG NAME: before a write it appends a line to the log, ``begun NUMBER JSON``,
where the JSON holds the new values by key, null for none; after it is acknowledged ``done NUMBER``.
``failed`` is what should never be there. It writes to the object NAME, and counts in the object
``common``.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from collections.abc import Mapping

import statedb
from statedb import Database

KEYS = tuple(f"key {number}" for number in range(12))
#: What is only written together, and always alike.
PAIR = ("left", "right")
#: What everybody adds one to.
COUNT = "count"
TOGETHER = 16


class Tireless:
    """One who writes."""

    def __init__(self, db: Database, log: int, name: str) -> None:
        self._state = db.state
        self._log = log
        self._objectid = db.state.thdGetObjectId(name, "Writer")
        self._common = db.state.thdGetObjectId("common", "Writer")
        self._numbers = itertools.count(1)

    def work(self) -> None:
        actions = (self._set, self._set_several, self._count, self._delete, self._set_in_flight)
        while True:
            random.choice(actions)()

    def _set(self) -> None:
        number = next(self._numbers)
        key = random.choice(KEYS)
        self._begin(number, {key: number})
        assert self._state.thdSetState(self._objectid, key, number) == number
        self._done(number)

    def _set_several(self) -> None:
        number = next(self._numbers)
        values = dict.fromkeys((*PAIR, *random.sample(KEYS, 2)), number)
        self._begin(number, values)
        assert self._state.thdSetStates(self._objectid, values) == values
        self._done(number)

    def _count(self) -> None:
        number = next(self._numbers)
        self._begin(number, {COUNT: number})
        self._state.thdUpdateState(self._common, COUNT, lambda count: count + 1, 0)
        self._done(number)

    def _delete(self) -> None:
        number = next(self._numbers)
        key = random.choice(KEYS)
        self._begin(number, {key: None})
        self._state.thdDeleteState(self._objectid, key)
        self._done(number)

    def _set_in_flight(self) -> None:
        """Several that travel together: more than there are keys, so some follow on each other."""
        in_flight = []
        for _ in range(TOGETHER):
            number = next(self._numbers)
            key = random.choice(KEYS)
            self._begin(number, {key: number})
            in_flight.append((number, self._state.setState(self._objectid, key, number)))
        for number, future in in_flight:
            assert future.result() == number
            self._done(number)

    def _begin(self, number: int, values: Mapping[str, int | None]) -> None:
        self._write(f"begun {number} {json.dumps(values)}\n")

    def _done(self, number: int) -> None:
        self._write(f"done {number}\n")

    def _write(self, line: str) -> None:
        # At once, and past any buffer of this process's, which may be killed.
        assert os.write(self._log, line.encode()) == len(line)


def main(url: str, log: str, name: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        with statedb.connect(url) as db:
            Tireless(db, descriptor, name).work()
    except BaseException as error:
        os.write(descriptor, f"failed {error!r}\n".encode())
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
