"""A process's place in the cluster: joining, keeping it, losing it and leaving it."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, OwnServer
from interposed import watch
from member_process import PATIENCE, MemberProcess, until
from proxy import Proxy

import statedb
from statedb import (
    AlreadyClaimedError,
    Claim,
    ClaimLostError,
    Connection,
    Database,
    DatabaseError,
    InvalidNameError,
    InvalidSettingError,
    InvalidTypeError,
    MasterLostError,
    Member,
    UnusableConnectionError,
)
from statedb.masters import MasterModel
from statedb.place import (
    Place,
    Sighting,
    check_in,
    leave_place,
    look_around,
    take_place,
)

#: Checks in often, and is not expired however slow the machine.
OFTEN: dict[str, Any] = {"interval": 0.1, "expire_after": 60.0}


@dataclass(frozen=True)
class Row:
    """A master, as the database has it; times in microseconds."""

    id: int
    active: bool
    incarnation: int
    heartbeats: int
    last_active: int
    expire_after: int | None
    due: int | None


Rows = Callable[[], list[Row]]


@pytest.fixture
def rows(application: Callable[..., Any]) -> Rows:
    """All masters, read through a second connection."""
    second = application(autocommit=True)

    def read() -> list[Row]:
        cursor = second.cursor()
        cursor.execute(
            "SELECT id, active, incarnation, heartbeats, last_active, expire_after, due"
            " FROM statedb_masters ORDER BY id"
        )
        return [Row(row[0], bool(row[1]), *row[2:]) for row in cursor.fetchall()]

    return read


@pytest.fixture
def claims(application: Callable[..., Any]) -> Callable[[], list[Claim]]:
    """All claims, read through a second connection."""
    second = application(autocommit=True)
    return lambda: statedb.masters.get_claims(second)


Claims = Callable[[], list[Claim]]


# --- Joining ---


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"interval": 0}, InvalidSettingError),
        ({"interval": -1.0}, InvalidSettingError),
        ({"interval": math.nan}, InvalidSettingError),
        ({"interval": math.inf, "expire_after": math.inf}, InvalidSettingError),
        ({"interval": True}, InvalidTypeError),
        ({"interval": "60"}, InvalidTypeError),
        ({"interval": None}, InvalidTypeError),
        ({"expire_after": 179.999}, InvalidSettingError),
        ({"expire_after": 0}, InvalidSettingError),
        ({"expire_after": math.nan}, InvalidSettingError),
        ({"expire_after": math.inf}, InvalidSettingError),
        ({"expire_after": None}, InvalidTypeError),
        ({"interval": 0.2, "expire_after": 0.599999}, InvalidSettingError),
        ({"name": ""}, InvalidNameError),
        ({"name": "a\0b"}, InvalidNameError),
        ({"name": "\ud800"}, InvalidNameError),
        ({"name": "a" * 65537}, InvalidNameError),
        ({"name": b"a"}, InvalidTypeError),
        ({"name": None}, InvalidTypeError),
        ({"on_expired": "a name"}, InvalidTypeError),
        ({"on_lost": 7}, InvalidTypeError),
    ],
    ids=repr,
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    sent: list[str] = []
    with (
        watch(sent.append),
        statedb.connect(f"sqlite:///{tmp_path}/new.sqlite") as db,
        pytest.raises(error),
    ):
        db.masters.join(**{"name": "host:/base", **arguments})
    assert sent == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("interval", "expire_after"), [(0.2, 0.6), (0.1, 0.3), (0.7, 2.1), (1, 3), (1.1, 3.3)]
)
def test_three_times_the_interval_is_enough_whatever_floats_make_of_it(
    db: Database, rows: Rows, interval: float, expire_after: float
) -> None:
    with db.masters.join("host:/base", interval=interval, expire_after=expire_after):
        assert rows()[0].expire_after == round(expire_after * 1_000_000)


def test_nobody_joins_within_a_transaction_or_an_operation(db: Database, rows: Rows) -> None:
    with db.transaction(), pytest.raises(UnusableConnectionError, match=r"join\(\)"):
        db.masters.join("host:/base")

    def operation(conn: Connection) -> None:
        with pytest.raises(UnusableConnectionError, match=r"join\(\)"):
            db.masters.join("host:/base")

    db.run(operation)
    db.submit(operation).result(timeout=PATIENCE)
    assert rows() == []


def test_nobody_joins_through_a_database_that_is_closed(url: str, rows: Rows) -> None:
    db = statedb.connect(url)
    db.close()
    with pytest.raises(statedb.PoolClosedError):
        db.masters.join("host:/base")
    assert rows() == []


def test_who_joins_is_active_from_now_on(db: Database, rows: Rows) -> None:
    with db.masters.join("host:/base", 20, 90.5) as member:
        (row,) = rows()
        assert row.id == member.id == db.masters.thdFindMasterId("host:/base")
        assert row.active
        assert row.incarnation == member.incarnation == 1
        assert row.expire_after == 90_500_000
        assert _is_due_after(row, 90.5)
        found = db.masters.thdGetMaster(member.id)
        assert found is not None
        assert abs(found.last_active.timestamp() - time.time()) < 30
        assert (member.name, member.interval, member.expire_after) == ("host:/base", 20, 90.5)
        assert not member.lost.is_set()
        assert not member.in_doubt.is_set()
        member.check()


def _is_due_after(row: Row, seconds: float) -> bool:
    # PostgreSQL looks at its clock twice.
    silence = (row.due or 0) - row.last_active
    return abs(silence - seconds * 1_000_000) < 100_000


def test_the_numbers_are_a_minute_and_ten_where_none_are_given(db: Database, rows: Rows) -> None:
    with db.masters.join("host:/base") as member:
        assert (member.interval, member.expire_after) == (60, 600)
        assert rows()[0].expire_after == 600_000_000


def test_a_new_incarnation_finds_free_what_the_one_before_had_claimed(
    db: Database, url: str, rows: Rows, claims: Claims
) -> None:
    with statedb.connect(url) as other:
        older = other.masters.join("host:/base")
        held = [older.claim("scheduler", name) for name in ("nightly", "weekly")]
        assert claims() == held
        with db.masters.join("host:/base", 30, 100) as newer:
            assert claims() == []
            (row,) = rows()
            assert (newer.id, newer.incarnation) == (older.id, older.incarnation + 1)
            assert (row.active, row.incarnation) == (True, newer.incarnation)
            assert row.expire_after == 100_000_000


def test_who_had_left_joins_again_as_a_new_incarnation(db: Database, rows: Rows) -> None:
    incarnations = []
    for _ in range(3):
        with db.masters.join("host:/base") as member:
            incarnations.append(member.incarnation)
    assert incarnations == [1, 2, 3]
    (row,) = rows()
    assert (row.active, row.incarnation, row.due) == (False, 3, None)


def test_twenty_who_join_at_once_have_twenty_places(db: Database, rows: Rows) -> None:
    with contextlib.ExitStack() as stack:
        barrier = threading.Barrier(5)
        members: list[Member] = []

        def join(number: int) -> None:
            barrier.wait()
            members.extend(db.masters.join(f"host:/base{number}-{n}") for n in range(4))

        _in_threads(5, join)
        for member in members:
            stack.callback(member.leave)
        assert {row.id for row in rows()} == {member.id for member in members}
        assert len({member.id for member in members}) == 20
        assert all(row.active and row.incarnation == 1 for row in rows())
    assert not any(row.active for row in rows())


def _in_threads(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_database_in_memory_has_members_too() -> None:
    with statedb.connect("sqlite://") as db:
        with db.masters.join("host:/base", **OFTEN) as member:
            claim = member.claim("scheduler", "nightly")
            joined = db.masters.thdGetMaster(member.id)
            assert joined is not None
            until(lambda: _last_active(db, member) > joined.last_active)
            with db.transaction():
                db.masters.thdHoldClaim(claim)
        left = db.masters.thdGetMaster(member.id)
        assert left is not None
        assert not left.active
        assert db.masters.thdGetClaims() == []


def _last_active(db: Database, member: Member) -> Any:
    found = db.masters.thdGetMaster(member.id)
    assert found is not None
    return found.last_active


def test_a_member_keeps_its_database_alive(url: str, rows: Rows) -> None:
    def join() -> Member:
        db = statedb.connect(url)
        return db.masters.join("host:/base", **OFTEN)

    members = [join()]
    gc.collect()
    until(lambda: rows()[0].heartbeats > 3)
    members[0].claim("scheduler", "nightly")
    members[0].leave()
    assert not rows()[0].active

    def forget() -> None:
        members.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="was never closed"):
        forget()


def test_a_member_that_nobody_keeps_goes_on(db: Database, rows: Rows) -> None:
    db.masters.join("host:/base", **OFTEN)
    gc.collect()
    before = rows()[0].heartbeats
    until(lambda: rows()[0].heartbeats > before + 2)
    assert rows()[0].active


def test_closing_a_database_has_its_members_leave(url: str, rows: Rows, claims: Claims) -> None:
    db = statedb.connect(url)
    members = [db.masters.join(f"host:/base{number}", **OFTEN) for number in range(3)]
    members[0].claim("scheduler", "nightly")
    with statedb.connect(url) as other, other.masters.join("another's") as stays:
        db.close()
        assert [row.id for row in rows() if row.active] == [stays.id]
    assert claims() == []
    for member in members:
        with pytest.raises(MasterLostError, match="has left"):
            member.check()


# --- Having a place ---


def test_check_ins_are_seen_and_due_goes_with_them(db: Database, rows: Rows) -> None:
    with db.masters.join("host:/base", **OFTEN):
        first = rows()[0]
        until(lambda: rows()[0].heartbeats >= first.heartbeats + 3)
        last = rows()[0]
        assert last.last_active > first.last_active
        assert _is_due_after(last, 60.0)
        assert last.incarnation == first.incarnation


def test_who_leaves_a_place_that_is_anothers_by_now_changes_nothing(
    db: Database, rows: Rows, claims: Claims
) -> None:
    older = db.run(take_place, "host:/base", 60.0)
    newer = db.run(take_place, "host:/base", 60.0)
    held = db.masters.thdClaim(newer.masterid, "scheduler", "nightly")
    db.run(leave_place, older)
    (row,) = rows()
    assert (row.active, row.incarnation) == (True, newer.incarnation)
    assert claims() == [held]
    db.run(leave_place, newer)
    (row,) = rows()
    assert (row.active, row.due) == (False, None)
    assert claims() == []


def test_a_look_around_says_who_is_overdue(db: Database, second: Any) -> None:
    minute = 60 * 1_000_000
    cases = {
        "by its own number": (1, 30 * minute, True),
        "not by its own number": (30, 20 * minute, False),
        "by everybody's number": (None, 11 * minute, True),
        "not by everybody's number": (None, 9 * minute, False),
    }
    for name, (own, silent, _) in cases.items():
        masterid = db.masters.thdFindMasterId(name)
        db.masters.thdSetMasterState(masterid, True)
        last_active = f"last_active = last_active - {silent}"
        number = "" if own is None else f", expire_after = {own * minute}"
        due = "" if own is None else f", due = last_active - {silent} + {own * minute}"
        # MySQL sees new values to the left.
        second.cursor().execute(
            f"UPDATE statedb_masters SET heartbeats = 7{number}{due} WHERE id = {masterid}"
        )
        second.cursor().execute(f"UPDATE statedb_masters SET {last_active} WHERE id = {masterid}")
    gone = db.masters.thdFindMasterId("inactive")
    for active in (True, False):
        db.masters.thdSetMasterState(gone, active)
    sightings = {one.masterid: one for one in db.run(look_around)}
    assert gone not in sightings
    names = {one.name: one.id for one in db.masters.thdGetMasters()}
    for name, (own, _, overdue) in cases.items():
        assert sightings[names[name]] == Sighting(
            names[name], 1, 7, 600.0 if own is None else own * 60.0, overdue
        )


def test_who_joins_is_seen_now_and_moves_on_by_one(db: Database, second: Any, rows: Rows) -> None:
    masterid = db.masters.thdFindMasterId("host:/base")
    second.cursor().execute(
        "UPDATE statedb_masters SET last_active = 0, incarnation = 5, heartbeats = 9"
    )
    began = time.time()
    place = db.run(take_place, "host:/base", 60.0)
    assert place == Place(masterid, 6)
    (row,) = rows()
    assert (row.active, row.incarnation, row.heartbeats) == (True, 6, 10)
    assert row.last_active > (began - 3600) * 1_000_000
    assert _is_due_after(row, 60.0)
    assert db.run(check_in, place) is True
    (later,) = rows()
    assert (later.incarnation, later.heartbeats) == (6, 11)


def test_a_member_claims_and_releases(db: Database, claims: Claims) -> None:
    with db.masters.join("a") as one, db.masters.join("b") as two:
        claim = one.claim("scheduler", "nightly")
        assert claim == Claim("scheduler", "nightly", one.id, 1)
        assert one.claim("scheduler", "nightly") == claim
        assert claims() == [claim]
        with pytest.raises(AlreadyClaimedError) as caught:
            two.claim("scheduler", "nightly")
        assert caught.value.owner == one.id
        assert one.release(claim) is True
        assert one.release(claim) is False
        assert claims() == []
        later = two.claim("scheduler", "nightly")
        assert later == Claim("scheduler", "nightly", two.id, 2)
        # Of another's claim, and of one whose token is past, nothing is released.
        assert one.release(claim) is False
        assert claims() == [later]


def test_a_member_releases_the_one_claim_of_several(db: Database, claims: Claims) -> None:
    with db.masters.join("a") as member:
        first, second = member.claim("scheduler", "first"), member.claim("scheduler", "second")
        assert first.token == second.token
        assert member.release(first) is True
        assert claims() == [second]


def test_a_member_says_how_it_is(db: Database) -> None:
    member = db.masters.join("host:/base")
    assert repr(member) == f"<statedb.Member {member.id} 'host:/base', active>"
    member.leave()
    assert repr(member) == f"<statedb.Member {member.id} 'host:/base', left>"
    older, newer = db.masters.join("host:/base", **OFTEN), db.masters.join("host:/base")
    assert older.lost.wait(PATIENCE)
    assert repr(older) == f"<statedb.Member {member.id} 'host:/base', lost>"
    newer.leave()


def test_a_busy_process_checks_in(
    engine: Engine, url: str, objectid: int, rows: Rows, application: Callable[..., Any]
) -> None:
    stop, inside = threading.Event(), threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    def read_for_long(conn: Connection) -> None:
        # On SQLite a transaction of ours would keep everybody from writing, the member too.
        cursor = conn.raw.cursor()
        cursor.execute("BEGIN")
        cursor.execute("SELECT id FROM statedb_objects").fetchall()
        inside.set()
        stop.wait(PATIENCE)
        cursor.execute("ROLLBACK")

    def write_for_long() -> None:
        with busy.transaction():
            busy.state.thdSetState(objectid, "k", 1)
            inside.set()
            stop.wait(PATIENCE)

    with (
        statedb.connect(url, pool_size=1, timeout=PATIENCE) as busy,
        busy.masters.join("busy", interval=0.3, expire_after=2.0) as member,
    ):
        if engine.name == "sqlite":
            long = threading.Thread(target=busy.run, args=(read_for_long,))
        else:
            long = threading.Thread(target=write_for_long)
        threads = [long, *(threading.Thread(target=spin) for _ in range(2))]
        for thread in threads:
            thread.start()
        assert inside.wait(PATIENCE)
        futures = [busy.state.getState(objectid, "k", None) for _ in range(100)]
        try:
            # Only once it was connected: a login takes its time where two threads spin.
            until(lambda: rows()[0].heartbeats > 2)
            before = rows()[0]
            assert not member.in_doubt.wait(2.4)
            until(lambda: rows()[0].heartbeats >= before.heartbeats + 4)
            after = rows()[0]
            assert not any(future.done() for future in futures)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert after.incarnation == before.incarnation == member.incarnation
        assert all(future.result(timeout=PATIENCE) in (1, None) for future in futures)


# --- Losing a place ---


def test_of_two_with_one_name_the_newer_stays_and_the_older_is_told(
    db: Database, url: str, rows: Rows, claims: Claims
) -> None:
    told: list[Member] = []
    with statedb.connect(url) as other:
        older = db.masters.join("host:/base", **OFTEN, on_lost=told.append)
        held = older.claim("scheduler", "nightly")
        newer = other.masters.join("host:/base", **OFTEN, on_lost=told.append)
        assert older.lost.wait(PATIENCE)
        with pytest.raises(MasterLostError, match="has lost its place"):
            older.check()
        with pytest.raises(MasterLostError):
            older.claim("scheduler", "nightly")
        with pytest.raises(MasterLostError):
            older.release(held)
        with db.transaction(), pytest.raises(ClaimLostError):
            db.masters.thdHoldClaim(held)
        assert newer.claim("scheduler", "nightly").token > held.token
        older.leave()
        assert told == [older]
        before = rows()[0]
        until(lambda: rows()[0].heartbeats >= before.heartbeats + 2)
        newer.check()
        assert not newer.lost.is_set()
        (row,) = rows()
        assert (row.active, row.incarnation) == (True, newer.incarnation)
        assert [one.masterid for one in claims()] == [newer.id]
        newer.leave()
    assert told == [older]


def test_who_is_told_by_a_claim_that_his_place_is_lost_does_not_wait_for_his_check_in(
    db: Database, url: str, rows: Rows
) -> None:
    told: list[Member] = []
    older = db.masters.join("host:/base", on_lost=told.append)
    # Its first check-in comes at once, and the next one in a minute.
    until(lambda: rows()[0].heartbeats == 2)
    with statedb.connect(url) as other, other.masters.join("host:/base") as newer:
        # By its last check-in, the older has its place.
        older.check()
        with pytest.raises(MasterLostError):
            older.claim("scheduler", "nightly")
        assert older.lost.is_set()
        older.leave()
        assert told == [older]
        newer.check()


@pytest.mark.parametrize("how", ["expired", "set inactive", "forgotten"])
def test_a_place_that_somebody_took_away_is_lost_and_never_taken_back(
    db: Database, url: str, rows: Rows, how: str
) -> None:
    told: list[Member] = []
    member = db.masters.join("host:/base", **OFTEN, on_lost=told.append)
    with statedb.connect(url) as other:
        if how == "expired":
            # As if silent for an hour; until a check-in of its own comes first.
            def age(conn: Connection) -> list[MasterModel]:
                with conn.transaction():
                    conn.execute("UPDATE statedb_masters SET due = 1")
                    return statedb.masters.expire_masters(conn)

            until(lambda: other.run(age))
        else:
            other.masters.thdSetMasterState(member.id, False)
        if how == "forgotten":
            assert other.masters.thdForgetMaster(member.id)
    assert member.lost.wait(PATIENCE)
    member.leave()
    assert told == [member]
    assert [row.active for row in rows()] == ([] if how == "forgotten" else [False])


# --- Expiring others ---


def test_whom_several_watch_one_expires_and_reports(url: str, db: Database, rows: Rows) -> None:
    reports: list[list[MasterModel]] = []
    with contextlib.ExitStack() as stack:
        observers = []
        for number in range(4):
            own = stack.enter_context(statedb.connect(url))
            observers.append(
                own.masters.join(f"observer {number}", **OFTEN, on_expired=reports.append)
            )
        dead = [db.run(take_place, f"dead {number}", 0.5).masterid for number in range(5)]
        claim = db.masters.thdClaim(dead[0], "scheduler", "nightly")
        until(lambda: sum(len(masters) for masters in reports) >= 5)
        found = sorted((one for masters in reports for one in masters), key=lambda one: one.id)
        assert [one.id for one in found] == dead
        assert [db.masters.thdGetMaster(one.id) for one in found] == found
        assert not any(one.active for one in found)
        assert observers[0].claim("scheduler", "nightly").token > claim.token
        # Nobody is told later either.
        before = rows()
        until(lambda: all(_moved(before, rows(), one.id, 5) for one in observers))
    assert sum(len(masters) for masters in reports) == 5


def _moved(before: list[Row], after: list[Row], masterid: int, times: int) -> bool:
    first, last = ([row for row in rows if row.id == masterid] for rows in (before, after))
    return last[0].heartbeats >= first[0].heartbeats + times


def test_who_was_overdue_for_long_is_watched_before_he_is_expired(
    db: Database, url: str, rows: Rows
) -> None:
    # As after an outage: overdue by the database's clock, and yet alive.
    place = db.run(take_place, "slow to come back", 1.0)
    until(lambda: db.run(_now) > (rows()[0].due or 0) + 200_000)
    expired: list[MasterModel] = []
    with statedb.connect(url) as other:
        other.masters.join("observer", **OFTEN, on_expired=expired.extend)
        until(lambda: rows()[1].heartbeats > 3)
        assert db.run(check_in, place) is True
        assert expired == []
        until(lambda: expired)
    assert [one.id for one in expired] == [place.masterid]


def _now(conn: Connection) -> int:
    """The database's clock."""
    row = conn.fetch_one(f"SELECT {conn.dialect.now}")
    assert row is not None
    return int(row[0])


def test_members_of_different_intervals_judge_each_by_his_own(
    db: Database, url: str, rows: Rows
) -> None:
    by_slow: list[MasterModel] = []
    by_fast: list[MasterModel] = []
    with statedb.connect(url) as other:
        slow = db.masters.join("slow", 2.0, 60.0, on_expired=by_slow.extend)
        fast = other.masters.join("fast", 0.2, 0.6, on_expired=by_fast.extend)
        assert not slow.lost.wait(1.5)
        assert by_fast == []
        assert rows()[0].active
        fast.leave()
        by_slow.clear()
        died = time.monotonic()
        dead = other.run(take_place, "fast", 0.6)
        until(lambda: by_slow)
        # It looks every two seconds at least, and again when that one's time is up.
        assert 0.5 < time.monotonic() - died < 2.0 + 0.6 + 1.5
    assert [one.id for one in by_slow] == [dead.masterid]


# --- Callbacks ---


def test_callbacks_run_on_a_thread_that_does_not_check_in(url: str, rows: Rows) -> None:
    checking_in: set[int] = set()
    calling: list[int] = []

    def note(sql: str) -> None:
        if "heartbeats + 1" in sql:
            checking_in.add(threading.get_ident())

    def called(_: object) -> None:
        calling.append(threading.get_ident())

    with watch(note), statedb.connect(url) as db:
        member = db.masters.join("host:/base", **OFTEN, on_expired=called, on_lost=called)
        until(lambda: rows()[0].heartbeats > 1)
        db.run(take_place, "dead", 0.3)
        until(lambda: len(calling) == 1)
        db.masters.thdSetMasterState(member.id, False)
        assert member.lost.wait(PATIENCE)
        member.leave()
    assert len(calling) == 2
    assert len(set(calling)) == 1
    assert not checking_in & set(calling)
    assert threading.get_ident() not in calling


def test_a_callback_that_raises_is_logged_and_harms_nothing(
    db: Database, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[int] = []

    def complain(masters: list[MasterModel]) -> None:
        told.extend(one.id for one in masters)
        raise ZeroDivisionError("a mistake of the application's")

    with db.masters.join("host:/base", **OFTEN, on_expired=complain) as member:
        dead = []
        for number in range(2):
            dead.append(db.run(take_place, f"dead {number}", 0.3).masterid)
            until(lambda: told == dead)
        before = rows()
        until(lambda: _moved(before, rows(), member.id, 2))
        member.check()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.name for record in errors] == ["statedb"] * 2
    assert all(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in errors)


def test_a_callback_that_blocks_delays_no_check_in(db: Database, rows: Rows) -> None:
    inside, release = threading.Event(), threading.Event()

    def block(_: object) -> None:
        inside.set()
        release.wait(PATIENCE)

    with db.masters.join("host:/base", **OFTEN, on_expired=block) as member:
        db.run(take_place, "dead", 0.3)
        assert inside.wait(PATIENCE)
        before = rows()
        until(lambda: _moved(before, rows(), member.id, 5))
        # And others are expired.
        other = db.run(take_place, "dead too", 0.3).masterid
        until(lambda: not [row for row in rows() if row.id == other and row.active])
        release.set()


# --- Leaving ---


def test_who_leaves_is_inactive_and_holds_nothing(db: Database, rows: Rows, claims: Claims) -> None:
    with db.masters.join("host:/base", **OFTEN) as member:
        member.claim("scheduler", "nightly")
        member.claim("scheduler", "weekly")
    (row,) = rows()
    assert (row.active, row.due) == (False, None)
    assert claims() == []
    assert not member.lost.is_set()
    for ask in (member.check, lambda: member.claim("scheduler", "nightly")):
        with pytest.raises(MasterLostError, match=r"has left: join\(\) anew"):
            ask()


def test_a_block_that_raises_leaves_too(db: Database, rows: Rows) -> None:
    with pytest.raises(ZeroDivisionError), db.masters.join("host:/base"):
        raise ZeroDivisionError
    assert not rows()[0].active


def test_leaving_again_does_nothing(db: Database, url: str, rows: Rows) -> None:
    member = db.masters.join("host:/base")
    member.leave()
    with statedb.connect(url) as other, other.masters.join("host:/base") as newer:
        member.leave()
        member.leave()
        assert rows()[0].active
        newer.check()


def test_several_threads_may_have_a_member_leave_at_once(db: Database, rows: Rows) -> None:
    for number in range(5):
        member = db.masters.join("host:/base", **OFTEN)
        barrier = threading.Barrier(4)

        def leave(_: int, member: Member = member, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            member.leave()

        _in_threads(4, leave)
        (row,) = rows()
        assert (row.active, row.incarnation) == (False, number + 1)


def test_nobody_leaves_within_a_transaction(db: Database, rows: Rows) -> None:
    with db.masters.join("host:/base") as member:
        with db.transaction(), pytest.raises(UnusableConnectionError, match=r"leave\(\)"):
            member.leave()
        member.check()
        assert rows()[0].active


def test_a_member_leaves_while_its_database_is_under_load(
    db: Database, objectid: int, rows: Rows
) -> None:
    stop = threading.Event()
    turns = [0] * 8

    def load(number: int) -> None:
        while not stop.is_set():
            turns[number] += 1
            db.state.thdSetState(objectid, f"k{number}", turns[number])
            db.state.getState(objectid, f"k{number}").result(timeout=PATIENCE)

    def join_and_leave() -> None:
        try:
            for number in range(5):
                with db.masters.join("host:/base", **OFTEN) as member:
                    member.claim("scheduler", "nightly")
                (row,) = rows()
                assert (row.active, row.incarnation) == (False, number + 1)
            until(lambda: min(turns) > 3)
        finally:
            stop.set()

    _in_threads(9, lambda number: load(number) if number < 8 else join_and_leave())


@pytest.mark.parametrize("told_of", ["expiry", "loss"])
def test_a_callback_may_have_its_member_leave(db: Database, rows: Rows, told_of: str) -> None:
    left = threading.Event()
    errors: list[BaseException] = []

    def leave(_: object) -> None:
        try:
            member.leave()
        except BaseException as error:
            errors.append(error)
        left.set()

    member = db.masters.join("host:/base", **OFTEN, on_expired=leave, on_lost=leave)
    if told_of == "expiry":
        db.run(take_place, "dead", 0.3)
    else:
        db.masters.thdSetMasterState(member.id, False)
    assert left.wait(PATIENCE)
    assert errors == []
    assert not rows()[0].active


Away = tuple[str, Callable[[], None]]


@pytest.fixture(params=["refused", "stalled"])
def away(request: pytest.FixtureRequest, engine: Engine, url: str) -> Iterator[Away]:
    """A URL of the test's database, and a function that takes the database away."""
    if isinstance(engine, OwnServer):
        assert engine.server is not None
        with Proxy(engine.server.port, engine.server.protocol) as proxy:
            far = engine.server.url(url.rpartition("/")[2], proxy.port)
            yield far, (proxy.refuse if request.param == "refused" else proxy.stall)
            if request.param == "stalled":
                proxy.resume()
    elif engine.name == "sqlite" and request.param == "stalled":
        with contextlib.closing(engine.connect(url, autocommit=True, timeout=20)) as other:
            yield url, lambda: other.execute("BEGIN EXCLUSIVE")
    else:
        pytest.skip("a file refuses nobody, and only a server of the tests' own is taken away")


def test_who_cannot_leave_says_so_in_time(
    away: Away, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    far, take_away = away
    with statedb.connect(far, timeout=2) as db:
        member = db.masters.join("host:/base", interval=0.3, expire_after=60)
        until(lambda: rows()[0].heartbeats > 1)
        take_away()
        began = time.monotonic()
        with pytest.raises(DatabaseError):
            member.leave()
        assert time.monotonic() - began < 2 + 2 + 2
        assert [thread.name for thread in threading.enumerate() if _is_of(member, thread)] == []
        with pytest.raises(MasterLostError, match="has left"):
            member.check()
        # Nor does it succeed later, while the database is away: when it is closed, it says so.
        with pytest.raises(DatabaseError):
            member.leave()
    assert "could not leave" in caplog.text
    assert rows()[0].active


def _is_of(member: Member, thread: threading.Thread) -> bool:
    return thread.name in (f"statedb-member-{member.id}", "statedb-callbacks")


def test_the_error_of_a_block_is_seen_even_if_its_member_cannot_leave(
    away: Away, caplog: pytest.LogCaptureFixture
) -> None:
    far, take_away = away
    with (
        statedb.connect(far, timeout=1.5) as db,
        pytest.raises(ZeroDivisionError),
        db.masters.join("host:/base"),
    ):
        take_away()
        raise ZeroDivisionError
    assert "could not leave" in caplog.text


# --- The process's end, and its forks ---


@pytest.mark.parametrize("how", ["ends", "raises"])
def test_a_process_that_ends_without_leaving_has_left(
    url: str, rows: Rows, claims: Claims, how: str
) -> None:
    with MemberProcess(url, "host:/base", **OFTEN) as process:
        process.joined()
        process.do("work", kind="scheduler", name="nightly", objectid=1)
        process.wait_for("claimed")
        assert rows()[0].active
        began = time.monotonic()
        process.do("exit", how=how)
        assert process.ended() == (1 if how == "raises" else 0)
        assert time.monotonic() - began < 10
    assert ("ZeroDivisionError" in process.errors) is (how == "raises")
    assert not rows()[0].active
    assert claims() == []


def test_a_process_that_cannot_leave_ends_nevertheless(away: Away) -> None:
    far, take_away = away
    with MemberProcess(far, "host:/base", timeout=2.0, interval=0.3, expire_after=60) as process:
        process.joined()
        take_away()
        began = time.monotonic()
        process.do("exit", how="ends")
        assert process.ended() == 0
        assert time.monotonic() - began < 15
    assert "could not leave" in process.errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_has_no_place_and_its_end_takes_none_away(
    url: str, rows: Rows, claims: Claims
) -> None:
    with MemberProcess(url, "host:/base", **OFTEN) as process:
        process.joined()
        objectid = _object(url)
        process.do("work", kind="scheduler", name="nightly", objectid=objectid)
        process.wait_for("wrote")
        (held,) = claims()
        for how in ("ends", "leaves", "closes"):
            assert process.ask("fork", how=how)["status"] == 0, process.errors
        children = process.wait_for("child", 3)
        assert [event["lost"] for event in children] == [True] * 3
        assert [event["raises"] for event in process.events("check")] == ["MasterLostError"] * 3
        before = rows()[0]
        assert before.active
        assert before.incarnation == process.events("joined")[0]["incarnation"]
        until(lambda: rows()[0].heartbeats >= before.heartbeats + 3)
        assert process.ask("check")["raises"] is None
        assert claims() == [held]
        assert process.count("lost") == 0


def _object(url: str) -> int:
    with statedb.connect(url) as db:
        return db.state.thdGetObjectId("counters", "Counter")
