"""A random value among many, beside one among few."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from typing import Any

import statedb
from benchmarks.contest import Contest
from benchmarks.measure import in_turn, one_by_one
from benchmarks.table import Result, dearer
from benchmarks.workload import CLASS, OBJECT, value
from statedb import Database

COLUMNS = ("objectid", "name_hash", "stamp", "name", "value")


def stored(contest: Contest) -> Iterator[Result]:
    few, many = contest.pace.values
    with ExitStack() as stack:
        blocks = []
        for count in (few, many):
            db = stack.enter_context(_filled(contest, count))
            objectid = db.state.thdGetObjectId(OBJECT, CLASS)
            blocks.append(partial(_look, db, objectid, count, contest.pace.calls))
        costs = in_turn(blocks, contest.pace.turns)
    yield dearer(f"get of {many:,}", contest.engine, f"of {few:,}", *costs)


def _filled(contest: Contest, count: int) -> Database:
    name = f"values{count}"
    db = statedb.connect(contest.databases.url(name))
    db.upgrade()
    objectid = db.state.thdGetObjectId(OBJECT, CLASS)
    contest.databases.fill(name, "statedb_states", COLUMNS, _rows(objectid, count))
    return db


def _rows(objectid: int, count: int) -> Iterable[tuple[Any, ...]]:
    names = [f"key{number}" for number in range(count)]
    # In the order of the key, in which pages are written once.
    hashed = sorted((sha256(name.encode()).digest(), name) for name in names)
    for digest, name in hashed:
        number = int(name[3:])
        yield objectid, digest, number, name.encode(), json.dumps(value(number))


def _look(db: Database, objectid: int, count: int, calls: int) -> float:
    numbers = [random.randrange(count) for _ in range(calls)]
    arguments = [(objectid, f"key{number}") for number in numbers]
    taken, results = one_by_one(db.state.thdGetState, arguments)
    assert results == [value(number) for number in numbers]
    return taken / calls
