"""Connections lost where something commits: the right value, or an outcome that is unknown."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, OwnServer
from onlooker import Onlooker
from proxy import Pattern, Proxy

import statedb
from faults import extent
from faults.acts import ACTS, Act
from faults.adders import KINDS, Outcome, Work, adding
from faults.blocks import BLOCKS
from faults.scene import Scene, Snapshot
from statedb import Connection, Database, OutcomeUnknownError, schema

pytestmark = pytest.mark.once

#: What happens at a statement, by name; the first word says whether it reaches the server.
FAULTS: dict[str, Callable[[Proxy, Pattern], None]] = {
    "before: cut": Proxy.cut_before,
    "after: cut": Proxy.cut_after,
    "before: the server sees the stream's end": Proxy.end_requests_before,
    "after: the client sees the stream's end": Proxy.end_answers_before,
}
#: In which forms an operation is called; a block is given a Database, and has its own.
FORMS = ("sync", "future")
CHANGING = [name for name, act in ACTS.items() if act.changes]
#: On a server each of its futures is a call by itself: `deleteState` among them may be unknown.
CUT = {name: act for name, act in {**ACTS, **BLOCKS}.items() if name != "several writes at once"}


@pytest.fixture
def onlooker(application: Callable[..., Any]) -> Onlooker:
    return Onlooker(application(autocommit=True))


class _Stage:
    """Where acts are done through the proxy, and what is left of them is seen."""

    def __init__(self, db: Database, proxy: Proxy, scene: Scene, onlooker: Onlooker) -> None:
        self.db = db
        self.proxy = proxy
        self.scene = scene
        self._onlooker = onlooker
        self._connections = onlooker.other_connections()

    def do(self, act: Act, form: str) -> Any:
        """What the caller gets, or the class of what is raised."""
        arguments = act.arguments(self.scene)
        try:
            if act in BLOCKS.values():
                return act.operation(self.db, *arguments)
            if form == "sync":
                return self.db.run(act.operation, *arguments)
            return self.db.submit(act.operation, *arguments).result(60)
        except (statedb.Error, LookupError) as error:
            return type(error)

    def begin_anew(self) -> None:
        """Have everything be as before, on a connection that has asked what it asks once."""
        self.scene.restore()
        self.db.run(Connection.certifies)
        self.proxy.forget()

    def look_through(self, act: Act) -> tuple[list[str], Snapshot]:
        """The statements of an act that meets no fault, and what is there when it is done."""
        self.begin_anew()
        assert self.do(act, "sync") == act.gives(self.scene)
        return list(self.proxy.statements), self.scene.snapshot()

    def left(self, *, alive: int = 0) -> Snapshot:
        """What is there once the server has done with the connections that were lost."""
        deadline = time.monotonic() + 60
        while self._onlooker.other_connections() > self._connections + alive:
            assert time.monotonic() < deadline, "the server has not noticed"
            time.sleep(0.001)
        return self.scene.snapshot()


@pytest.fixture
def stage(far_url: str, proxy: Proxy, impatient: Any, onlooker: Onlooker) -> Iterator[_Stage]:
    with statedb.connect(far_url, pool_size=1, timeout=30) as db:
        yield _Stage(db, proxy, Scene(impatient), onlooker)


def _commits(statements: list[str]) -> list[int]:
    """Which of them commit: COMMIT, and outside of transactions what writes."""
    found = []
    within = False
    for position, statement in enumerate(statements):
        word = statement.split()[0].upper()
        # ROLLBACK TO SAVEPOINT ends none.
        within = (within or word == "BEGIN") and statement not in ("COMMIT", "ROLLBACK")
        if word == "COMMIT" or (not within and word not in ("SELECT", "SET", "ROLLBACK")):
            found.append(position)
    return found


def _nth(proxy: Proxy, position: int) -> Callable[[str], bool]:
    """Matches the statement at this position since the proxy was told to forget."""
    return lambda _: len(proxy.statements) == position + 1


def _uncounted(snapshot: Snapshot, act: Act) -> Snapshot:
    """Without what differs where an act was done twice, which is harmless."""
    if not act.counts:
        return snapshot
    masters = {
        name: {**one, "heartbeats": 0, "incarnation": 0}
        for name, one in snapshot["masters"].items()
    }
    return {**snapshot, "masters": masters}


def _meet(stage: _Stage, act: Act, form: str, fault: str, position: int, sent: list[str]) -> Any:
    """What the caller gets whose act meets a fault at this statement."""
    stage.begin_anew()
    FAULTS[fault](stage.proxy, _nth(stage.proxy, position))
    got = stage.do(act, form)
    # It has met it, at the statement that was meant.
    assert stage.proxy.statements[position].split()[:2] == sent[position].split()[:2]
    return got


def test_a_write_that_is_cut_where_it_commits_is_right_or_unknown(stage: _Stage) -> None:
    met: Counter[str] = Counter()
    unknown = 0
    for name, act in CUT.items():
        sent, after = stage.look_through(act)
        before = stage.scene.before
        positions = _commits(sent)
        assert positions or not act.changes, name
        cases = [(at, fault, form) for at in positions for fault in FAULTS for form in FORMS]
        for at, fault, form in random.sample(cases, min(len(cases), extent(1, 1000))):
            case = f"{name}, {form}, {fault} at {sent[at]}"
            arrives = fault.partition(":")[0]
            got = _meet(stage, act, form, fault, at, sent)
            met[name] += 1
            if arrives in act.unknown:
                assert got is OutcomeUnknownError, case
                unknown += 1
                if (arrives, at) == ("before", positions[0]):
                    legal = [before]
                elif (arrives, at) == ("after", positions[-1]):
                    legal = [after]
                else:
                    legal = list(act.between(before, after))
                # Whichever it was, the pool's one connection is a good one now.
                stage.db.masters.thdGetMasters()
                assert stage.left(alive=1) in legal, case
            else:
                assert got == act.gives(stage.scene), case
                assert _uncounted(stage.scene.snapshot(), act) == _uncounted(after, act), case
    print(f"{met.total()} faults, {unknown} outcomes unknown: {dict(met)}")
    assert met.keys() >= {name for name, act in CUT.items() if act.changes}
    assert met.total() >= extent(29, 270)
    assert unknown >= extent(11, 96)


@pytest.mark.parametrize("away", ["refuses", "is silent"])
def test_a_write_whose_answer_was_lost_is_unknown_where_the_server_stays_away(
    far_url: str, proxy: Proxy, impatient: Any, onlooker: Onlooker, away: str
) -> None:
    scene = Scene(impatient)
    timeout = 2.0
    for name in random.sample(CHANGING, extent(1, 10)):
        with statedb.connect(far_url, pool_size=1, timeout=timeout) as db:
            act = ACTS[name]
            stage = _Stage(db, proxy, scene, onlooker)
            sent, after = stage.look_through(act)
            position = _commits(sent)[-1]
            arrives = random.choice(["before", "after"])
            scene.restore()
            proxy.refuse_new()
            began = time.monotonic()
            with contextlib.ExitStack() as stack:
                if away == "is silent":
                    # The system shakes hands, but nobody accepts.
                    stack.enter_context(socket.create_server(("127.0.0.1", proxy.port)))
                got = _meet(stage, act, "sync", f"{arrives}: cut", position, sent)
            assert time.monotonic() - began < timeout + 3, name
            assert got is OutcomeUnknownError, name
            legal = [after] if arrives == "after" else [scene.before]
            if arrives == "before" and position > _commits(sent)[0]:
                legal += act.between(scene.before, after)
            assert stage.left() in legal, name
            proxy.listen()
            # It heals by itself.
            scene.restore()
            assert stage.do(act, "sync") == act.gives(scene)


@pytest.mark.parametrize("stream", ["requests", "answers"])
def test_an_idle_connection_of_which_one_direction_has_ended_costs_no_call(
    stage: _Stage, stream: Any
) -> None:
    act = ACTS["deleteState"]
    for form in FORMS:
        stage.scene.restore()
        stage.db.masters.thdGetMasters()
        stage.proxy.end_all(stream)
        deadline = time.monotonic() + 30
        while stream == "requests" and stage.proxy.connections:  # until the server has ended it
            assert time.monotonic() < deadline
            time.sleep(0.001)
        # Were it sent on that connection, its outcome would be unknown.
        assert stage.do(act, form) is True
        assert stage.scene.snapshot() != stage.scene.before


# --- Upgrades ---


def test_an_upgrade_that_is_cut_where_it_commits_is_done_again(
    server_engine: OwnServer, proxy: Proxy, tmp_path: Path
) -> None:
    server = server_engine.server
    assert server is not None
    tables = [f"statedb_{one}" for one in ("schema", "states", "objects", "masters", "claims")]

    def statements() -> list[str]:
        with statedb.connect(far_url, timeout=30) as db:
            proxy.forget()
            db.upgrade()
            sent = list(proxy.statements)
            assert db.state.thdGetObjectId("first", "Object") == 1
        return sent

    with (
        server_engine.empty_database(tmp_path) as url,
        contextlib.closing(server_engine.connect(url, autocommit=True)) as own,
    ):
        far_url = server.url(url.rpartition("/")[2], proxy.port)
        cursor = own.cursor()
        sent = statements()
        # On MySQL and MariaDB each CREATE commits by itself.
        positions = [
            position
            for position, statement in enumerate(sent)
            if statement.startswith(("COMMIT", "CREATE", "INSERT"))
        ]
        assert len(positions) > 5
        cases = [(position, fault) for position in positions for fault in FAULTS]
        for position, fault in random.sample(cases, extent(2, len(cases))):
            cursor.execute(f"DROP TABLE {', '.join(tables)}")
            with statedb.connect(far_url, timeout=30) as db:
                proxy.forget()
                FAULTS[fault](proxy, _nth(proxy, position))
                db.upgrade()
                assert proxy.statements[position] == sent[position], fault
            cursor.execute("SELECT version FROM statedb_schema")
            assert [row[0] for row in cursor.fetchall()] == [schema.VERSION], (position, fault)
            for table in tables[1:]:
                cursor.execute(f"SELECT COUNT(*) FROM {table}")
                assert [row[0] for row in cursor.fetchall()] == [0]


# --- Counting under continuous cuts ---

PROCESSES = extent(2, 4)
#: How many numbers each thread appends.
EACH = extent(30, 150)


def _break(proxy: Proxy) -> None:
    """Have one more thing go wrong: at a statement to come, or at once, wherever each call is."""
    statements: list[Pattern] = ["UPDATE statedb_states", _is_commit]
    if random.random() < 0.6:
        random.choice(list(FAULTS.values()))(proxy, random.choice(statements))
    elif random.random() < 0.7:
        proxy.cut_all()
    else:
        proxy.end_all(random.choice(["requests", "answers"]))


def _is_commit(statement: str) -> bool:
    return statement == "COMMIT"


def test_updates_under_continuous_cuts_count_exactly(
    engine: Engine, db: Database, far_url: str, proxy: Proxy, objectid: int
) -> None:
    db.state.thdSetState(objectid, "list", [])
    per_process = EACH * len(KINDS)
    works = [Work(far_url, objectid, process * per_process, EACH) for process in range(PROCESSES)]
    faults = 0
    outcomes: dict[int, Outcome] | None = None
    with adding(works) as look:
        began = time.monotonic()
        while (outcomes := look()) is None:
            elapsed = time.monotonic() - began
            assert elapsed < 240, "they do not come to an end"
            if proxy.connections:
                _break(proxy)
                faults += 1
            # Where a machine gets nothing done between two faults, there is ever more time.
            time.sleep(random.uniform(0.0, max(0.02, elapsed / 100)))
    assert outcomes.keys() == set(range(PROCESSES * per_process))
    stored = Counter(db.state.thdGetState(objectid, "list"))
    found = Counter(outcomes[number] for number in stored)
    print(f"{Counter(outcomes.values())}, of which stored {found}; {faults} faults")
    assert max(stored.values()) == 1
    assert found["acknowledged"] == list(outcomes.values()).count("acknowledged")
    assert found["not done"] == 0
    # All that is stored was acknowledged, or of unknown outcome; nothing came of nowhere.
    assert stored.keys() <= outcomes.keys()
    assert found["acknowledged"] > len(outcomes) // 4
    assert list(outcomes.values()).count("unknown") >= extent(1, 20)
    assert faults >= extent(8, 100)
