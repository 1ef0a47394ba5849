"""Blocks: what users do with a Database as a whole: transaction() and many futures at once."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from faults.acts import ALWAYS_UNKNOWN, Act, listed, new_value
from faults.scene import KIND, NAMES, Scene, Snapshot
from statedb import Connection, Database, ObjectModel
from statedb.masters import hold_claim

_THERE = ("there", "Object")
_NEW = ("new", "new too")


def write_all(db: Database, objectid: int, masterid: int) -> list[Any]:
    """A transaction of everything: three kinds of caller, and state and masters together."""
    with db.transaction() as conn:
        results: list[Any] = [
            db.state.thdSetState(objectid, "k0", "after"),
            db.state.setState(objectid, "new", "after").result(),
            db.state.thdDeleteState(objectid, "k1"),
            db.state.thdUpdateState(objectid, "k2", listed),
        ]
        held = db.masters.thdClaim(masterid, KIND, "new")
        with conn.transaction():
            hold_claim(conn, held)
            results.append(db.state.thdAtomicCreateState(objectid, "new too", new_value))
    return results


def give_up(db: Database, objectid: int, masterid: int) -> str:
    """A transaction that its caller leaves by an error of his own."""
    with db.transaction():
        db.state.thdSetStates(objectid, dict.fromkeys(NAMES, "after"))
        db.masters.thdSetMasterState(masterid, False)
        raise LookupError


def set_at_once(db: Database, objectid: int) -> list[Any]:
    """Futures that wait together, of values that are there and of new ones."""
    with _Queued(db):
        futures = [db.state.setState(objectid, name, "after") for name in (*NAMES, *_NEW)]
    return _results(futures)


def write_at_once(db: Database, objectid: int) -> list[Any]:
    """Futures of several operations; on SQLite they share a commit."""
    with _Queued(db):
        futures: list[Future[Any]] = [
            db.state.setState(objectid, "k0", "after"),
            db.state.setStates(objectid, {"k1": "after", "new": "after"}),
            db.state.deleteState(objectid, "k2"),
            db.state.setState(objectid, "new too", "after"),
        ]
    return _results(futures)


def read_at_once(db: Database, objectid: int) -> list[Any]:
    with _Queued(db):
        futures: list[Future[Any]] = [db.state.getState(objectid, name) for name in NAMES]
        futures += [db.state.getObjects(), db.state.getState(objectid, "absent", None)]
    return _results(futures)


class _Queued:
    """Has what is submitted to a Database with one worker wait, until the block's end."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._begun, self._go = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self._first = self._db.submit(self._hold)
        assert self._begun.wait(60)

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._first.result(60)

    def _hold(self, _: Connection) -> None:
        self._begun.set()
        assert self._go.wait(60)


def _results(futures: list[Future[Any]]) -> list[Any]:
    """What each gives, the class of what it raises; none is left waiting."""
    outcomes: list[Any] = []
    for future in futures:
        error = future.exception(60)
        outcomes.append(future.result() if error is None else type(error))
    return outcomes


def _some_of(*calls: tuple[str, ...]) -> Any:
    """Any of several calls, each of them all or nothing: each is a caller's of its own."""

    def between(before: Snapshot, after: Snapshot) -> Iterable[Snapshot]:
        for chosen in itertools.product((False, True), repeat=len(calls)):
            names = {
                name for call, done in zip(calls, chosen, strict=True) if done for name in call
            }
            values = {
                key: (after if key[1] in names else before)["values"].get(key)
                for key in {**before["values"], **after["values"]}
            }
            present = {key: value for key, value in values.items() if value is not None}
            yield {**before, "values": present}

    return between


def _both(scene: Scene) -> tuple[int, int]:
    return scene.objectid, scene.masterid


def _object(scene: Scene) -> tuple[int]:
    return (scene.objectid,)


#: By name, as ACTS, but that each is given a Database.
BLOCKS: dict[str, Act] = {
    "transaction()": Act(
        write_all,
        _both,
        lambda _: ["after", "after", True, ["before"], "after"],
        again=lambda _: ["after", "after", False, [["before"]], "after"],
        unknown=ALWAYS_UNKNOWN,
    ),
    "transaction() given up": Act(give_up, _both, lambda _: LookupError, changes=False),
    "setState of several at once": Act(
        set_at_once,
        _object,
        lambda _: ["after"] * 6,
        between=_some_of(*((name,) for name in (*NAMES, *_NEW))),
    ),
    "several writes at once": Act(
        write_at_once,
        _object,
        lambda _: ["after", {"k1": "after", "new": "after"}, True, "after"],
        again=lambda _: ["after", {"k1": "after", "new": "after"}, False, "after"],
        between=_some_of(("k0",), ("k1", "new"), ("k2",), ("new too",)),
    ),
    "several reads at once": Act(
        read_at_once,
        _object,
        lambda scene: [*["before"] * 4, [ObjectModel(scene.objectid, *_THERE)], None],
        changes=False,
    ),
}
