"""The ends of a membership that come at an awkward moment: nothing hangs, and nothing is lost."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from interposed import interpose
from member_process import PATIENCE, until
from proxy import Proxy

import statedb
from statedb import (
    CallTimeoutError,
    Database,
    DatabaseError,
    MasterLostError,
    MasterModel,
    keeper,
    membership,
)
from statedb.connection import adapt
from statedb.masters import get_master
from statedb.place import check_in, take_place

OFTEN: dict[str, Any] = {"interval": 0.1, "expire_after": 0.4}
COMMIT = re.compile(r"^COMMIT$")
EXPIRY = re.compile(r"expiry_stamp = ")
READ_BACK = re.compile(r"WHERE id IN .*ORDER BY id\s+FOR UPDATE$", re.DOTALL)


@pytest.mark.parametrize("how", ["leave", "close"])
def test_a_done_callback_may_end_a_membership_in_memory(how: str) -> None:
    db = statedb.connect("sqlite://", timeout=PATIENCE)
    member = db.masters.join("host:/base", interval=0.02, expire_after=PATIENCE)
    ended = threading.Event()

    def end(_: object) -> None:
        # Time for a check-in to wait for the only worker, which is this thread.
        time.sleep(0.1)
        (member.leave if how == "leave" else db.close)()
        ended.set()

    db.submit(lambda conn: None).add_done_callback(end)
    assert ended.wait(PATIENCE / 2)
    with pytest.raises(MasterLostError, match="has left"):
        member.check()
    db.close()


def test_an_expiry_is_told_though_the_loss_of_ones_place_overtakes_it(
    db: Database, far_url: str, proxy: Proxy
) -> None:
    told: list[Any] = []
    with statedb.connect(far_url, timeout=20) as far:
        member = far.masters.join(
            "host:/base",
            **OFTEN,
            on_expired=lambda masters: told.append([one.name for one in masters]),
            on_lost=lambda lost: told.append("lost"),
        )
        held = proxy.hold_before(EXPIRY)
        db.run(take_place, "dead", 0.3)
        assert held.arrived.wait(PATIENCE)
        db.masters.thdSetMasterState(member.id, False)
        with pytest.raises(MasterLostError):
            member.claim("scheduler", "nightly")
        held.release()
        until(lambda: len(told) == 2)
        member.leave()
    assert told == ["lost", ["dead"]]


def test_what_is_known_of_an_expiry_whose_answer_was_lost_is_told_in_the_next_round(
    db: Database, far_url: str, proxy: Proxy
) -> None:
    told: list[list[str]] = []
    with (
        statedb.connect(far_url, timeout=20) as far,
        far.masters.join(
            "host:/base",
            interval=0.3,
            expire_after=30,
            on_expired=lambda masters: told.append([one.name for one in masters]),
        ),
    ):
        with db.transaction() as conn:
            take_place(conn, "one", 1.0)
            other = take_place(conn, "two", 1.0)
        read_back = proxy.hold_before(READ_BACK)
        proxy.cut_after(COMMIT)
        assert read_back.arrived.wait(PATIENCE)
        # So that of this one it cannot be told any more whose expiry it was.
        assert db.masters.thdForgetMaster(other.masterid)
        read_back.release()
        until(lambda: told)
    assert told == [["one"]]


def test_a_callback_that_wants_to_exit_keeps_none_from_being_called(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    lost = threading.Event()

    def exit_from(masters: list[MasterModel]) -> None:
        raise SystemExit(1)

    member = db.masters.join(
        "host:/base", **OFTEN, on_expired=exit_from, on_lost=lambda member: lost.set()
    )
    with caplog.at_level(logging.ERROR, logger="statedb"):
        db.run(take_place, "dead", 0.3)
        until(lambda: "a callback of a member raised" in caplog.text)
        db.masters.thdSetMasterState(member.id, False)
        assert lost.wait(PATIENCE)
    member.leave()


def test_who_could_not_leave_can_try_again(db: Database, far_url: str, proxy: Proxy) -> None:
    with statedb.connect(far_url, timeout=2) as far:
        member = far.masters.join("host:/base")
        proxy.refuse()
        with pytest.raises(DatabaseError):
            member.leave()
        proxy.listen()
        member.leave()
        found = db.masters.thdGetMaster(member.id)
        assert found is not None
        assert not found.active


def test_a_database_that_is_closed_within_a_transaction_checks_in_no_more(
    url: str, second: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with statedb.connect(url) as db:
        member = db.masters.join("host:/base", interval=0.05, expire_after=60)
        with db.transaction():
            db.close()
            threads = [one.name for one in threading.enumerate()]
            assert f"statedb-member-{member.id}" not in threads
        with pytest.raises(MasterLostError):
            member.check()
    assert "could not leave" in caplog.text
    # It is the others' to expire.
    found = get_master(second, member.id)
    assert found is not None
    assert found.active


def test_many_members_without_a_server_leave_within_the_time_of_one(
    far_url: str, proxy: Proxy
) -> None:
    with statedb.connect(far_url, timeout=2) as far:
        for number in range(4):
            far.masters.join(f"host:/{number}")
        proxy.refuse()
        begun = time.monotonic()
        far.close()
        assert time.monotonic() - begun < 3 * 2


def test_a_database_is_closed_after_its_members_have_been_told_of_their_loss(
    db: Database, url: str
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def on_lost(_: object) -> None:
        begun.set()
        time.sleep(0.3)
        ended.set()

    with statedb.connect(url) as own:
        member = own.masters.join("host:/base", **OFTEN, on_lost=on_lost)
        db.masters.thdSetMasterState(member.id, False)
        assert begun.wait(PATIENCE)
    assert ended.is_set()


def test_a_signal_handler_may_leave_in_the_midst_of_leaving(url: str, second: Any) -> None:
    nested: list[float] = []

    def handle() -> None:
        begun = time.monotonic()
        member.leave()
        nested.append(time.monotonic() - begun)

    with interpose("SET active = 0", handle), statedb.connect(url) as db:
        member = db.masters.join("host:/base")
        member.leave()
    assert nested[0] < 1
    found = get_master(second, member.id)
    assert found is not None
    assert not found.active


def test_who_joins_while_its_database_is_being_closed_does_not_stay(url: str, second: Any) -> None:
    closing = []

    def close() -> None:
        closing.append(threading.Thread(target=db.close))
        closing[0].start()
        until(lambda: db.closed)

    with interpose("heartbeats + 1", close):
        db = statedb.connect(url)
        with pytest.raises(statedb.PoolClosedError):
            # What is under way is finished; nothing more is begun.
            for number in range(3):
                db.masters.join(f"host:/{number}")
    closing[0].join()
    cursor = second.cursor()
    cursor.execute("SELECT COUNT(*) FROM statedb_masters WHERE active = 1")
    assert cursor.fetchone()[0] == 0


# --- Joining, leaving and expiring, in part ---


def _is_active(db: Database, masterid: int) -> bool:
    master = db.masters.thdGetMaster(masterid)
    assert master is not None
    return master.active


def test_who_is_interrupted_as_he_joins_gives_the_place_back(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(membership, "Keeper", interrupted)
    with pytest.raises(KeyboardInterrupt):
        db.masters.join("host:/base", on_lost=lambda member: None)
    (master,) = db.masters.thdGetMasters()
    assert not master.active


def test_who_leaves_while_another_thread_is_at_it_waits_no_longer_than_a_call_may(
    url: str, db: Database
) -> None:
    arrived, release = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        assert release.wait(PATIENCE)

    with (
        interpose("SET active = 0", hold),
        statedb.connect(url, timeout=0.5) as own,
        own.masters.join("host:/base") as member,
    ):
        leaving = threading.Thread(target=lambda: _outcome(member.leave))
        leaving.start()
        assert arrived.wait(PATIENCE)
        member.leave()
        assert _is_active(db, member.id)
        release.set()
        leaving.join()


def _outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except statedb.Error as error:
        return error


def test_a_block_whose_member_cannot_leave_says_so(
    url: str, db: Database, application: Callable[..., Any]
) -> None:
    rival = application()
    with statedb.connect(url, timeout=0.5) as own:
        with pytest.raises(CallTimeoutError), own.masters.join("host:/base", interval=10):
            rival.cursor().execute("UPDATE statedb_masters SET heartbeats = heartbeats")
        rival.rollback()
    assert not any(one.active for one in db.masters.thdGetMasters())


def test_who_has_asked_for_no_report_expires_the_silent_all_the_same(
    db: Database, second: Any
) -> None:
    silent = take_place(adapt(second), "silent", 0.1)
    for _ in range(2):  # or its incarnation and its heartbeats would be the same
        check_in(adapt(second), silent)
    with db.masters.join("host:/base", interval=0.05, expire_after=0.4, on_lost=lambda _: None):
        until(lambda: not _is_active(db, silent.masterid))


def test_a_loss_after_the_end_is_none(db: Database) -> None:
    told: list[object] = []
    member = db.masters.join("host:/base", on_lost=told.append)
    member.leave()
    member._keeper.lose()
    assert not member.lost.is_set()
    assert told == []


def test_an_answer_after_the_place_was_due_leaves_the_doubt_to_the_next_check_in(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slept, own_now = [0.0], keeper.now
    monkeypatch.setattr(keeper, "now", lambda: own_now() + slept[0])

    def sleep_with_the_host() -> None:
        slept[0] += 1000

    with (
        interpose("SET heartbeats", sleep_with_the_host),
        statedb.connect(url) as own,
        own.masters.join("host:/base", interval=0.05, expire_after=60) as member,
    ):
        until(lambda: "is in doubt" in caplog.text)
        until(lambda: not member.in_doubt.is_set())
        member.check()


def test_an_answer_that_comes_just_as_it_is_to_be_waited_for_is_taken(db: Database) -> None:
    class Late(Future[int]):
        looks = 0

        def done(self) -> bool:
            self.looks += 1
            if self.looks == 2:
                self.set_result(1)
            return super().done()

    with db.masters.join("host:/base") as member:
        assert member._keeper._await(Late()) == 1
