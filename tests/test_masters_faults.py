"""Faults between masters: answers that are lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
from onlooker import Onlooker
from proxy import Proxy

import statedb
from statedb import Claim, Database, MasterModel, OutcomeUnknownError
from statedb.connection import Connection
from statedb.masters import (
    claim,
    expire_masters,
    find_master_id,
    forget_master,
    get_master,
    set_master_state,
)

pytestmark = pytest.mark.once

KIND = "builder"
COMMIT = re.compile(r"^COMMIT$")
BEGIN = re.compile(r"^BEGIN")


@pytest.fixture
def onlooker(application: Callable[..., Any]) -> Onlooker:
    return Onlooker(application(autocommit=True))


# --- Answers that are lost ---


@pytest.fixture
def far(far_url: str, proxy: Proxy) -> Iterator[Database]:
    """The test's database, through the proxy, one connection of it open."""
    with statedb.connect(far_url, timeout=40) as db:
        db.masters.thdGetMasters()
        proxy.forget()
        yield db


Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "future"])
def ask(request: pytest.FixtureRequest, far: Database) -> Ask:
    """Calls a connector's operation through the proxy, in one form or the other."""

    def call(name: str, *arguments: Any) -> Any:
        if request.param == "sync":
            return getattr(far.masters, f"thd{name[0].upper()}{name[1:]}")(*arguments)
        return getattr(far.masters, name)(*arguments).result(timeout=120)

    return call


@pytest.fixture
def asked(ask: Ask) -> Iterator[Callable[..., Future[Any]]]:
    """The same on a thread of its own, so that something can happen meanwhile."""
    with ThreadPoolExecutor(1) as executor:
        yield lambda *arguments: executor.submit(ask, *arguments)


@pytest.fixture
def silent(second: Any, onlooker: Onlooker) -> list[int]:
    """Two masters that are overdue, each holding something."""
    masterids = []
    for name in ("silent", "silent too"):
        masterid = find_master_id(second, name)
        set_master_state(second, masterid, True)
        claim(second, masterid, KIND, name)
        onlooker.silence(masterid)
        masterids.append(masterid)
    return masterids


STEPS: dict[str, str | re.Pattern[str]] = {
    "look": "UNION ALL",
    "begin": BEGIN,
    "lock of masters": "incarnation, heartbeats, last_active",
    "count of claims": "COUNT(masterid)",
    "lock of claims": re.compile(r"^SELECT masterid\s+FROM statedb_claims\b.*LOCKED", re.DOTALL),
    "expiry": "expiry_stamp =",
    "release": "UPDATE statedb_claims",
    "commit": COMMIT,
}
READ_BACK = "incarnation, expiry_stamp"


def _ids(masters: list[MasterModel]) -> list[int]:
    return [one.id for one in masters]


def _are_expired(onlooker: Onlooker, masterids: list[int]) -> bool:
    masters = onlooker.masters()
    return not any(masters[one].active or onlooker.held_by(one) for one in masterids)


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
@pytest.mark.parametrize("step", STEPS)
def test_an_expiry_whose_answer_was_lost_is_reported_once(
    ask: Ask, proxy: Proxy, onlooker: Onlooker, silent: list[int], step: str, cut: str
) -> None:
    getattr(proxy, cut)(STEPS[step])
    assert _ids(ask("expireMasters")) == silent
    # All of it was tried twice, or the answer to COMMIT was, and then read back.
    looks = sum("UNION ALL" in one for one in proxy.statements)
    reads = sum(READ_BACK in one for one in proxy.statements)
    assert (looks, reads) == (2, int(step == "commit"))
    assert _are_expired(onlooker, silent)
    assert ask("expireMasters") == []


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
def test_so_it_is_where_servers_heed_only_what_others_have_written(
    far: Database,
    proxy: Proxy,
    onlooker: Onlooker,
    silent: list[int],
    cut: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Connection, "certifies", lambda conn: True)
    before = {one: onlooker.masters()[one].heartbeats for one in silent}
    getattr(proxy, cut)(COMMIT)
    assert _ids(far.masters.thdExpireMasters()) == silent
    assert {one: onlooker.masters()[one].heartbeats for one in silent} == before
    assert _are_expired(onlooker, silent)


def test_an_expiry_is_reported_once_however_often_its_answer_is_lost(
    ask: Ask, proxy: Proxy, onlooker: Onlooker, silent: list[int], second: Any
) -> None:
    proxy.cut_before(COMMIT, times=2)
    assert _ids(ask("expireMasters")) == silent
    assert sum(READ_BACK in one for one in proxy.statements) == 2
    for masterid in silent:
        set_master_state(second, masterid, True)
        onlooker.silence(masterid)
    proxy.cut_after(COMMIT)
    proxy.cut_after(READ_BACK)
    proxy.cut_before(READ_BACK)
    proxy.cut_after("UNION ALL")
    assert _ids(ask("expireMasters")) == silent
    assert _are_expired(onlooker, silent)
    assert ask("expireMasters") == []


def test_a_commit_still_under_way_is_ended_and_done_again(
    asked: Callable[..., Future[Any]],
    far: Database,
    proxy: Proxy,
    second: Any,
    onlooker: Onlooker,
    silent: list[int],
) -> None:
    dialect, raw = far.run(lambda conn: (conn.dialect, conn.raw))
    held = proxy.hold_before(COMMIT)
    future = asked("expireMasters")
    assert held.arrived.wait(60)
    # The client loses its connection, but COMMIT is on its way, and the server knows nothing.
    dialect.cut(raw)
    assert _ids(future.result(timeout=120)) == silent
    assert sum("expiry_stamp =" in one for one in proxy.statements) == 2
    assert _are_expired(onlooker, silent)
    assert _ids(expire_masters(second)) == []


def test_a_lost_expiry_is_looked_for_without_waiting_for_other_masters(
    asked: Callable[..., Future[Any]],
    proxy: Proxy,
    application: Callable[..., Any],
    second: Any,
    silent: list[int],
) -> None:
    others = [find_master_id(second, f"other {number}") for number in range(3)]
    rival = application()
    for one in others:
        rival.cursor().execute(f"UPDATE statedb_masters SET due = NULL, name = '' WHERE id = {one}")
    proxy.cut_after(COMMIT)
    future = asked("expireMasters")
    assert wait([future], 15).done
    assert future.result() == [get_master(second, one) for one in silent]
    rival.rollback()


def test_who_is_active_again_before_the_answer_is_read_back_was_expired_all_the_same(
    asked: Callable[..., Future[Any]],
    proxy: Proxy,
    second: Any,
    onlooker: Onlooker,
    silent: list[int],
) -> None:
    proxy.cut_after(COMMIT)
    held = proxy.hold_before(READ_BACK)
    future = asked("expireMasters")
    assert held.arrived.wait(60)
    assert set_master_state(second, silent[0], True) is True
    held.release()
    expired = future.result(timeout=120)
    assert [(one.id, one.active) for one in expired] == [(silent[0], True), (silent[1], False)]
    assert [onlooker.masters()[one].active for one in silent] == [True, False]
    assert _ids(expire_masters(second)) == []


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
@pytest.mark.parametrize("act", ["expired again", "forgotten"])
def test_who_was_expired_again_or_forgotten_before_that_leaves_it_unknown(
    asked: Callable[..., Future[Any]],
    proxy: Proxy,
    second: Any,
    onlooker: Onlooker,
    silent: list[int],
    cut: str,
    act: str,
) -> None:
    getattr(proxy, cut)(COMMIT)
    held = proxy.hold_before(READ_BACK)
    future = asked("expireMasters")
    assert held.arrived.wait(60)
    # Undone or not: the server has noticed by then, for this waits for its lock.
    assert set_master_state(second, silent[0], False) is (cut == "cut_before")
    if act == "forgotten":
        assert forget_master(second, silent[0]) is True
    else:
        assert set_master_state(second, silent[0], True) is True
        onlooker.silence(silent[0])
        expired = _ids(expire_masters(second))
        assert expired[0] == silent[0]
    held.release()
    with pytest.raises(OutcomeUnknownError, match=rf"expired masters? \[?{silent[0]}\b.* be told"):
        future.result(timeout=120)


def test_whom_another_has_expired_instead_is_reported_by_the_other_only(
    asked: Callable[..., Future[Any]],
    proxy: Proxy,
    second: Any,
    onlooker: Onlooker,
    silent: list[int],
) -> None:
    proxy.cut_before(COMMIT)
    held = proxy.hold_before(READ_BACK)
    future = asked("expireMasters")
    assert held.arrived.wait(60)
    others: list[int] = []
    deadline = time.monotonic() + 30
    while not others:  # until the server has noticed, they are locked, and left
        assert time.monotonic() < deadline
        others = _ids(expire_masters(second))
    held.release()
    assert others == silent
    assert future.result(timeout=120) == []
    assert _are_expired(onlooker, silent)


# --- Other operations' lost answers ---


@pytest.fixture
def active(second: Any) -> int:
    """A master that is active, and holds one thing."""
    masterid = find_master_id(second, "active")
    set_master_state(second, masterid, True)
    claim(second, masterid, KIND, "held")
    return masterid


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
def test_a_claim_whose_answer_was_lost_is_done_again(
    ask: Ask, proxy: Proxy, onlooker: Onlooker, active: int, cut: str
) -> None:
    # PostgreSQL's lock is an UPDATE.
    lock = re.compile("^SELECT incarnation|^UPDATE statedb_masters")
    new = ["claimant.active", BEGIN, lock, "INSERT INTO statedb_claims", COMMIT]
    again = ["claimant.active", BEGIN, lock, "UPDATE statedb_claims", "SELECT token", COMMIT]
    for number, statement in enumerate(new):
        getattr(proxy, cut)(statement)
        expected = Claim(KIND, f"thing {number}", active, 1)
        assert ask("claim", active, KIND, f"thing {number}") == expected
        assert onlooker.claims()[f"thing {number}"] == (active, 1)
    for token, statement in enumerate(again, 2):
        assert ask("release", active, KIND, "thing 0") is True
        getattr(proxy, cut)(statement)
        assert ask("claim", active, KIND, "thing 0").token == token
        assert onlooker.claims()["thing 0"] == (active, token)
    assert sum("claimant.active" in one for one in proxy.statements) == 2 * len(new + again)


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
def test_a_masters_id_whose_answer_was_lost_is_the_one_that_was_given(
    ask: Ask, proxy: Proxy, onlooker: Onlooker, cut: str
) -> None:
    getattr(proxy, cut)("INSERT INTO statedb_masters")
    masterid = ask("findMasterId", "new")
    assert list(onlooker.masters()) == [masterid]
    getattr(proxy, cut)("SELECT id")
    assert ask("findMasterId", "new") == masterid
    assert sum(one.startswith("SELECT id") for one in proxy.statements) == 4
    assert list(onlooker.masters()) == [masterid]


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
def test_a_deactivation_whose_commit_was_lost_is_unknown_and_the_row_tells(
    ask: Ask, proxy: Proxy, onlooker: Onlooker, active: int, cut: str
) -> None:
    getattr(proxy, cut)(COMMIT)
    with pytest.raises(OutcomeUnknownError, match="the answer to set_master_state was lost"):
        ask("setMasterState", active, False)
    done = cut == "cut_after"
    assert onlooker.masters()[active].active is not done
    assert onlooker.held_by(active) == (set() if done else {"held"})


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
def test_a_release_whose_answer_was_lost_is_unknown_and_the_row_tells(
    ask: Ask, proxy: Proxy, onlooker: Onlooker, active: int, cut: str
) -> None:
    getattr(proxy, cut)("UPDATE statedb_claims")
    with pytest.raises(OutcomeUnknownError, match="the answer to release was lost"):
        ask("release", active, KIND, "held")
    assert onlooker.claims() == {"held": (None if cut == "cut_after" else active, 1)}


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
def test_a_forgetting_whose_commit_was_lost_is_unknown_and_the_row_tells(
    ask: Ask, proxy: Proxy, onlooker: Onlooker, active: int, second: Any, cut: str
) -> None:
    set_master_state(second, active, False)
    getattr(proxy, cut)(COMMIT)
    with pytest.raises(OutcomeUnknownError, match="the answer to forget_master was lost"):
        ask("forgetMaster", active)
    assert (active in onlooker.masters()) is (cut == "cut_before")


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
def test_what_cannot_have_been_committed_is_done_again(
    ask: Ask, proxy: Proxy, onlooker: Onlooker, active: int, cut: str
) -> None:
    for statement in (BEGIN, "SELECT active", "UPDATE statedb_masters", "UPDATE statedb_claims"):
        getattr(proxy, cut)(statement)
        assert ask("setMasterState", active, False) is True
        assert _are_expired(onlooker, [active])
        assert ask("setMasterState", active, True) is True
        assert ask("claim", active, KIND, "held").masterid == active
    assert ask("setMasterState", active, False) is True
    for statement in (BEGIN, "SELECT active", "DELETE FROM statedb_masters"):
        getattr(proxy, cut)(statement)
        assert ask("forgetMaster", active) is True
        assert onlooker.masters() == {}
        active = ask("findMasterId", "active")
