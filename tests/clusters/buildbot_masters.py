"""Real Buildbot masters that keep their state in statedb, as docs/howto/buildbot.md says.

Given to pytest by name (``tox -e buildbot``), in an environment that has Buildbot.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import buildbot_state
import documents
import pytest
from buildbot.db.state import StateConnectorComponent
from buildbot.test.util.interfaces import InterfaceTests
from engines import PostgreSQL

import statedb

EXAMPLE = documents.ROOT / "docs" / "examples" / "buildbot_state.py"
HOW_TO = (documents.ROOT / "docs" / "howto" / "buildbot.md").read_text("utf-8")
TAC, COPY = documents.blocks(HOW_TO, "python")
COMMAND = Path(sys.executable).with_name("buildbot")
ITS_URL = '"postgresql://buildbot@db.example.org/state"'
#: For a machine that is slow.
PATIENCE = 120.0
#: What each of two masters does at once with the other.
UPDATES, CREATED = 200, 20

MASTER_CFG = """
from buildbot.plugins import schedulers, util, worker
from buildbot.schedulers.base import ReconfigurableBaseScheduler
from buildbot.util.service import BuildbotService
from twisted.internet import defer, task
from twisted.python import log


class Counter(ReconfigurableBaseScheduler):
    '''Counts its activations, and notes by which master each was.'''

    POLL_INTERVAL_SEC = 0.5

    @defer.inlineCallbacks
    def activate(self):
        yield super().activate()
        log.msg("the counter begins")
        by = yield self.getState("by", [])
        yield self.setState("by", [*by, self.master.name])
        log.msg("the counter has counted")


class Sharer(BuildbotService):
    '''Meets its like of another master, and does with it what two do at once.'''

    name = "sharer"

    @defer.inlineCallbacks
    def startService(self):
        yield super().startService()
        self.share().addErrback(log.err, "the sharer failed")

    @defer.inlineCallbacks
    def share(self):
        state, name = self.master.db.state, self.master.name
        common = yield state.getObjectId("common", "Sharer")
        yield state.updateState(common, "here", lambda here: [*here, name], [])
        while len((yield state.getState(common, "here"))) < 2:
            yield task.deferLater(self.master.reactor, 0.01)
        created = [state.atomicCreateState(common, f"created {n}", lambda: name) for n in range(%d)]
        created = yield defer.gatherResults(created)
        counts = []
        for n in range(%d):
            count = yield state.updateState(common, "count", lambda count: count + 1, 0)
            counts.append(count)
            yield state.setState(common, f"{n} by {name}", count)
        yield state.setState(common, f"told by {name}", {"created": created, "counts": counts})


BuildmasterConfig = {
    "builders": [util.BuilderConfig("tests", workernames=["one"], factory=util.BuildFactory())],
    "workers": [worker.Worker("one", "password")],
    "protocols": {"pb": {"port": "tcp:0:interface=127.0.0.1"}},
    "schedulers": [
        schedulers.Periodic(name="hourly", builderNames=["tests"], periodicBuildTimer=3600),
        Counter(name="counter", builderNames=["tests"]),
    ],
    "services": [Sharer()] if %r else [],
    "multiMaster": %r,
    "db": {"db_url": %r},
    "buildbotNetUsageData": None,
}
"""


class Master:
    """A Buildbot master in a directory of its own, made and run by Buildbot's own command."""

    def __init__(self, directory: Path, db_url: str, *, shares: bool = False) -> None:
        self.directory = directory
        self.log = directory / "twistd.log"
        self._process: subprocess.Popen[bytes] | None = None
        buildbot("create-master", "--quiet", "--relocatable", f"--db={db_url}", str(directory))
        config = MASTER_CFG % (CREATED, UPDATES, shares, shares, db_url)
        (directory / "master.cfg").write_text(config, "utf-8")
        self._tac = (directory / "buildbot.tac").read_text("utf-8")

    def keep_state(self, url: str) -> None:
        """Do what the page says."""
        shutil.copy(EXAMPLE, self.directory)
        assert TAC.count(ITS_URL) == 1
        lines = TAC.replace(ITS_URL, repr(url))
        (self.directory / "buildbot.tac").write_text(f"{self._tac}\n{lines}", "utf-8")

    @contextlib.contextmanager
    def running(self, until: Callable[[], bool] | None = None) -> Iterator[None]:
        """Have it run, for as long as it takes it to start, and until something is so."""
        self.start()
        try:
            self.wait_for(self.has_started)
            self.wait_for(until or self.has_started)
            yield
        except BaseException:
            self.kill()
            raise
        self.stop()

    def start(self) -> None:
        self.log.unlink(missing_ok=True)
        # A file that is left open would be said in its output.
        options = ["-W", "error::ResourceWarning", str(COMMAND)]
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *options, "start", "--nodaemon", str(self.directory)],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def has_started(self) -> bool:
        return "BuildMaster is running" in self.said()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ended = self._process.poll() is not None
            assert not ended, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as an init system does; it has nothing to complain about."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            assert self._process.wait(PATIENCE) == 0, self.said()
        finally:
            self.kill()
        said = self.said()
        assert "BuildMaster is stopped" in said
        assert "Traceback" not in said, said
        assert "Unhandled" not in said, said
        assert (self.directory / "output").read_bytes() == b""

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def fails(self) -> str:
        """What it says when it does not start."""
        self.start()
        assert self._process is not None
        try:
            self._process.wait(PATIENCE)
        finally:
            self.kill()
        return self.said()

    def said(self) -> str:
        return self.log.read_text("utf-8") if self.log.exists() else ""


def buildbot(*arguments: str) -> None:
    command = [sys.executable, str(COMMAND), *arguments]
    subprocess.run(command, env=environment(), check=True, capture_output=True)


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "STATEDB_URL"}


def remembered(own: Any, name: str, class_name: str) -> dict[str, Any]:
    """All that an object remembers, by a connection of the driver's."""
    filters = [
        statedb.Filter("name", "eq", [name]),
        statedb.Filter("class_name", "eq", [class_name]),
    ]
    objects = statedb.state.get_objects(own, statedb.ResultSpec(filters=filters))
    return statedb.state.get_states(own, objects[0].id) if objects else {}


def rows(database: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(database)) as own:
        ((count,),) = own.execute(f"SELECT COUNT(*) FROM {table}")
        return int(count)


def own_state(database: Path) -> int:
    """How much is in the tables that Buildbot itself keeps state in."""
    return rows(database, "objects") + rows(database, "object_state")


# --- One master ---


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    master = Master(tmp_path / "master", "sqlite:///state.sqlite")
    yield master
    master.kill()


def test_a_master_that_starts_again_finds_its_schedulers_state_in_statedb(
    master: Master, url: str, second: Any
) -> None:
    its_own = master.directory / "state.sqlite"
    master.keep_state(url)

    def counted(times: int) -> Callable[[], bool]:
        return lambda: len(remembered(second, "counter", "Counter").get("by", [])) == times

    def has_built() -> bool:
        return "last_build" in remembered(second, "hourly", "Periodic") and counted(1)()

    with master.running(until=has_built):
        assert "missed scheduled build time - building immediately" in master.said()
    hourly = remembered(second, "hourly", "Periodic")
    assert abs(hourly["last_build"] - time.time()) < PATIENCE
    assert rows(its_own, "buildsets") == 1

    # It knows when it built last, so that the next hour's build is not yet due.
    with master.running(until=counted(2)):
        assert "building immediately" not in master.said()
    assert remembered(second, "hourly", "Periodic") == hourly
    assert rows(its_own, "buildsets") == 1
    assert own_state(its_own) == 0

    # It was this by which it knew.
    for one in statedb.state.get_objects(second):
        statedb.state.delete_object(second, one.id)
    with master.running(until=has_built):
        assert "building immediately" in master.said()
    assert rows(its_own, "buildsets") == 2
    assert own_state(its_own) == 0


def test_what_buildbot_has_kept_can_be_taken_along(
    master: Master, url: str, second: Any, tmp_path: Path
) -> None:
    its_own = master.directory / "state.sqlite"
    with master.running(until=lambda: "the counter has counted" in master.said()):
        pass
    assert own_state(its_own) > 3

    assert COPY.count('"sqlite:///remembered.sqlite"') == 1
    program = tmp_path / "take_along.py"
    program.write_text(COPY.replace('"sqlite:///remembered.sqlite"', repr(url)), "utf-8")
    for _ in range(2):
        command = [sys.executable, "-W", "error", str(program)]
        done = subprocess.run(command, cwd=master.directory, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"hourly Periodic {'last_build': " in done.stdout
    before = remembered(second, "counter", "Counter")["by"]
    assert len(before) == 1

    master.keep_state(url)
    kept = own_state(its_own)
    with master.running(
        until=lambda: len(remembered(second, "counter", "Counter")["by"]) == 2,
    ):
        assert "building immediately" not in master.said()
    assert remembered(second, "counter", "Counter")["by"] == before * 2
    assert own_state(its_own) == kept


def test_a_master_whose_state_is_out_of_reach_says_so_and_does_not_start(master: Master) -> None:
    master.keep_state(f"sqlite:///{master.directory}/no/such/directory/state.sqlite")
    said = master.fails()
    assert "BuildMaster startup failed" in said
    assert "statedb.errors.DatabaseError" in said
    assert "no/such/directory" in said
    assert "hourly" not in said  # no scheduler has begun
    assert own_state(master.directory / "state.sqlite") == 0


def test_buildbots_other_commands_read_its_tac_and_open_nothing(master: Master) -> None:
    master.keep_state("sqlite:///opened.sqlite")
    buildbot("checkconfig", str(master.directory))
    buildbot("upgrade-master", "--quiet", str(master.directory))
    assert not list(master.directory.rglob("opened.sqlite*"))
    assert not Path("opened.sqlite").exists()


# --- Two masters ---


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Any]:
    engine = PostgreSQL("postgresql")
    with engine.running():
        yield engine


def test_two_masters_on_one_postgresql_share_what_objects_remember(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    with (
        contextlib.ExitStack() as stack,
        postgresql.empty_database(tmp_path) as url,
    ):
        its_own = url.replace("postgresql://", "postgresql+psycopg://")
        pair = [Master(tmp_path / name, its_own, shares=True) for name in ("one", "two")]
        for master in pair:
            # Both make the tables: whoever is second finds them.
            master.keep_state(url)
            stack.callback(master.kill)
            master.start()
        second = stack.enter_context(
            contextlib.closing(postgresql.connect(url, autocommit=True)),
        )
        for master in pair:
            master.wait_for(master.has_started)

        def told() -> dict[str, Any]:
            common = remembered(second, "common", "Sharer")
            return {key: one for key, one in common.items() if key.startswith("told by ")}

        pair[0].wait_for(lambda: len(told()) == 2)
        _check_shared(remembered(second, "common", "Sharer"), told())

        # One of them has the scheduler. When it stops, the other goes on with what it knew.
        def by() -> list[str]:
            counted = remembered(second, "counter", "Counter").get("by", [])
            return [name.rpartition("/")[2] for name in counted]

        pair[0].wait_for(lambda: len(by()) == 1)
        first, other = sorted(pair, key=lambda master: master.directory.name != by()[0])
        first.stop()
        other.wait_for(lambda: len(by()) == 2)
        assert by() == [first.directory.name, other.directory.name]
        other.stop()
        for table in ("objects", "object_state"):
            assert second.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (0,)


def _check_shared(common: dict[str, Any], told: dict[str, Any]) -> None:
    one, two = told.values()
    names = [key.removeprefix("told by ") for key in told]
    assert sorted(common["here"]) == sorted(names)

    # Whoever came second was told what the first had made up.
    assert one["created"] == two["created"]
    assert len(one["created"]) == CREATED
    assert set(one["created"]) <= set(names)
    assert [common[f"created {n}"] for n in range(CREATED)] == one["created"]

    # No update is lost, nor done twice, and neither master waited for the other to be through.
    assert common["count"] == 2 * UPDATES
    assert sorted(one["counts"] + two["counts"]) == list(range(1, 2 * UPDATES + 1))
    assert min(one["counts"]) < max(two["counts"])
    assert min(two["counts"]) < max(one["counts"])
    for name, its in zip(names, (one, two), strict=True):
        assert [common[f"{n} by {name}"] for n in range(UPDATES)] == its["counts"]


# --- The same as Buildbot's own ---


def test_it_has_the_methods_of_buildbots_own_connector() -> None:
    theirs = {
        name: method
        for name, method in inspect.getmembers(StateConnectorComponent, inspect.isfunction)
        if name in vars(StateConnectorComponent) and not name.startswith(("_", "thd"))
    }
    assert set(theirs) == {"getObjectId", "getState", "setState", "atomicCreateState"}
    assert buildbot_state.State.Thunk is StateConnectorComponent.Thunk

    check: Any = InterfaceTests()
    check.fail = pytest.fail
    for name, method in theirs.items():
        check.assertArgSpecMatches(method, getattr(buildbot_state.State, name))


def test_it_answers_as_buildbots_own_connector_does(url: str) -> None:
    program = Path(__file__).with_name("buildbot_contract.py")
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(program), url],
        env={**environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs, ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == theirs
    assert len(theirs) > 50


def test_asked_before_the_master_runs_or_after_its_end_it_is_the_deferreds_error(
    tmp_path: Path,
) -> None:
    program = """
import buildbot_state
from twisted.internet import defer, task

async def main(reactor):
    state = buildbot_state.State("sqlite:///kept.sqlite")
    await state.stopService()
    for _ in range(2):
        try:
            await state.getObjectId("nightly", "Nightly")
        except Exception as error:
            print(type(error).__name__)
        await state.startService()
        last = state.getObjectId("nightly", "Nightly")
        await state.stopService()
        print(await last)
    try:
        await state.getState(1, "last")
    except Exception as error:
        print(type(error).__name__)

task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", program],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["RuntimeError", "1", "PoolClosedError", "1", "PoolClosedError"]
