"""PostgreSQL with a synchronous standby: the primary is killed, replaced, stalled, or steps down.

Given to pytest by name (``tox -e failover``): no run of all tests has the time for it.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from failover_load import Load, Report, Standing
from standby import Pair, until

import statedb
from statedb import OutcomeUnknownError

FAILOVERS = 10
TIMEOUT = 20.0
#: For a machine that is slow: what a call may take beyond its timeout.
GRACE = 2.0


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


@pytest.fixture
def database(pair: Pair) -> Iterator[str]:
    """A database with the tables in it; whoever broke the pair has mended it."""
    pair.primary.create_database("failover")
    with statedb.connect(pair.url("failover")) as db:
        db.upgrade()
    yield "failover"
    pair.primary.drop_database("failover")


# --- Killed ---


def test_a_primary_killed_ten_times_loses_nothing_acknowledged_and_nobodys_place(
    pair: Pair, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    gaps: list[float] = []
    totals: Counter[str] = Counter()
    with Load(pair.url(database), processes=4, writers=4, timeout=TIMEOUT) as load:
        load.go_on()
        time.sleep(1)
        places = _places(load.halt())
        for _ in range(FAILOVERS):
            load.go_on()
            time.sleep(2)
            pair.primary.kill()
            killed = time.monotonic()
            pair.take_over()
            promoted = time.monotonic()
            time.sleep(2)
            reports = load.halt()
            first = _first_write_since(killed, reports)
            gaps.append(first - killed)
            with contextlib.closing(pair.connect(database)) as bare:
                _check(bare, reports)
                _check_places(bare, reports, places)
            totals.update(writes=sum(len(one.answered) for one in reports))
            totals.update(unknown=sum(one.unknown for one in reports))
            totals.update(timed_out=sum(one.timed_out for one in reports))
            with capsys.disabled():
                print(
                    f"\n  first write {first - killed:.2f} s after the kill, promoted after"
                    f" {promoted - killed:.2f}; {dict(totals)}; longest call"
                    f" {max(one.longest for one in reports):.1f} s",
                    end="",
                )
            # While the load goes on, as in life.
            load.go_on()
            pair.rebuild_standby()
            _check_reports(load.halt())
    with capsys.disabled():
        print(f"\n  first writes: median {statistics.median(gaps):.2f} s, {max(gaps):.2f} at most")
    assert totals["writes"] > 300 * FAILOVERS, totals
    assert totals["unknown"] >= FAILOVERS // 2, "too little was under way when it was killed"


def _places(reports: list[Report]) -> set[Standing]:
    return {one.place for one in reports}


def _first_write_since(moment: float, reports: list[Report]) -> float:
    return min(ended for one in reports for began, ended in one.answered if began >= moment)


def _check_reports(reports: list[Report]) -> None:
    assert [wrong for one in reports for wrong in one.wrong] == []
    assert max(one.longest for one in reports) < TIMEOUT + GRACE
    for one in reports:
        assert one.answered, f"{one.writer} has written nothing"
        assert not one.place.lost
        assert one.place.expired == 0


def _check(bare: psycopg.Connection[Any], reports: list[Report]) -> None:
    """That all that was acknowledged is there, and the rest at most once, or not at all."""
    _check_reports(reports)
    common = statedb.state.get_object_id(bare, "common", "Counter")
    counters = statedb.state.get_states(bare, common)
    held = {claim.name: claim.token for claim in statedb.masters.get_claims(bare, kind="load")}
    checked = 0
    for one in reports:
        for key, written in one.keys.items():
            objectid, _, name = key.partition(" ")
            value = statedb.state.get_state(bare, int(objectid), name, None)
            assert written.allows(value), (key, value, written)
            checked += 1
        own, beside = (key.partition(" ")[0] for key in one.keys if key.endswith(" both"))
        for objectids, names in (((own, beside), ("both",)), ((own,), SEVERAL)):
            found = {
                statedb.state.get_state(bare, int(objectid), name, None)
                for objectid in objectids
                for name in names
            }
            assert len(found) == 1, "a half of what is all or nothing"
        for name, marks in counters.items():
            _check_marks(marks.get(one.writer, []), one, name)
        for thing, written in one.claims.items():
            assert written.allows(held.get(thing)), (thing, held.get(thing), written)
    assert checked > len(reports) * 5


SEVERAL = tuple(f"several {number}" for number in range(3))


def _check_marks(found: list[int], one: Report, counter: str) -> None:
    """That the writer's acknowledged updates were counted once, and the unknown at most once."""
    surely = set(one.counted.get(counter, []))
    perhaps = set(one.perhaps_counted.get(counter, []))
    assert len(found) == len(set(found)), "counted twice"
    assert surely <= set(found), ("lost", one.writer, surely - set(found))
    assert set(found) <= surely | perhaps, ("from nowhere", one.writer)


def _check_places(
    bare: psycopg.Connection[Any], reports: list[Report], places: set[Standing]
) -> None:
    """That all members are what they were, with their claims, by their own account and here."""
    assert _places(reports) == places
    rows = bare.execute("SELECT id, incarnation FROM statedb_masters WHERE active = 1").fetchall()
    assert dict(rows) == {one.masterid: one.incarnation for one in places}
    claims = statedb.masters.get_claims(bare, kind="lasting")
    assert {one.masterid: one.token for one in claims} == {
        one.masterid: one.token for one in places
    }


# --- A standby that does not answer ---

Write = Callable[[statedb.Database, int], Any]


def _transaction(db: statedb.Database, objectid: int) -> None:
    with db.transaction():
        db.state.thdSetState(objectid, "k", 2)


def _claim(db: statedb.Database, objectid: int) -> statedb.Claim:
    masterid = db.masters.thdFindMasterId("host:/base")
    return db.masters.thdClaim(masterid, "kind", "thing")


#: Each writes the value 2, or makes what was not there.
WRITES: dict[str, Write] = {
    "set": lambda db, objectid: db.state.thdSetState(objectid, "k", 2),
    "set by a future": lambda db, objectid: db.state.setState(objectid, "k", 2).result(),
    "create": lambda db, objectid: db.state.thdAtomicCreateState(objectid, "new", lambda: 2),
    "set several": lambda db, objectid: db.state.thdSetStates(objectid, {"k": 2, "new": 2}),
    "update": lambda db, objectid: db.state.thdUpdateState(objectid, "k", lambda value: value + 1),
    "delete": lambda db, objectid: db.state.thdDeleteState(objectid, "k"),
    "transaction": _transaction,
    "object": lambda db, objectid: db.state.thdGetObjectId("new", "Object"),
    "claim": _claim,
}
each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())


@pytest.fixture
def stalled(pair: Pair, database: str) -> Iterator[int]:
    """An object with a value, on a primary whose standby has since stopped to answer."""
    with statedb.connect(pair.url(database)) as db:
        objectid = db.state.thdGetObjectId("nightly", "Scheduler")
        db.state.thdSetState(objectid, "k", 1)
        db.masters.thdSetMasterState(db.masters.thdFindMasterId("host:/base"), True)
    pair.standby.pause()
    yield objectid
    pair.standby.resume()


@each_write
def test_a_write_that_the_standby_does_not_confirm_fails_within_the_timeout(
    pair: Pair, database: str, stalled: int, write: Write
) -> None:
    with statedb.connect(pair.url(database), timeout=2) as db:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknownError):
            write(db, stalled)
        assert time.monotonic() - began < 2 + GRACE
        # What is not on the standby nobody sees.
        assert db.state.thdGetStates(stalled) == {"k": 1}
        pair.standby.resume()
        assert db.state.thdSetState(stalled, "other", 3) == 3


@each_write
@pytest.mark.parametrize("how", ["cancel", "terminate"])
def test_a_write_whose_wait_for_the_standby_is_ended_is_not_acknowledged(
    pair: Pair, database: str, stalled: int, write: Write, how: str
) -> None:
    with statedb.connect(pair.url(database), timeout=6) as db, ThreadPoolExecutor() as threads:
        began = time.monotonic()
        call = threads.submit(write, db, stalled)
        # Whoever waits for the standby, a further try as well, is not to be told of success.
        waiting = "wait_event = 'SyncRep' AND backend_type = 'client backend'"
        ended = 0
        while not call.done():
            sql = f"SELECT pg_{how}_backend(pid) FROM pg_stat_activity WHERE {waiting}"
            ended += len(pair.primary.ask(sql))
            time.sleep(0.01)
        assert ended > 0
        with pytest.raises(OutcomeUnknownError):
            call.result()
        assert time.monotonic() - began < 6 + GRACE


# --- One that steps down, and one that sleeps ---


def test_a_primary_that_steps_down_but_stays_loses_its_callers_to_the_new_one(
    pair: Pair, database: str
) -> None:
    with Load(pair.url(database), processes=2, writers=4, timeout=TIMEOUT) as load:
        load.go_on()
        time.sleep(1)
        places = _places(load.halt())
        load.go_on()
        old = pair.primary
        old.set("default_transaction_read_only", "on")
        # Those who have begun may commit yet; nobody can begin.
        until(lambda: not old.ask(f"{ACTIVITY} AND backend_xid IS NOT NULL"))
        ((position,),) = old.ask("SELECT pg_current_wal_lsn()")
        behind = f"SELECT pg_last_wal_replay_lsn() < '{position}'"
        until(lambda: pair.standby.ask(behind) == [(False,)])
        pair.take_over()
        promoted = time.monotonic()
        time.sleep(2)
        reports = load.halt()
        with contextlib.closing(pair.connect(database)) as bare:
            _check(bare, reports)
            _check_places(bare, reports, places)
        assert _first_write_since(promoted, reports) - promoted < TIMEOUT
        # A member's own connection may still be there; each check-in writes, and so moves on.
        until(lambda: not old.ask(f"{ACTIVITY} AND datname = '{database}'"))
    pair.rebuild_standby()


ACTIVITY = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


def test_a_primary_that_hangs_is_left_for_the_promoted_one_and_acknowledges_nothing_later(
    pair: Pair, database: str
) -> None:
    old = pair.primary
    with statedb.connect(pair.url(database), timeout=4) as db:
        objectid = db.state.thdGetObjectId("nightly", "Scheduler")
        db.state.thdSetState(objectid, "k", 1)
        old.pause()
        pair.take_over()
        # This one goes to where it was connected, and cannot know that nobody is there.
        began = time.monotonic()
        with pytest.raises(OutcomeUnknownError):
            db.state.thdSetState(objectid, "k", 2)
        assert time.monotonic() - began < 4 + GRACE
        # The hanging one accepts connections still: its system does.
        began = time.monotonic()
        assert db.state.thdSetState(objectid, "k", 3) == 3
        assert time.monotonic() - began < 3
        with statedb.connect(old.url(database), timeout=2) as misled:
            old.resume()
            with pytest.raises(OutcomeUnknownError):
                misled.state.thdSetState(objectid, "l", 4)
        with contextlib.closing(pair.connect(database)) as bare:
            assert statedb.state.get_states(bare, objectid) == {"k": 3}
    pair.rebuild_standby()
