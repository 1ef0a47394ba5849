"""Members of a cluster that are stopped or killed, and members whose database is away.

What takes long is done once for each engine, side by side, and its record looked at by many tests.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from engines import Engine, OwnServer
from member_process import PATIENCE, MemberProcess, until, with_movable_clock
from proxy import Proxy

import statedb
from statedb import Member
from statedb.masters import MasterModel, hold_claim
from statedb.state import get_state, set_state

if TYPE_CHECKING:
    from typing_extensions import Self

pytestmark = pytest.mark.once

INTERVAL, EXPIRE_AFTER = 0.5, 2.4
SETTINGS = {"interval": INTERVAL, "expire_after": EXPIRE_AFTER}
#: By how many seconds a slow machine may be late with anything.
LATE = 1.5


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _error_of(call: Callable[[], object]) -> str | None:
    """The name of the error of ours that a call raises, if it does."""
    try:
        call()
    except statedb.Error as error:
        return type(error).__name__
    return None


@dataclass(frozen=True)
class Row:
    """A master, as the database has it."""

    active: bool
    incarnation: int
    heartbeats: int
    last_active: int


def _rows(engine: Engine, url: str) -> dict[int, Row]:
    with contextlib.closing(engine.connect(url, autocommit=True)) as second:
        cursor = second.cursor()
        cursor.execute(
            "SELECT id, active, incarnation, heartbeats, last_active FROM statedb_masters"
        )
        return {row[0]: Row(bool(row[1]), *row[2:]) for row in cursor.fetchall()}


def _value(engine: Engine, url: str, objectid: int, name: str) -> Any:
    with contextlib.closing(engine.connect(url, autocommit=True)) as second:
        return get_state(second, objectid, name, None)


class Watcher:
    """A member in the test's own process, with its own Database, that notes what it is told."""

    def __init__(self, url: str, name: str) -> None:
        self.db = statedb.connect(url, timeout=20)
        self.expired: list[int] = []
        self.lost: list[Member] = []
        #: When its doubts began, as those see it who wait for that, and those who ask.
        self.doubts: list[float] = []
        self.refusals: list[float] = []
        #: When it was asked for the last time before each refusal, and was sure.
        self.last_sure: list[float] = []
        self._done = threading.Event()
        self.member = self.db.masters.join(
            name, **SETTINGS, on_expired=self._on_expired, on_lost=self.lost.append
        )
        self._threads = [threading.Thread(target=self._wait), threading.Thread(target=self._ask)]
        for thread in self._threads:
            thread.start()

    def _on_expired(self, masters: list[MasterModel]) -> None:
        self.expired += [one.id for one in masters]

    def _wait(self) -> None:
        while not self._done.is_set():
            if self.member.in_doubt.wait(0.05):
                self.doubts.append(time.monotonic())
                while self.member.in_doubt.is_set() and not self._done.wait(0.005):
                    pass

    def _ask(self) -> None:
        sure, asked = True, 0.0
        while not self._done.wait(0.005):
            before, asked_before, asked = sure, asked, time.monotonic()
            sure = _error_of(self.member.check) is None
            if before and not sure:
                self.refusals.append(time.monotonic())
                self.last_sure.append(asked_before)

    @property
    def is_sure(self) -> bool:
        return _error_of(self.member.check) is None and not self.member.in_doubt.is_set()

    def settle(self) -> None:
        """Wait until it is sure of its place, and forget what doubts a slow start has brought."""
        until(lambda: self.is_sure and self._connected())
        self.doubts.clear()
        self.refusals.clear()
        self.last_sure.clear()

    def _connected(self) -> bool:
        with self.db.transaction() as conn:
            (row,) = conn.fetch_all(
                f"SELECT heartbeats FROM statedb_masters WHERE id = {self.member.id}"
            )
        return bool(row[0] > 1)

    def close(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        self.db.close()


# --- Processes that stand still, or die ---


@dataclass
class Story:
    """What became of a process that was stopped, killed or had a wrong clock."""

    masterid: int = 0
    incarnation: int = 0
    token: int = 0
    #: How many of the observers were told that they had expired it.
    reports: int = 0
    #: How long after its last sign of life somebody was told.
    reported_after: float = 0.0
    #: Its row while it stood still, just before it went on or was killed; and at the very end.
    row_before: Row | None = None
    row_at_the_end: Row | None = None
    #: What it had written last, and what stood there when it had gone on for a while.
    value_before: Any = None
    value_after: Any = None
    #: What asking for its place brought in the end.
    check: str | None = None
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass
class Stops:
    """What happened in a cluster some of whose processes were stopped."""

    stories: dict[str, Story]
    #: The claim of the one who took over from each process that was expired, by its name.
    taken_over: dict[str, statedb.Claim]
    #: Whom anybody was told to have expired.
    expired: list[int]
    #: When the watchers were in doubt, if they were.
    doubts: list[float]
    seconds: float


class Cluster:
    """Two watchers, and processes that work."""

    def __init__(self, engine: Engine, url: str, processes: dict[str, MemberProcess]) -> None:
        self.engine, self.url, self.processes = engine, url, processes
        self.watchers: list[Watcher] = []
        self.stories = {name: Story() for name in processes}
        self.taken_over: dict[str, statedb.Claim] = {}
        self.objectid = 0
        self.stopped: dict[str, float] = {}

    def close(self) -> None:
        for process in self.processes.values():
            process.close()
        for watcher in self.watchers:
            watcher.close()

    def begin(self) -> None:
        self.watchers = [Watcher(self.url, f"watcher {number}") for number in (1, 2)]
        self.objectid = self.watchers[0].db.state.thdGetObjectId("counters", "Counter")
        for name, process in self.processes.items():
            self.stories[name].masterid = process.joined()
            self.stories[name].incarnation = process.events("joined")[0]["incarnation"]
            holds = name.startswith("holding")
            process.do(
                "hold" if holds else "work", kind="counter", name=name, objectid=self.objectid
            )
        for name, process in self.processes.items():
            claimed = process.wait_for("holding" if name.startswith("holding") else "claimed")
            self.stories[name].token = claimed[0]["token"]
        for watcher in self.watchers:
            watcher.settle()

    def reports(self, masterid: int) -> int:
        return self.expired().count(masterid)

    def expired(self) -> list[int]:
        told = [masterid for watcher in self.watchers for masterid in watcher.expired]
        for process in self.processes.values():
            told += [masterid for event in process.events("expired") for masterid in event["ids"]]
        return told

    def stop(self, name: str) -> None:
        """Stop a process between two of its transactions."""
        process = self.processes[name]
        process.wait_for("wrote", 3)
        while True:
            process.stop()
            self.stopped[name] = time.monotonic()
            if self._locks_nothing(self.stories[name].masterid):
                return
            process.go_on()
            time.sleep(0.02)

    def _locks_nothing(self, masterid: int) -> bool:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            if self._can_be_locked(masterid):
                return True
            # Perhaps it is only that a statement of its is not done yet.
            time.sleep(0.02)
        return False

    def _can_be_locked(self, masterid: int) -> bool:
        if self.engine.name != "sqlite":
            # As those look who would expire it.
            with self.watchers[0].db.transaction() as conn:
                sql, parameters = conn.sql.for_each(
                    "lock_claims_of_masters", {"masterid": [masterid]}
                )
                return len(conn.fetch_all(sql, parameters)) == 1
        own = self.engine.connect(self.url, autocommit=True, timeout=0)
        with contextlib.closing(own):
            try:
                own.execute("BEGIN IMMEDIATE")
                own.rollback()
            except sqlite3.OperationalError:
                return False
        return True

    def die(self, name: str) -> None:
        """Kill one of them, and see how long it takes until somebody is told."""
        story, process = self.stories[name], self.processes[name]
        process.wait_for("wrote", 3)
        process.kill()
        killed = time.monotonic()
        until(lambda: self.reports(story.masterid))
        story.reported_after = time.monotonic() - killed

    def go_on_in_place(self, name: str, times: float) -> None:
        """Let one go on that was stopped for so many times EXPIRE_AFTER, and not expired."""
        story, process = self.stories[name], self.processes[name]
        _sleep_until(self.stopped[name] + times * EXPIRE_AFTER)
        story.row_before = self.row(name)
        wrote = process.count("wrote")
        process.go_on()
        process.wait_for("wrote", wrote + 5)

    def go_on_replaced(self, name: str, times: float) -> None:
        """Let one go on after so many times EXPIRE_AFTER; another has taken over its work."""
        story, process = self.stories[name], self.processes[name]
        _sleep_until(self.stopped[name] + times * EXPIRE_AFTER)
        until(lambda: self.reports(story.masterid))
        story.row_before = self.row(name)
        watcher = self.watchers[0]
        claim = self.taken_over[name] = watcher.member.claim("counter", name)
        story.value_before = _value(self.engine, self.url, self.objectid, name)
        with watcher.db.transaction() as conn:
            hold_claim(conn, claim)
            set_state(conn, self.objectid, name, {"token": claim.token})
        process.go_on()
        process.wait_for("refused")
        process.wait_for("lost")
        story.value_after = _value(self.engine, self.url, self.objectid, name)

    def row(self, name: str) -> Row:
        return _rows(self.engine, self.url)[self.stories[name].masterid]

    def conclude(self) -> None:
        rows = _rows(self.engine, self.url)
        for name, process in self.processes.items():
            story = self.stories[name]
            story.row_at_the_end = rows[story.masterid]
            story.reports = self.reports(story.masterid)
            if process.process.poll() is None:
                story.check = process.ask("check")["raises"]
            for event in ("wrote", "refused", "lost", "expired"):
                story.events[event] = process.events(event)


@pytest.fixture(scope="module")
def stops(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Stops:
    """A cluster, after some of its processes were stopped for shorter or longer, or killed."""
    clocks = {"short": 0, "middle": 0, "long": 0, "killed": 0}
    if isinstance(engine, OwnServer):
        # Who stops while it holds a claim has all of SQLite's database locked; and SQLite's clock
        # is its host's.
        clocks |= {"holding, killed": 0, "holding": 0, "ahead": 3600, "behind": -3600}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(engine.database(tmp_path_factory.mktemp("stops")))
        cluster = Cluster(engine, url, {})
        stack.callback(cluster.close)
        for name, clock in clocks.items():
            cluster.processes[name] = MemberProcess(url, name, clock=clock, **SETTINGS)
            cluster.stories[name] = Story()
        return _stop_and_go_on(cluster)


def _stop_and_go_on(cluster: Cluster) -> Stops:
    cluster.begin()
    began = time.monotonic()
    holding = [name for name in cluster.processes if name.startswith("holding")]
    with ThreadPoolExecutor() as executor:
        for name in holding:
            cluster.processes[name].stop()
        for name in ("short", "middle", "long"):
            cluster.stop(name)
        several = [
            executor.submit(cluster.die, "killed"),
            executor.submit(cluster.go_on_in_place, "short", 0.5),
            executor.submit(cluster.go_on_replaced, "middle", 1.5),
            executor.submit(cluster.go_on_replaced, "long", 3.0),
        ]
        for one in several:
            one.result()
    for name in holding:
        # Stopped for three times EXPIRE_AFTER and more by now.
        cluster.stories[name].row_before = cluster.row(name)
    for name in holding:
        story, process = cluster.stories[name], cluster.processes[name]
        if name == "holding, killed":
            process.kill()
            killed = time.monotonic()
            until(partial(cluster.reports, story.masterid))
            story.reported_after = time.monotonic() - killed
        else:
            process.go_on()
            process.do("go_on")
            process.wait_for("wrote")
            story.value_after = _value(cluster.engine, cluster.url, cluster.objectid, name)
    cluster.conclude()
    seconds = time.monotonic() - began
    doubts = [moment for watcher in cluster.watchers for moment in watcher.doubts]
    return Stops(cluster.stories, cluster.taken_over, cluster.expired(), doubts, seconds)


def test_who_stands_still_for_half_of_his_time_has_lost_nothing(stops: Stops) -> None:
    story = stops.stories["short"]
    assert story.reports == 0
    assert story.row_at_the_end is not None
    assert story.row_at_the_end.active
    assert story.row_at_the_end.incarnation == story.incarnation
    assert {event["token"] for event in story.events["wrote"]} == {story.token}
    assert story.events["refused"] == story.events["lost"] == []
    assert story.check is None


@pytest.mark.parametrize("name", ["middle", "long"])
def test_who_stands_still_for_longer_is_expired_and_told_once(stops: Stops, name: str) -> None:
    story = stops.stories[name]
    assert story.row_before is not None
    assert not story.row_before.active
    assert story.reports == 1
    assert [event["is_set"] for event in story.events["lost"]] == [True]
    assert story.check == "MasterLostError"


@pytest.mark.parametrize("name", ["middle", "long"])
def test_who_was_expired_while_he_stood_still_writes_nothing_more(stops: Stops, name: str) -> None:
    story, claim = stops.stories[name], stops.taken_over[name]
    assert len(story.events["refused"]) == 1
    # His last write came before the expiry, and nothing after the one who took over.
    assert story.value_before == {
        key: story.events["wrote"][-1][key] for key in ("token", "number")
    }
    assert claim.token > story.token
    assert story.value_after == {"token": claim.token}


def test_who_was_expired_does_not_come_back_by_himself(stops: Stops) -> None:
    for name in ("middle", "long"):
        story = stops.stories[name]
        assert story.row_at_the_end is not None
        assert not story.row_at_the_end.active
        assert story.row_at_the_end.incarnation == story.incarnation


def test_a_death_is_noticed_in_time_and_told_to_exactly_one(stops: Stops) -> None:
    story = stops.stories["killed"]
    assert EXPIRE_AFTER - INTERVAL < story.reported_after < EXPIRE_AFTER + INTERVAL + LATE
    assert story.reports == 1


def test_nobody_else_is_expired(stops: Stops) -> None:
    # Who went on in its transaction may have been in time with its next check-in, or not.
    gone = {"killed", "middle", "long", "holding, killed", "holding"}
    allowed = {story.masterid for name, story in stops.stories.items() if name in gone}
    assert set(stops.expired) <= allowed
    assert len(set(stops.expired)) == len(stops.expired)


def test_nobody_waits_for_who_stands_still(stops: Stops) -> None:
    assert stops.seconds > 3 * EXPIRE_AFTER
    assert stops.doubts == []


@pytest.mark.parametrize("name", ["holding, killed", "holding"])
def test_who_holds_a_claim_is_not_expired_while_his_transaction_is_open(
    server_engine: OwnServer, stops: Stops, name: str
) -> None:
    story = stops.stories[name]
    assert story.row_before is not None
    assert story.row_before.active
    assert story.row_before.incarnation == story.incarnation


def test_who_dies_holding_a_claim_is_expired_as_soon_as_his_transaction_has_ended(
    server_engine: OwnServer, stops: Stops
) -> None:
    story = stops.stories["holding, killed"]
    assert story.reports == 1
    assert story.reported_after < 2 * INTERVAL + LATE
    assert story.row_at_the_end is not None
    assert not story.row_at_the_end.active


def test_who_goes_on_holding_a_claim_gets_his_write_done(
    server_engine: OwnServer, stops: Stops
) -> None:
    story = stops.stories["holding"]
    assert story.value_after == {"token": story.token}
    assert len(story.events["wrote"]) == 1


@pytest.mark.parametrize("name", ["ahead", "behind"])
def test_a_host_whose_clock_is_an_hour_off_notices_nothing(
    server_engine: OwnServer, stops: Stops, name: str
) -> None:
    story = stops.stories[name]
    assert stops.seconds > 2 * EXPIRE_AFTER
    assert story.row_at_the_end is not None
    assert story.row_at_the_end.active
    assert story.row_at_the_end.incarnation == story.incarnation
    assert story.reports == 0
    assert story.events["lost"] == []
    assert story.check is None
    assert story.events["wrote"]


# --- The database away, or its clock wrong ---


@dataclass
class Outage:
    """What five members, one of them in a process of its own, went through."""

    before: dict[int, Row] = field(default_factory=dict)
    after: dict[int, Row] = field(default_factory=dict)
    claims_before: list[statedb.Claim] = field(default_factory=list)
    claims_after: list[statedb.Claim] = field(default_factory=list)
    #: What asking for the place, and claiming, brought at the end of the outage.
    checks: list[str | None] = field(default_factory=list)
    claiming: list[str | None] = field(default_factory=list)
    #: When the outage began and was over.
    began: float = 0.0
    over: float = 0.0
    #: When the last one was sure of its place again.
    sure: float = 0.0
    doubts: list[list[float]] = field(default_factory=list)
    refusals: list[list[float]] = field(default_factory=list)
    last_sure: list[list[float]] = field(default_factory=list)
    expired: list[int] = field(default_factory=list)
    lost: int = 0


class Five:
    """Five members, each with a claim."""

    def __init__(self, engine: Engine, url: str, second_url: str, **settings: Any) -> None:
        self._engine, self._url, self._settings = engine, url, settings
        self.second_url = second_url
        self.record = Outage()
        self._stack = contextlib.ExitStack()
        self.watchers: list[Watcher] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.process = stack.enter_context(
                MemberProcess(self._url, "in a process", **SETTINGS, **self._settings)
            )
            for number in range(4):
                watcher = Watcher(self._url, f"member {number}")
                stack.callback(watcher.close)
                self.watchers.append(watcher)
                watcher.member.claim("thing", watcher.member.name)
            masterid = self.process.joined()
            with statedb.connect(self.second_url) as db:
                db.masters.thdClaim(masterid, "thing", "in a process")
            until(lambda: all(row.heartbeats > 1 for row in self.rows().values()))
            for watcher in self.watchers:
                watcher.settle()
            self.record.before = self.rows()
            self.record.claims_before = self.claims()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rows(self) -> dict[int, Row]:
        return _rows(self._engine, self.second_url)

    def claims(self) -> list[statedb.Claim]:
        with contextlib.closing(self._engine.connect(self.second_url, autocommit=True)) as second:
            return statedb.masters.get_claims(second)

    def look(self) -> None:
        """Note how they feel in the middle of the outage."""
        for watcher in self.watchers:
            member = watcher.member
            self.record.checks.append(_error_of(member.check))
            self.record.claiming.append(_error_of(partial(member.claim, "thing", "new")))
        self.record.checks.append(self.process.ask("check")["raises"])

    def recover(self) -> None:
        self.record.over = time.monotonic()
        until(
            lambda: (
                all(watcher.is_sure or watcher.member.lost.is_set() for watcher in self.watchers)
                and self.process.ask("check")["raises"] != "MasterInDoubtError"
            )
        )
        self.record.sure = time.monotonic()

    def conclude(self) -> Outage:
        record = self.record
        record.after, record.claims_after = self.rows(), self.claims()
        record.doubts = [watcher.doubts for watcher in self.watchers]
        record.refusals = [watcher.refusals for watcher in self.watchers]
        record.last_sure = [watcher.last_sure for watcher in self.watchers]
        record.lost = sum(len(watcher.lost) for watcher in self.watchers)
        record.lost += self.process.count("lost")
        record.expired = [one for watcher in self.watchers for one in watcher.expired]
        for event in self.process.events("expired"):
            record.expired += event["ids"]
        return record


def _go_through(five: Five, away: Callable[[], None], back: Callable[[], None]) -> Outage:
    with five:
        away()
        five.record.began = time.monotonic()
        try:
            _sleep_until(five.record.began + 3 * EXPIRE_AFTER)
            five.look()
        finally:
            back()
        five.recover()
        # Long enough for anybody to be expired who is not as alive as he seems.
        _sleep_until(five.record.sure + 1.25 * EXPIRE_AFTER)
        return five.conclude()


class _Exclusive:
    """Another process, which has SQLite's database locked."""

    PROGRAM = """
import sqlite3, sys
own = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
own.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
own.rollback()
own.close()
"""

    def __init__(self, url: str) -> None:
        self._path = url.removeprefix("sqlite:///")
        self._process: subprocess.Popen[bytes] | None = None

    def away(self) -> None:
        command = [sys.executable, "-c", self.PROGRAM, self._path]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"locked\n"

    def back(self) -> None:
        assert self._process is not None
        self._process.communicate(b"\n", timeout=PATIENCE)
        assert self._process.returncode == 0


@dataclass
class Jump:
    """What five members went through as the database's clock was moved; and another master."""

    outage: Outage
    bystander: int
    expired_by_hand: list[int]


def _move_the_clock(engine: Engine, url: str) -> Jump:
    scheme, _, rest = url.partition("://")
    moved = f"moved://{rest}"

    def shift(hours: int) -> None:
        cursor.execute(f"UPDATE test_clock SET shift = {hours * 3_600_000_000}")

    with contextlib.closing(engine.connect(url, autocommit=True)) as second:
        cursor = second.cursor()
        cursor.execute("CREATE TABLE test_clock (shift BIGINT NOT NULL)")
        cursor.execute("INSERT INTO test_clock (shift) VALUES (0)")
        with (
            _registered(url),
            statedb.connect(moved) as db,
            Five(engine, moved, url, moved=scheme) as five,
        ):
            bystander = db.masters.thdFindMasterId("bystander")
            db.masters.thdSetMasterState(bystander, True)
            five.record.began = time.monotonic()
            shift(1)
            _sleep_until(five.record.began + 2 * EXPIRE_AFTER)
            until(lambda: _all_have_checked_in(five, 3_000_000_000))
            by_hand = [one.id for one in db.masters.thdExpireMasters()]
            shift(0)
            _sleep_until(five.record.began + 3.5 * EXPIRE_AFTER)
            five.recover()
            jump = Jump(five.conclude(), bystander, by_hand)
        # The next test to get this database may make its own.
        cursor.execute("DROP TABLE test_clock")
    return jump


def _all_have_checked_in(five: Five, later: int) -> bool:
    rows = five.rows()
    before = five.record.before
    return all(rows[one].last_active > before[one].last_active + later for one in before)


@contextlib.contextmanager
def _registered(url: str) -> Iterator[None]:
    """Have URLs that begin with moved:// lead to this engine, its clock movable."""
    known = statedb.dialects._known
    statedb.dialects.for_url(url)
    earlier = dict(known)
    statedb.dialects.register(with_movable_clock(statedb.dialects.for_url(url)))
    try:
        yield
    finally:
        known.clear()
        known.update(earlier)
        statedb.dialects._by_connection_type.clear()


@dataclass
class Outages:
    """All that can happen to the database of an engine, by what it is."""

    outages: dict[str, Outage]
    jump: Jump


@pytest.fixture(scope="module")
def outages(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Outages:
    with contextlib.ExitStack() as stack:

        def database() -> str:
            return stack.enter_context(engine.database(tmp_path_factory.mktemp("outages")))

        executor = stack.enter_context(ThreadPoolExecutor())
        jump = executor.submit(_move_the_clock, engine, database())
        found: dict[str, Outage] = {}
        if isinstance(engine, OwnServer):
            assert engine.server is not None
            url = database()
            proxy = stack.enter_context(Proxy(engine.server.port, engine.server.protocol))
            far = engine.server.url(url.rpartition("/")[2], proxy.port)
            stalled = executor.submit(
                _go_through, Five(engine, far, url), proxy.stall, proxy.resume
            )
            # Here: a server ends with the thread that started it.
            with engine.new_server(durable=True) as server:
                server.create_database("cluster")
                own = server.url("cluster")
                with statedb.connect(own) as db:
                    db.upgrade()
                found["killed"] = _go_through(Five(engine, own, own), server.kill, server.start)
            found["stalled"] = stalled.result()
        elif engine.name == "sqlite":
            url = database()
            lock = _Exclusive(url)
            found["locked"] = _go_through(Five(engine, url, url), lock.away, lock.back)
        return Outages(found, jump.result())


@pytest.fixture(params=["killed", "stalled", "locked"])
def outage(request: pytest.FixtureRequest, engine: Engine, outages: Outages) -> Outage:
    """What a database's outage of three times EXPIRE_AFTER brought."""
    if request.param not in outages.outages:
        pytest.skip("a server is killed or stalled, and SQLite's file locked")
    return outages.outages[request.param]


def test_in_an_outage_all_are_in_doubt_and_can_claim_nothing(outage: Outage) -> None:
    assert outage.checks == ["MasterInDoubtError"] * 5
    assert outage.claiming == ["MasterInDoubtError"] * 4


def test_doubt_is_known_to_who_waits_for_it_as_soon_as_to_who_asks(outage: Outage) -> None:
    for doubts, refusals in zip(outage.doubts, outage.refusals, strict=True):
        assert len(doubts) == len(refusals) == 1
        assert abs(doubts[0] - refusals[0]) < INTERVAL / 2
        # The last good check-in was sent at most an interval before the outage.
        earliest = outage.began + EXPIRE_AFTER - INTERVAL - LATE / 2
        assert earliest < refusals[0] < outage.began + EXPIRE_AFTER + LATE


def test_nobody_is_sure_of_his_place_once_another_may_have_it(outage: Outage) -> None:
    # Whoever asks later than that is refused, however late the machine lets him ask.
    last_sure = [moment for moments in outage.last_sure for moment in moments]
    assert len(last_sure) == 4
    assert max(last_sure) < outage.began + EXPIRE_AFTER


def test_after_an_outage_all_are_sure_of_their_place_again(outage: Outage) -> None:
    assert outage.over - outage.began > 3 * EXPIRE_AFTER
    assert outage.sure - outage.over < 2 * INTERVAL + LATE


def test_after_an_outage_nobody_has_been_expired(outage: Outage) -> None:
    assert outage.expired == []
    assert outage.lost == 0
    assert len(outage.before) == 5
    for masterid, before in outage.before.items():
        after = outage.after[masterid]
        assert after.active
        assert after.incarnation == before.incarnation
        assert after.heartbeats > before.heartbeats


def test_after_an_outage_all_claims_are_as_they_were(outage: Outage) -> None:
    assert len(outage.claims_before) == 5
    assert outage.claims_after == outage.claims_before


def test_a_jump_of_the_databases_clock_has_no_member_expired(outages: Outages) -> None:
    jumped = outages.jump.outage
    assert jumped.expired == []
    assert jumped.lost == 0
    for masterid, before in jumped.before.items():
        assert jumped.after[masterid].active
        assert jumped.after[masterid].incarnation == before.incarnation
    assert jumped.claims_after == jumped.claims_before
    assert jumped.doubts == [[]] * 4


def test_who_expires_by_hand_trusts_the_databases_clock(outages: Outages) -> None:
    assert outages.jump.expired_by_hand == [outages.jump.bystander]
