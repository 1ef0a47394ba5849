"""Galera: three writers of one row through three nodes, whatever becomes of the nodes.

Run by name, ``tox -e galera``: ten minutes of faults, and a few for the rest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any, TypeVar

import pytest
from galera_cluster import GaleraCluster, GaleraNode, await_that
from member_process import MemberProcess
from writers import KEY, Reader, Writer

import statedb
from statedb import (
    AlreadyClaimedError,
    Claim,
    ClaimLostError,
    ConflictError,
    Database,
    DatabaseError,
    MasterLostError,
)
from statedb.expiry import Doubt

T = TypeVar("T")

#: For how many seconds faults are made, one after the other.
SECONDS = float(os.environ.get("STATEDB_TEST_CLUSTER_SECONDS", "600"))
#: Within how many seconds after a node's death everybody writes again.
BOUND = 5.0
#: What each call of the writers' and readers' is given, and how much later it may end.
TIMEOUT, LATE = 5.0, 5.0
#: For how long there is no quorum, where there is none: nobody's call can outlast it.
WITHOUT_QUORUM = TIMEOUT + LATE

_numbers = count(1)
pytestmark = pytest.mark.timeout(SECONDS + 600)


@pytest.fixture(scope="module")
def running() -> Iterator[GaleraCluster]:
    with GaleraCluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running: GaleraCluster) -> GaleraCluster:
    """The three nodes, all there."""
    running.heal()
    return running


@pytest.fixture
def empty(cluster: GaleraCluster) -> str:
    """The name of a database without tables."""
    name = f"statedb_{next(_numbers)}"
    cluster.nodes[0].create_database(name)
    return name


@pytest.fixture
def name(cluster: GaleraCluster, empty: str) -> str:
    """The name of a database with the tables in it."""
    with statedb.connect(cluster.url(empty)) as db:
        db.upgrade()
    return empty


@pytest.fixture
def dbs(cluster: GaleraCluster, name: str) -> Iterator[list[Database]]:
    """A Database at each node, which knows the others as further hosts."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(statedb.connect(cluster.url(name, first), timeout=20))
            for first in range(cluster.SIZE)
        ]


@pytest.fixture
def objectid(dbs: list[Database]) -> int:
    return dbs[0].state.thdGetObjectId("nightly", "Scheduler")


def _at_once(calls: list[Callable[[], T]]) -> list[T | Exception]:
    """What each of the calls gives, or raises, where they all begin at the same time."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | Exception:
        barrier.wait(30)
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as executor:
        return list(executor.map(run, calls))


# --- Tables ---


def _upgrade_at_once(cluster: GaleraCluster, name: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "statedb", "upgrade", "--url", cluster.url(name, first % 3)],
            stdout=subprocess.DEVNULL,
        )
        for first in range(9)
    ]
    assert [one.wait(120) for one in processes] == [0] * 9


def test_tables_are_made_by_processes_at_all_nodes_at_once(
    cluster: GaleraCluster, empty: str
) -> None:
    _upgrade_at_once(cluster, empty)
    for node in cluster.nodes:
        assert node.execute(f"SELECT version FROM {empty}.statedb_schema") == ((2,),)


def test_of_all_who_upgrade_older_tables_one_makes_the_masters_active_long_time_ago(
    cluster: GaleraCluster, name: str, dbs: list[Database]
) -> None:
    dbs[0].masters.thdFindMasterId("one")
    first = cluster.nodes[0]
    first.execute(f"UPDATE {name}.statedb_schema SET version = 1")
    _upgrade_at_once(cluster, name)
    (master,) = dbs[1].masters.thdGetMasters()
    assert master.active
    assert master.last_active.timestamp() == 0
    # More than one such change, and there would have been more heartbeats.
    assert first.execute(f"SELECT heartbeats FROM {name}.statedb_masters") == ((1,),)


# --- Every node shows what every other has acknowledged ---


def test_every_node_at_once_reads_what_another_has_acknowledged(
    dbs: list[Database], objectid: int
) -> None:
    for number in range(300):
        writes, reads = dbs[number % 3], dbs[(number + 1 + number // 3 % 2) % 3]
        writes.state.thdSetState(objectid, "k", number)
        assert reads.state.thdGetState(objectid, "k") == number
        assert reads.state.thdDeleteState(objectid, "k") is True
        assert writes.state.thdGetState(objectid, "k", None) is None


def test_a_value_that_another_node_has_just_created_is_overwritten_and_no_rivals(
    dbs: list[Database], objectid: int
) -> None:
    for number in range(100):
        first, then = dbs[number % 3], dbs[(number + 1) % 3]
        first.state.thdSetState(objectid, f"k{number}", "first")
        assert then.state.thdSetState(objectid, f"k{number}", "then") == "then"


def test_every_operation_on_state_can_be_done_at_each_node(dbs: list[Database]) -> None:
    for number, (here, there) in enumerate(zip(dbs, [*dbs[1:], dbs[0]], strict=True)):
        name = f"object {number}"
        objectid = here.state.thdGetObjectId(name, "Class")
        assert there.state.thdGetObjectId(name, "Class") == objectid
        assert here.state.thdAtomicCreateState(objectid, "made", lambda: "up") == "up"
        assert there.state.thdAtomicCreateState(objectid, "made", lambda: "again") == "up"
        assert here.state.setState(objectid, "k", 1).result(60) == 1
        assert there.state.getState(objectid, "k").result(60) == 1
        assert there.state.thdUpdateState(objectid, "k", lambda value: value + 1) == 2
        assert here.state.thdSetStates(objectid, {"l": 3, "m": 4}) == {"l": 3, "m": 4}
        assert there.state.thdGetStates(objectid) == {"made": "up", "k": 2, "l": 3, "m": 4}
        assert there.state.thdDeleteState(objectid, "l") is True
        assert here.state.thdGetStates(objectid, ["k", "l"]) == {"k": 2}
        with there.transaction():
            there.state.thdSetState(objectid, "n", 5)
        assert here.state.thdGetState(objectid, "n") == 5
        assert [one.name for one in here.state.thdGetObjects()] == [name]
        assert there.state.thdDeleteObject(objectid) is True
        assert here.state.thdGetStates(objectid) == {}
        assert here.state.thdGetObjects() == []


def test_every_operation_on_masters_can_be_done_at_each_node(dbs: list[Database]) -> None:
    for number, (here, there) in enumerate(zip(dbs, [*dbs[1:], dbs[0]], strict=True)):
        masterid = here.masters.thdFindMasterId(f"master {number}")
        assert there.masters.thdFindMasterId(f"master {number}") == masterid
        assert here.masters.thdSetMasterState(masterid, True) is True
        assert there.masters.thdSetMasterState(masterid, True) is False
        held = there.masters.thdClaim(masterid, "scheduler", "nightly")
        assert here.masters.thdClaim(masterid, "scheduler", "nightly") == held
        with here.transaction():
            here.masters.thdHoldClaim(held)
        assert here.masters.thdGetClaims() == [held]
        assert there.masters.thdRelease(masterid, "scheduler", "nightly") is True
        assert held == Claim("scheduler", "nightly", masterid, number * 2 + 1)
        again = here.masters.thdClaim(masterid, "scheduler", "nightly")
        assert again.token == held.token + 1
        with here.transaction(), pytest.raises(ClaimLostError):
            here.masters.thdHoldClaim(held)
        assert [one.id for one in there.masters.thdExpireMasters(0)] == [masterid]
        assert here.masters.thdGetClaims() == []
        with pytest.raises(MasterLostError):
            here.masters.thdClaim(masterid, "scheduler", "nightly")
        found = here.masters.thdGetMaster(masterid)
        assert found is not None
        assert not found.active
        assert here.masters.thdForgetMaster(masterid) is True
        assert there.masters.thdGetMasters() == []


# --- Races between the nodes ---


def test_all_nodes_are_given_one_id_and_one_created_value(dbs: list[Database]) -> None:
    for number in range(30):
        called = f"o{number}"
        ids = _at_once([partial(db.state.thdGetObjectId, called, "C") for db in dbs * 2])
        assert len(set(map(repr, ids))) == 1
        objectid = ids[0]
        assert isinstance(objectid, int)

        values = _at_once(
            [
                partial(db.state.thdAtomicCreateState, objectid, "k", partial(int, n))
                for n, db in enumerate(dbs * 2)
            ]
        )
        assert len(set(map(repr, values))) == 1
        assert dbs[number % 3].state.thdGetState(objectid, "k") == values[0]


def test_of_three_who_claim_through_three_nodes_one_is_the_owner(dbs: list[Database]) -> None:
    masters = [db.masters.thdFindMasterId(f"m{n}") for n, db in enumerate(dbs)]
    for db, masterid in zip(dbs, masters, strict=True):
        db.masters.thdSetMasterState(masterid, True)
    last = 0
    for _ in range(40):
        got = _at_once(
            [
                partial(db.masters.thdClaim, masterid, "k", "n")
                for db, masterid in zip(dbs, masters, strict=True)
            ]
        )
        owners = [one for one in got if isinstance(one, Claim)]
        assert len(owners) == 1, got
        assert all(isinstance(one, (Claim, AlreadyClaimedError)) for one in got), got
        assert owners[0].token > last
        last = owners[0].token
        assert dbs[0].masters.thdGetClaims() == owners
        assert dbs[1].masters.thdRelease(owners[0].masterid, "k", "n") is True


def test_each_expiry_is_told_to_one_node(dbs: list[Database]) -> None:
    for _ in range(20):
        for number in range(6):
            masterid = dbs[0].masters.thdFindMasterId(f"m{number}")
            dbs[number % 3].masters.thdSetMasterState(masterid, True)
        told = _at_once([partial(db.masters.thdExpireMasters, 0) for db in dbs])
        told.append(dbs[0].masters.thdExpireMasters(0))
        names = [one.name for some in told if isinstance(some, list) for one in some]
        assert sorted(names) == [f"m{number}" for number in range(6)], told


def test_no_half_of_what_is_set_together_is_seen_at_any_node(
    dbs: list[Database], objectid: int
) -> None:
    names = [f"k{number}" for number in range(8)]
    dbs[0].state.thdSetStates(objectid, dict.fromkeys(names, 0))
    stop = threading.Event()
    seen: list[set[Any]] = []

    def look(db: Database) -> None:
        while not stop.is_set():
            seen.append(set(db.state.thdGetStates(objectid, names).values()))

    def write(db: Database, writer: int) -> None:
        for number in range(60):
            value = writer * 1000 + number
            if number % 2:
                db.state.thdSetStates(objectid, dict.fromkeys(names, value))
                continue
            try:
                with db.transaction():
                    for name in names:
                        db.state.thdSetState(objectid, name, value)
            except ConflictError:
                continue

    with ThreadPoolExecutor(6) as executor:
        looks = [executor.submit(look, db) for db in dbs]
        writes = [executor.submit(write, db, number) for number, db in enumerate(dbs)]
        for one in writes:
            one.result(120)
        stop.set()
        for one in looks:
            one.result(60)
    assert all(len(values) == 1 for values in seen)
    assert len(set(map(str, seen))) > 20, "nobody saw anything change"


# --- Locks that another node does not know of ---


@pytest.fixture
def busy(cluster: GaleraCluster, name: str) -> Callable[[], None]:
    """Keeps the first node busy for a moment with what the second has committed, at each call.

    What the second commits next the first cannot know of yet.
    """
    second = cluster.nodes[1]
    second.execute(f"CREATE TABLE {name}.many (id INT AUTO_INCREMENT PRIMARY KEY, text CHAR(200))")
    second.execute(f"CREATE TABLE {name}.some (id INT PRIMARY KEY)")
    numbers = ",".join(f"({number})" for number in range(400))
    second.execute(f"INSERT INTO {name}.some VALUES {numbers}")

    def keep_busy() -> None:
        second.execute(
            f"INSERT INTO {name}.many (text) SELECT 'x' FROM {name}.some a CROSS JOIN {name}.some b"
        )

    return keep_busy


def _active(db: Database, name: str) -> int:
    masterid = db.masters.thdFindMasterId(name)
    db.masters.thdSetMasterState(masterid, True)
    return masterid


def test_what_a_zombie_writes_is_undone_if_another_node_has_expired_it_meanwhile(
    dbs: list[Database], objectid: int, busy: Callable[[], None]
) -> None:
    held = dbs[0].masters.thdClaim(_active(dbs[0], "m"), "scheduler", "nightly")
    dbs[0].state.thdSetState(objectid, "k", "before")
    with pytest.raises(DatabaseError), dbs[0].transaction():
        dbs[0].masters.thdHoldClaim(held)
        dbs[0].state.thdSetState(objectid, "k", "a zombie's")
        busy()
        assert len(dbs[1].masters.thdExpireMasters(0)) == 1
    for db in dbs:
        assert db.state.thdGetState(objectid, "k") == "before"
        assert db.masters.thdGetClaims() == []


def test_nothing_is_claimed_for_a_master_that_another_node_has_ended_meanwhile(
    dbs: list[Database], busy: Callable[[], None]
) -> None:
    masterid = _active(dbs[0], "m")
    dbs[0].masters.thdClaim(masterid, "scheduler", "nightly")
    dbs[0].masters.thdRelease(masterid, "scheduler", "nightly")
    with pytest.raises(DatabaseError), dbs[0].transaction():
        dbs[0].masters.thdClaim(masterid, "scheduler", "nightly")
        busy()
        assert dbs[1].masters.thdSetMasterState(masterid, False) is True
    for db in dbs:
        assert db.masters.thdGetClaims() == []


def test_an_expiry_that_was_found_not_to_have_happened_does_not_happen_later(
    dbs: list[Database],
) -> None:
    masterid = _active(dbs[0], "m")
    doubt = Doubt()
    doubt.stamp, doubt.incarnations = 1, {masterid: 1}
    with pytest.raises(DatabaseError), dbs[0].transaction():
        # As a try whose answer was lost, and which goes on.
        assert len(dbs[0].masters.thdExpireMasters(0)) == 1
        dbs[1].run(doubt.settle)
    assert doubt.expired == []
    assert [one.active for db in dbs for one in db.masters.thdGetMasters()] == [True] * 3


@pytest.mark.parametrize("what", ["a new one", "several new ones", "one that was there"])
def test_no_value_is_left_behind_by_an_object_that_another_node_has_deleted_meanwhile(
    dbs: list[Database], objectid: int, busy: Callable[[], None], what: str
) -> None:
    if what == "one that was there":
        dbs[0].state.thdSetState(objectid, "k", 0)
    with pytest.raises(DatabaseError), dbs[0].transaction():
        if what == "several new ones":
            dbs[0].state.thdSetStates(objectid, {"k": 1, "l": 2})
        else:
            dbs[0].state.thdSetState(objectid, "k", 1)
        busy()
        assert dbs[1].state.thdDeleteObject(objectid) is True
    for db in dbs:
        assert db.state.thdGetStates(objectid) == {}


# --- Members ---


@pytest.mark.parametrize("fault", ["a node is killed", "there is no quorum"])
def test_members_at_different_nodes_keep_their_places_and_claims(
    cluster: GaleraCluster, dbs: list[Database], fault: str
) -> None:
    lost: list[Any] = []
    with ExitStack() as stack:
        members = [
            stack.enter_context(
                db.masters.join(f"m{n}", interval=1, expire_after=40, on_lost=lost.append)
            )
            for n, db in enumerate(dbs)
        ]
        claims = [member.claim("k", f"n{n}") for n, member in enumerate(members)]
        first, *others = cluster.nodes
        if fault == "a node is killed":
            cluster.kill(first)
            cluster.await_size(2)
            _await_check_ins(dbs[1], 3)
            cluster.bring_back(first)
        else:
            cluster.isolate(*others)
            await_that(lambda: not any(one.takes_part() for one in cluster.nodes))
            got = _at_once([partial(db.masters.thdClaim, members[0].id, "k", "more") for db in dbs])
            assert all(isinstance(one, DatabaseError) for one in got), got
            cluster.rejoin(*others)
        _await_check_ins(dbs[1], 3)
        for member in members:
            member.check()
        assert dbs[2].masters.thdGetClaims() == claims
        assert lost == []


def _await_check_ins(db: Database, number: int) -> None:
    """Wait until so many masters have each been seen once more."""
    seen = {one.id: one.last_active for one in db.masters.thdGetMasters() if one.active}
    assert len(seen) == number

    def have_been_seen() -> bool:
        found = db.masters.thdGetMasters()
        return all(one.active and one.last_active > seen[one.id] for one in found)

    await_that(have_been_seen)


def test_a_silent_member_is_expired_once_and_its_claim_has_one_owner(
    cluster: GaleraCluster, dbs: list[Database]
) -> None:
    expired: list[str] = []
    with MemberProcess(
        cluster.url(_database(dbs[0]), 0), "silent", interval=0.5, expire_after=4
    ) as silent:
        masterid = silent.joined()
        held = dbs[0].masters.thdClaim(masterid, "k", "n")
        with ExitStack() as stack:
            members = [
                stack.enter_context(
                    db.masters.join(
                        f"m{n}",
                        interval=0.5,
                        expire_after=30,
                        on_expired=lambda some: expired.extend(one.name for one in some),
                    )
                )
                for n, db in enumerate(dbs)
            ]
            silent.stop()
            cluster.kill(cluster.nodes[0])
            await_that(lambda: bool(expired))
            got = _at_once([partial(member.claim, "k", "n") for member in members])
            owners = [one for one in got if isinstance(one, Claim)]
            assert len(owners) == 1, got
            assert owners[0].token > held.token
            silent.go_on()
            silent.wait_for("lost")
            cluster.bring_back(cluster.nodes[0])
            for member in members:
                member.check()
        assert expired == ["silent"]


def _database(db: Database) -> str:
    return repr(db).rstrip(">").rpartition("/")[2]


# --- Ten minutes of it ---


class _Trial:
    """Three writers and three readers, what is done to them, and how they bear it."""

    def __init__(
        self, cluster: GaleraCluster, writers: list[Writer], readers: list[Reader]
    ) -> None:
        self.cluster = cluster
        self.writers = writers
        self.callers: list[Writer | Reader] = [*writers, *readers]
        #: How long it took everybody to write again, after each fault of each kind.
        self.pauses: dict[str, list[float]] = {}

    def a_node_is_killed(self, victim: GaleraNode) -> None:
        began = time.monotonic()
        self.cluster.kill(victim)
        self._all_go_on("killed", began, self.writers)
        self.cluster.bring_back(victim)

    def a_node_is_cut_off(self, victim: GaleraNode) -> None:
        began = time.monotonic()
        self.cluster.isolate(victim)
        self._all_go_on("cut off", began, self.writers)
        self.cluster.rejoin(victim)

    def a_node_stands_still(self, victim: GaleraNode) -> None:
        began = time.monotonic()
        victim.pause()
        try:
            # Whoever waits for it does so until the end of his call.
            others = [one for one in self.writers if one.name != f"writer {victim.port}"]
            self._all_go_on("others of one that stood still", began, others)
            self._all_go_on("one that stood still", began, self.writers)
        finally:
            victim.resume()
        self.cluster.await_size(self.cluster.SIZE)

    def most_nodes_are_killed(self, survivor: GaleraNode) -> None:
        victims = [one for one in self.cluster.nodes if one is not survivor]
        self.cluster.kill(*victims)
        self._nothing_is_answered([survivor])
        self.cluster.bring_back(*victims)
        self._all_go_on("quorum restored", time.monotonic(), self.writers)

    def all_nodes_are_cut_off(self, centre: GaleraNode) -> None:
        others = [one for one in self.cluster.nodes if one is not centre]
        self.cluster.isolate(*others)
        self._nothing_is_answered(self.cluster.nodes)
        self.cluster.rejoin(*others)
        self._all_go_on("quorum found again", time.monotonic(), self.writers)

    def begin_anew(self) -> None:
        """Have everybody go back to the node that is his own."""
        for one in self.callers:
            one.begin_anew()
        began = time.monotonic()
        await_that(lambda: all(one.went_on_after(began) is not None for one in self.callers))

    def _nothing_is_answered(self, alive: list[GaleraNode]) -> None:
        await_that(lambda: not any(one.takes_part() for one in alive))
        start = time.monotonic()
        time.sleep(WITHOUT_QUORUM)
        end = time.monotonic()
        for one in self.callers:
            assert one.good_within(start, end) == 0, one.name
            assert one.errors_within(start, end) > 0, one.name

    def _all_go_on(self, what: str, since: float, writers: list[Writer]) -> None:
        await_that(lambda: all(one.went_on_after(since) is not None for one in writers))
        took = max(one.went_on_after(since) or 0.0 for one in writers)
        self.pauses.setdefault(what, []).append(round(took, 2))


def test_nothing_is_lost_and_nothing_wrong_is_read_whatever_becomes_of_the_nodes(
    cluster: GaleraCluster, name: str, objectid: int
) -> None:
    nodes = cluster.nodes
    writers = [
        Writer(cluster.url(name, first), objectid, f"writer {node.port}", TIMEOUT)
        for first, node in enumerate(nodes)
    ]
    readers = [
        Reader(cluster.url(name, first), objectid, f"reader {node.port}", TIMEOUT, writers)
        for first, node in enumerate(nodes)
    ]
    trial = _Trial(cluster, writers, readers)
    faults = (
        trial.a_node_is_killed,
        trial.all_nodes_are_cut_off,
        trial.a_node_is_cut_off,
        trial.most_nodes_are_killed,
        trial.a_node_stands_still,
    )
    end = time.monotonic() + SECONDS
    made = 0
    with ExitStack() as stack:
        for one in trial.callers:
            stack.enter_context(one)
        while made < len(faults) or time.monotonic() < end:
            # Five faults and three nodes: in time each befalls each.
            faults[made % len(faults)](nodes[made % len(nodes)])
            made += 1
            for one in trial.callers:
                assert one.strange == []
            trial.begin_anew()
    with statedb.connect(cluster.url(name)) as db:
        account = db.state.thdGetState(objectid, KEY)
    print(
        f"\n{made} faults in {SECONDS:.0f} s;"
        f" {sum(len(one.acknowledged) for one in writers)} updates acknowledged,"
        f" {sum(len(one.unknown) for one in writers)} unknown,"
        f" {sum(len(one.errors) for one in writers)} errors;"
        f" {sum(len(one.good) for one in readers)} reads,"
        f" {sum(len(one.errors) for one in readers)} errors;"
        f" the longest call {max(one.longest for one in trial.callers):.1f} s;"
        f" seconds until all wrote again: {trial.pauses}"
    )
    assert [fault for one in writers for fault in one.faults(account)] == []
    assert [wrong for one in readers for wrong in one.wrong[:3]] == []
    for one in trial.callers:
        assert one.longest < TIMEOUT + LATE
        assert len(one.good) > 5 * made, "it was too quiet"
    for what in ("killed", "cut off", "others of one that stood still"):
        assert max(trial.pauses[what]) < BOUND
