"""Processes that end at each moment of each operation: all of it is done, or nothing."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import pkgutil
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import Engine
from onlooker import Onlooker

import statedb
from faults import extent
from faults.acts import ACTS, Act
from faults.blocks import BLOCKS
from faults.mortal import ENDED, NEVER, WAYS, Order, obedience
from faults.scene import Scene
from statedb import Database, MastersConnector, StateConnector, schema
from statedb.connection import adapt
from statedb.masters import hold_claim
from statedb.state import get_object_id, set_state

pytestmark = pytest.mark.once

Obey = Callable[[str, Order], int]

#: How many acts of each way there are; which, the short form draws by the run's seed.
MOST_ACTS = extent({"database": 5, "application": 5, "program": 2}, dict.fromkeys(WAYS, 1000))
#: How often processes end at the least, in all acts of a way together.
LEAST_ENDS = extent(
    {"database": 10, "application": 20, "program": 16},
    {"database": 240, "application": 340, "program": 100},
)


@pytest.fixture(scope="module")
def obey(engine: Engine) -> Iterator[Obey]:
    with obedience(engine) as give:
        yield give


@pytest.fixture
def onlooker(application: Callable[..., Any]) -> Onlooker:
    return Onlooker(application(autocommit=True))


def test_every_public_operation_is_an_act() -> None:
    done = {act.operation for act in ACTS.values()}
    # A claim is held within a transaction only, as `write_under_claim` does; and the processes that
    # upgrade end in a test of their own.
    done |= {hold_claim, schema.upgrade}
    modules = [
        importlib.import_module(one.name)
        for one in pkgutil.walk_packages(statedb.__path__, "statedb.")
        # The command line's are put together from these.
        if not one.name.endswith("__main__") and not one.name.startswith("statedb.cli")
    ]
    marked = {
        found
        for module in modules
        for found in vars(module).values()
        if inspect.isfunction(found) and hasattr(found, "__statedb__")
    }
    assert len(marked) > 25
    assert marked <= done
    names = {operation.__name__ for operation in done}
    for connector in (StateConnector, MastersConnector):
        bound = {name.removeprefix("thd") for name in vars(connector) if name.startswith("thd")}
        assert len(bound) > 8
        assert {re.sub("(?<!^)([A-Z])", r"_\1", one).lower() for one in bound} <= names


class _Stage:
    """Where the acts of a way are done: by processes that end, and by one that lives."""

    def __init__(self, url: str, way: str, obey: Obey, scene: Scene, onlooker: Onlooker) -> None:
        self._url = url
        self._way = way
        self._obey = obey
        self._scene = scene
        self._onlooker = onlooker
        self._connections = onlooker.other_connections()

    def process_ends(self, act: Act, moment: int) -> bool:
        """Whether a process has ended at this moment of the act; else it has got through."""
        expected = act.gives(self._scene) if not act.changes else None
        raises = (expected,) if isinstance(expected, type) else ()
        arguments = act.arguments(self._scene)
        code = self._obey(self._url, Order(self._way, act.operation, arguments, moment, raises))
        assert code in (0, ENDED)
        assert self._onlooker.claims_without_an_active_master() == 0
        deadline = time.monotonic() + 60
        while self._onlooker.other_connections() > self._connections:
            assert time.monotonic() < deadline, "the server has not noticed"
            time.sleep(0.001)
        return code == ENDED

    def living_does(self, act: Act, db: Database) -> Any:
        """What who is alive gets, or the class of what is raised; he waits for no lock for long."""
        caller = db if self._way == "program" else adapt(self._scene.own)
        try:
            return act.operation(caller, *act.arguments(self._scene))
        except (statedb.Error, LookupError) as error:
            return type(error)


def _end_at_each_moment(stage: _Stage, scene: Scene, act: Act, db: Database) -> int:
    """How often a process has ended."""
    before = scene.before
    assert not stage.process_ends(act, NEVER)
    after = scene.snapshot()
    assert (after != before) is act.changes
    legal = [before, after, *act.between(before, after)]
    done: list[bool] = []
    for moment in itertools.count():
        if act.changes:
            scene.restore()
        has_ended = stage.process_ends(act, moment)
        found = scene.snapshot()
        assert found in legal, moment
        done.append(found == after)
        given = stage.living_does(act, db)
        # Where there is all of it, it is not done twice; and else what was left is done.
        gives = act.gives if found == before or act.again is None else act.again
        if found in (before, after):
            assert given == gives(scene), moment
        if found != after:
            assert scene.snapshot() == after, moment
        if not has_ended:
            break
    # Before and after one statement at least; and from some moment on it is done.
    assert len(done) > 2
    assert done == sorted(done)
    # After COMMIT, too, a process has ended.
    assert done[-2:] == [True, True]
    assert done[0] is not act.changes
    return len(done) - 1


@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_ends_at_any_moment_leaves_all_of_an_operation_or_nothing(
    url: str, obey: Obey, impatient: Any, onlooker: Onlooker, way: str
) -> None:
    ends: dict[str, int] = {}
    scene = Scene(impatient)
    with statedb.connect(url, pool_size=1, timeout=5) as db:
        db.masters.thdGetMasters()
        stage = _Stage(url, way, obey, scene, onlooker)
        acts = list((BLOCKS if way == "program" else ACTS).items())
        for name, act in random.sample(acts, min(len(acts), MOST_ACTS[way])):
            scene.restore()
            try:
                ends[name] = _end_at_each_moment(stage, scene, act, db)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
    print(f"{sum(ends.values())} processes have ended: {ends}")
    assert sum(ends.values()) >= LEAST_ENDS[way]


# --- Tables that are being made ---

TABLES = ("schema", "states", "objects", "masters", "claims")
#: In what an upgrade may be cut short: whether there are tables, older ones, or none.
OLD = ("no tables", "older tables")
#: Of how many moments the short form takes one.
STRIDE = extent(9, 1)


def upgrade(db: Database) -> None:
    db.upgrade()


class _Tables:
    """The tables of an empty database, dropped and made again and again."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def make(self, db: Database, old: str) -> None:
        for table in TABLES:
            self.run(f"DROP TABLE IF EXISTS statedb_{table}")
        if old == "older tables":
            # Those of version 1 had no masters.
            db.upgrade()
            db.run(set_state, db.run(get_object_id, "there", "Object"), "k", "kept")
            self.run("DROP TABLE statedb_claims")
            self.run("DROP TABLE statedb_masters")
            self.run("UPDATE statedb_schema SET version = 1")

    def found(self) -> dict[str, Any]:
        """What each table holds; tables that are not there are not in it."""
        found = {}
        for table in TABLES:
            column = {"schema": "version", "states": "value"}.get(table, "1")
            with contextlib.suppress(Exception):
                cursor = self.run(f"SELECT {column} FROM statedb_{table} ORDER BY 1")
                found[table] = [row[0] for row in cursor.fetchall()]
        return found

    def run(self, sql: str) -> Any:
        cursor = self._own.cursor()
        cursor.execute(sql)
        return cursor


@pytest.mark.parametrize("old", OLD)
def test_a_process_that_ends_at_any_moment_of_an_upgrade_leaves_what_the_next_one_completes(
    engine: Engine, obey: Obey, tmp_path: Path, old: str
) -> None:
    ends = 0
    versions = [1, schema.VERSION] if old == "older tables" else [schema.VERSION]
    kept = {"objects": [1], "states": ['"kept"']} if old == "older tables" else {}
    complete = {table: [] for table in TABLES} | {"schema": versions} | kept
    with (
        engine.empty_database(tmp_path) as url,
        contextlib.closing(engine.connect(url, autocommit=True)) as own,
    ):
        tables = _Tables(own)
        for moment in itertools.count(random.randrange(STRIDE), STRIDE):
            with statedb.connect(url, timeout=5) as db:
                tables.make(db, old)
            before = tables.found()
            has_ended = obey(url, Order("program", upgrade, (), moment)) == ENDED
            found = tables.found()
            if engine.name in ("sqlite", "postgresql"):
                assert found in (before, complete), moment
            else:
                # There each CREATE commits itself: some tables may be there, but the version, the
                # sign that all are, is written last.
                assert found.keys() <= complete.keys()
                assert found == complete or schema.VERSION not in found.get("schema", ()), moment
                assert {table: found[table] for table in kept} == kept
            # It waits for no lock of the dead one's.
            with statedb.connect(url, timeout=5) as db:
                db.upgrade()
                assert tables.found() == complete
                masterid = db.masters.thdFindMasterId("new")
                assert db.masters.thdSetMasterState(masterid, True)
                assert db.masters.thdClaim(masterid, "builder", "new").token == 1
            if not has_ended:
                assert found == complete
                break
            ends += 1
    print(f"{ends} processes have ended")
    assert ends >= 20 // STRIDE
