"""The contract of claims, line by line: on every engine, by every kind of caller."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from conftest import ABSENT, LOCKED, Call
from engines import Engine
from interposed import interpose
from onlooker import Onlooker, Standing

import statedb
from statedb import (
    AlreadyClaimedError,
    Claim,
    ClaimLostError,
    Database,
    InvalidNameError,
    InvalidTypeError,
    MasterLostError,
    UnusableConnectionError,
)
from statedb.connection import Connection
from statedb.masters import (
    claim,
    expire_masters,
    find_master_id,
    forget_master,
    get_claims,
    get_master,
    hold_claim,
    release,
    set_master_state,
)
from statedb.state import get_state, set_state

Connect = Callable[..., Any]
Stored = Callable[[int, str], Any]
Hold = Callable[[Claim], None]
UNKNOWN = 987_654_321


@pytest.fixture
def masterid(second: Any) -> int:
    return _active(second, "host:/base")


@pytest.fixture
def other(second: Any) -> int:
    return _active(second, "other:/base")


def _active(second: Any, name: str) -> int:
    masterid = find_master_id(second, name)
    set_master_state(second, masterid, True)
    return masterid


def _expire(second: Any, masterid: int) -> None:
    second.cursor().execute(f"UPDATE statedb_masters SET last_active = 0 WHERE id = {masterid}")
    assert [one.id for one in expire_masters(second)] == [masterid]


def _incarnation(second: Any, masterid: int) -> int:
    cursor = second.cursor()
    cursor.execute(f"SELECT incarnation FROM statedb_masters WHERE id = {masterid}")
    incarnation: int = cursor.fetchone()[0]
    return incarnation


# --- Claiming ---


def test_a_claim_says_what_is_held_by_whom(call: Call, masterid: int, second: Any) -> None:
    held = call(claim, masterid, "scheduler", "nightly")
    assert held == Claim("scheduler", "nightly", masterid, held.token)
    assert type(held.token) is int
    assert get_claims(second) == [held]
    assert call(get_claims) == [held]


def test_claimed_again_by_its_owner_it_is_the_same(call: Call, masterid: int, second: Any) -> None:
    held = call(claim, masterid, "scheduler", "nightly")
    assert call(claim, masterid, "scheduler", "nightly") == held
    assert claim(second, masterid, "scheduler", "nightly") == held
    # Nor does it end by its master's being seen.
    set_master_state(second, masterid, True)
    assert call(claim, masterid, "scheduler", "nightly") == held
    assert get_claims(second) == [held]


def test_each_time_that_a_thing_changes_hands_its_token_is_larger_than_all_before(
    call: Call, masterid: int, other: int, second: Any
) -> None:
    tokens = []
    for owner in (masterid, other, masterid, masterid, other, other):
        held = call(claim, owner, "scheduler", "nightly")
        assert held.masterid == owner
        tokens.append(held.token)
        assert get_claims(second) == [held]
        assert call(release, owner, "scheduler", "nightly") is True
        assert get_claims(second) == []
    assert tokens == sorted(set(tokens))


def _fall_silent(second: Any, masterid: int) -> None:
    _expire(second, masterid)


def _be_deactivated(second: Any, masterid: int) -> None:
    assert set_master_state(second, masterid, False) is True


@pytest.mark.parametrize("end", [_fall_silent, _be_deactivated], ids=["expired", "deactivated"])
def test_what_ended_with_its_master_is_free_and_its_next_token_larger(
    call: Call, masterid: int, other: int, second: Any, end: Callable[[Any, int], None]
) -> None:
    held = call(claim, masterid, "scheduler", "nightly")
    end(second, masterid)
    assert call(get_claims) == []
    set_master_state(second, masterid, True)
    # The new incarnation holds nothing of the old one's.
    assert call(get_claims) == []
    assert call(release, masterid, "scheduler", "nightly") is False
    again = call(claim, masterid, "scheduler", "nightly")
    assert again.token > held.token
    end(second, masterid)
    others = call(claim, other, "scheduler", "nightly")
    assert others.token > again.token
    assert get_claims(second) == [others]


def test_tokens_outlive_the_master_that_had_them(call: Call, masterid: int, second: Any) -> None:
    held = call(claim, masterid, "scheduler", "nightly")
    set_master_state(second, masterid, False)
    assert forget_master(second, masterid) is True
    anew = _active(second, "host:/base")
    assert anew != masterid
    assert call(claim, anew, "scheduler", "nightly").token > held.token


def test_a_taken_thing_is_refused_with_its_owners_id_and_name(
    call: Call, masterid: int, other: int, second: Any
) -> None:
    held = call(claim, masterid, "scheduler", "nightly")
    for _ in range(2):
        with pytest.raises(AlreadyClaimedError) as raised:
            call(claim, other, "scheduler", "nightly")
        assert raised.value.owner == masterid
        text = str(raised.value)
        assert f"'scheduler' 'nightly' is held by master {masterid} ('host:/base')" in text
    assert get_claims(second) == [held]


def test_of_several_masters_the_one_that_holds_a_thing_is_named(call: Call, second: Any) -> None:
    ids = {name: _active(second, name) for name in ("first", "owner", "last")}
    # So that no token is, by chance, a master's id.
    for _ in range(max(ids.values())):
        call(claim, ids["last"], "scheduler", "nightly")
        call(release, ids["last"], "scheduler", "nightly")
    held = call(claim, ids["owner"], "scheduler", "nightly")
    assert held.token > max(ids.values())
    assert call(claim, ids["owner"], "scheduler", "nightly") == held
    for name in ("first", "last"):
        with pytest.raises(AlreadyClaimedError, match=r"\('owner'\)") as raised:
            call(claim, ids[name], "scheduler", "nightly")
        assert raised.value.owner == ids["owner"]


@pytest.mark.parametrize("state", ["new", "deactivated", "expired", "forgotten", "unknown"])
def test_a_master_that_is_inactive_or_unknown_claims_nothing(
    call: Call, second: Any, state: str
) -> None:
    masterid = UNKNOWN if state == "unknown" else find_master_id(second, "host:/base")
    if state in ("deactivated", "expired"):
        set_master_state(second, masterid, True)
        end = {"deactivated": _be_deactivated, "expired": _fall_silent}[state]
        end(second, masterid)
    if state == "forgotten":
        assert forget_master(second, masterid) is True
    with pytest.raises(MasterLostError, match=f"master {masterid} cannot hold anything"):
        call(claim, masterid, "scheduler", "nightly")
    assert get_claims(second) == []
    for beyond in (0, -1, 2**63, -(2**80)):
        with pytest.raises(MasterLostError):
            call(claim, beyond, "scheduler", "nightly")


def test_an_inactive_master_is_not_told_who_has_the_thing(
    call: Call, masterid: int, other: int, second: Any
) -> None:
    call(claim, other, "scheduler", "nightly")
    set_master_state(second, masterid, False)
    with pytest.raises(MasterLostError):
        call(claim, masterid, "scheduler", "nightly")


def test_with_an_incarnation_only_that_one_claims(call: Call, masterid: int, second: Any) -> None:
    current = _incarnation(second, masterid)
    for wrong in (current - 1, current + 1, 0, 2**63 - 1):
        with pytest.raises(MasterLostError, match="another incarnation"):
            call(claim, masterid, "scheduler", "nightly", incarnation=wrong)
    assert get_claims(second) == []
    held = call(claim, masterid, "scheduler", "nightly", incarnation=current)
    assert get_claims(second) == [held]
    assert call(claim, masterid, "scheduler", "nightly", incarnation=current) == held


def test_an_older_incarnation_does_not_claim_again_what_the_newer_one_has(
    call: Call, masterid: int, second: Any
) -> None:
    older = _incarnation(second, masterid)
    call(claim, masterid, "scheduler", "nightly", incarnation=older)
    set_master_state(second, masterid, False)
    set_master_state(second, masterid, True)
    held = claim(second, masterid, "scheduler", "nightly")
    with pytest.raises(MasterLostError):
        call(claim, masterid, "scheduler", "nightly", incarnation=older)
    assert get_claims(second) == [held]


def test_kinds_and_names_do_not_run_into_each_other(
    call: Call, masterid: int, other: int, second: Any
) -> None:
    things = [("a", "bc"), ("ab", "c"), ("abc", "a"), ("a", "abc"), ("bc", "a"), ("c", "ab")]
    for number, thing in enumerate(things):
        call(claim, (masterid, other)[number % 2], *thing)
    found = {(one.kind, one.name): one.masterid for one in get_claims(second)}
    assert found == {thing: (masterid, other)[number % 2] for number, thing in enumerate(things)}


NAMES = [
    *("a", "A", "á", "a\u0301", "\u00e9", "e\u0301", "a ", " a", "a\t", "ß", "ss", "😀"),
    *("'", '"', "\\", "%", "%s", "%(kind)s", "_", "/*each*/", "x" * 65_536, "é" * 32_768),
]


def test_any_legal_name_is_that_of_a_kind_and_of_a_thing(
    call: Call, masterid: int, second: Any
) -> None:
    held = [call(claim, masterid, name, "thing") for name in NAMES]
    held += [call(claim, masterid, "kind", name) for name in NAMES]
    assert {one.token for one in held} == {held[0].token}
    expected = sorted(held, key=lambda one: (one.kind.encode(), one.name.encode()))
    assert get_claims(second) == expected
    assert call(get_claims) == expected
    for name in NAMES:
        assert [one.kind for one in call(get_claims, kind=name)] == [name]
        assert call(release, masterid, name, "thing") is True
    assert [one.kind for one in get_claims(second)] == ["kind"] * len(NAMES)


REFUSED_NAMES: list[tuple[Any, type[Exception], str]] = [
    ("", InvalidNameError, "is empty"),
    ("a\0b", InvalidNameError, "holds a NUL"),
    ("\ud800", InvalidNameError, "holds a lone surrogate"),
    ("x" * 65_537, InvalidNameError, "has 65537 bytes"),
    (None, InvalidTypeError, "is a str, not NoneType"),
    (b"a", InvalidTypeError, "is a str, not bytes"),
    (["a"], InvalidTypeError, "is a str, not list"),
]


def test_what_cannot_be_a_name_is_refused(call: Call, masterid: int, second: Any) -> None:
    for name, error, message in REFUSED_NAMES:
        for operation in (claim, release):
            with pytest.raises(error, match=f"a claim's kind {message}"):
                call(operation, masterid, name, "name")
            with pytest.raises(error, match=f"a claim's name {message}"):
                call(operation, masterid, "kind", name)
        if name is not None:
            with pytest.raises(error, match=f"a claim's kind {message}"):
                call(get_claims, None, name)
    assert get_claims(second) == []


@pytest.fixture(params=["direct", "sync", "future"])
def claim_beside_a_rival(
    request: pytest.FixtureRequest, engine: Engine, url: str
) -> Callable[..., Claim]:
    """Claims a thing while a rival does something once we have seen that the thing is free."""
    kind: str = request.param
    statements = {
        "never claimed": "INSERT INTO statedb_claims",
        "free": "UPDATE statedb_claims",
        "its master not locked yet": "AND active = 1",
    }

    def claim_it(was: str, masterid: int, rival: Callable[[], None]) -> Claim:
        text = "BEGIN IMMEDIATE" if engine.name == "sqlite" else statements[was]
        with interpose(text, rival):
            if kind == "direct":
                with contextlib.closing(engine.connect(url, autocommit=True)) as own:
                    return claim(own, masterid, "scheduler", "nightly")
            with statedb.connect(url) as db:
                if kind == "sync":
                    return db.masters.thdClaim(masterid, "scheduler", "nightly")
                return db.masters.claim(masterid, "scheduler", "nightly").result(timeout=60)

    return claim_it


def _make(was: str, second: Any, masterid: int) -> None:
    if was == "free":
        claim(second, masterid, "scheduler", "nightly")
        release(second, masterid, "scheduler", "nightly")


@pytest.mark.parametrize("was", ["never claimed", "free"])
def test_of_two_who_claim_at_once_one_is_told_who_was_faster(
    claim_beside_a_rival: Callable[..., Claim], masterid: int, other: int, second: Any, was: str
) -> None:
    _make(was, second, masterid)
    won: list[Claim] = []
    with pytest.raises(AlreadyClaimedError, match=f"is held by master {other}") as raised:
        claim_beside_a_rival(
            was, masterid, lambda: won.append(claim(second, other, "scheduler", "nightly"))
        )
    assert raised.value.owner == other
    assert "'other:/base'" in str(raised.value)
    assert len(won) == 1
    assert get_claims(second) == won


@pytest.mark.parametrize("was", ["never claimed", "free"])
def test_what_a_rival_claimed_and_released_meanwhile_is_free(
    claim_beside_a_rival: Callable[..., Claim], masterid: int, other: int, second: Any, was: str
) -> None:
    _make(was, second, masterid)
    tokens: list[int] = []

    def rival() -> None:
        tokens.append(claim(second, other, "scheduler", "nightly").token)
        release(second, other, "scheduler", "nightly")

    held = claim_beside_a_rival(was, masterid, rival)
    assert held.masterid == masterid
    assert held.token > tokens[0]
    assert get_claims(second) == [held]


@pytest.mark.parametrize("was", ["never claimed", "free"])
def test_what_ones_own_master_claimed_meanwhile_is_that_claim(
    claim_beside_a_rival: Callable[..., Claim], masterid: int, second: Any, was: str
) -> None:
    _make(was, second, masterid)
    won: list[Claim] = []
    # On PostgreSQL two claims of one master's wait for each other from there on.
    held = claim_beside_a_rival(
        "its master not locked yet",
        masterid,
        lambda: won.append(claim(second, masterid, "scheduler", "nightly")),
    )
    assert won == [held] == get_claims(second)


@pytest.mark.parametrize("holder", ["masterid", "other"])
def test_in_a_transaction_too_an_older_incarnation_has_lost_its_place(
    request: pytest.FixtureRequest, db: Database, masterid: int, second: Any, holder: str
) -> None:
    older = _incarnation(second, masterid)
    set_master_state(second, masterid, False)
    set_master_state(second, masterid, True)
    held = claim(second, request.getfixturevalue(holder), "scheduler", "nightly")
    with db.transaction(), pytest.raises(MasterLostError):
        db.masters.thdClaim(masterid, "scheduler", "nightly", incarnation=older)
    assert get_claims(second) == [held]


@pytest.mark.parametrize("end", [_fall_silent, _be_deactivated], ids=["expired", "deactivated"])
def test_a_master_that_ends_while_it_claims_gets_nothing(
    engine: Engine, url: str, masterid: int, second: Any, end: Callable[[Any, int], None]
) -> None:
    # Once it was seen to be active, and before that is locked.
    text = "BEGIN IMMEDIATE" if engine.name == "sqlite" else "AND active = 1"
    with (
        interpose(text, partial(end, second, masterid)),
        statedb.connect(url) as db,
        pytest.raises(MasterLostError),
    ):
        db.masters.thdClaim(masterid, "scheduler", "nightly")
    assert get_claims(second) == []


# --- Releasing and looking ---


def test_releasing_says_whether_it_was_its_own(
    call: Call, masterid: int, other: int, second: Any
) -> None:
    assert call(release, masterid, "scheduler", "nightly") is False
    held = call(claim, masterid, "scheduler", "nightly")
    for nobody in (other, UNKNOWN, 0, 2**63):
        assert call(release, nobody, "scheduler", "nightly") is False
    assert call(release, masterid, "scheduler", "Nightly") is False
    assert call(release, masterid, "Scheduler", "nightly") is False
    assert get_claims(second) == [held]
    assert call(release, masterid, "scheduler", "nightly") is True
    assert get_claims(second) == []
    assert call(release, masterid, "scheduler", "nightly") is False


def test_what_a_deactivation_frees_can_be_claimed_behind_it(db: Database, second: Any) -> None:
    first, other = _active(second, "first"), _active(second, "other")
    for turn in range(20):
        db.masters.thdSetMasterState(first, True)
        db.masters.thdClaim(first, "scheduler", "nightly")
        ending = db.masters.setMasterState(first, False)
        claiming = db.masters.claim(other, "scheduler", "nightly")
        assert ending.result(30) is True
        assert claiming.result(30).masterid == other
        assert db.masters.thdRelease(other, "scheduler", "nightly") is True, turn


def test_only_the_one_thing_is_released(call: Call, masterid: int, second: Any) -> None:
    kept = [call(claim, masterid, *thing) for thing in (("a", "a"), ("a", "c"), ("b", "b"))]
    call(claim, masterid, "a", "b")
    assert call(release, masterid, "a", "b") is True
    assert get_claims(second) == kept


def test_claims_are_those_of_a_master_and_of_a_kind_in_the_order_of_their_bytes(
    call: Call, masterid: int, other: int, second: Any
) -> None:
    things = [("b", "é"), ("a", "b"), ("B", "a"), ("a", "B"), ("a ", "a"), ("b", "z"), ("é", "a")]
    for number, thing in enumerate(things):
        claim(second, (masterid, other)[number % 2], *thing)
    claim(second, masterid, "a", "free")
    release(second, masterid, "a", "free")

    def expected(owner: int | None, kind: str | None) -> list[tuple[str, str, int]]:
        found = [(*thing, (masterid, other)[number % 2]) for number, thing in enumerate(things)]
        return sorted(
            (one for one in found if owner in (None, one[2]) and kind in (None, one[0])),
            key=lambda one: (one[0].encode(), one[1].encode()),
        )

    for owner in (None, masterid, other, UNKNOWN, 0, 2**80):
        for kind in (None, "a", "b", "A", "é", "nothing"):
            found = call(get_claims, masterid=owner, kind=kind)
            assert [(one.kind, one.name, one.masterid) for one in found] == expected(owner, kind)
            assert call(get_claims, owner, kind) == found


@pytest.mark.parametrize("held", [None, 1, "nightly", ("scheduler", "nightly", 1, 1)])
def test_what_is_no_claim_is_not_held(call: Call, db: Database, held: Any) -> None:
    with pytest.raises(InvalidTypeError, match="a claim is a Claim, not"):
        call(hold_claim, held)
    with db.transaction(), pytest.raises(InvalidTypeError, match="a claim is a Claim, not"):
        db.masters.thdHoldClaim(held)


# --- Holding ---

WAYS = ["direct", "sync", "future", "the application's, begun", "the application's, implicit"]


@contextlib.contextmanager
def _transaction(way: str, db: Database, application: Connect) -> Iterator[tuple[Any, Hold]]:
    """A transaction: its connection, and how a claim is held in it."""
    if "application" not in way:
        with db.transaction() as conn:
            holds: dict[str, Hold] = {
                "direct": lambda held: hold_claim(conn, held),
                "sync": db.masters.thdHoldClaim,
                "future": lambda held: db.masters.holdClaim(held).result(timeout=60),
            }
            yield conn, holds[way]
        return
    own = application(autocommit="begun" in way)
    if "begun" in way:
        own.cursor().execute("BEGIN")
    try:
        yield own, lambda held: hold_claim(own, held)
    except BaseException:
        own.rollback()
        raise
    # By hand, as PyMySQL's and psycopg's own commit() do too, whatever the mode.
    own.cursor().execute("COMMIT") if "begun" in way else own.commit()


@pytest.fixture(params=WAYS)
def transaction(
    request: pytest.FixtureRequest, db: Database, application: Connect
) -> Callable[[], contextlib.AbstractContextManager[tuple[Any, Hold]]]:
    """Begins a transaction in which a claim can be held, in each way that there is."""
    way: str = request.param
    return lambda: _transaction(way, db, application)


@pytest.fixture
def held(second: Any, masterid: int) -> Claim:
    return claim(second, masterid, "scheduler", "nightly")


def test_outside_of_a_transaction_nothing_can_be_held(call: Call, held: Claim, second: Any) -> None:
    with pytest.raises(UnusableConnectionError, match="none is open") as raised:
        call(hold_claim, held)
    assert isinstance(raised.value, ValueError)
    assert release(second, held.masterid, held.kind, held.name) is True


def test_what_is_written_while_a_claim_is_held_stands(
    transaction: Any, held: Claim, objectid: int, stored: Stored, second: Any
) -> None:
    with transaction() as (conn, hold):
        assert hold(held) is None
        hold(held)
        set_state(conn, objectid, "k", held.token)
    assert stored(objectid, "k") == held.token
    assert get_claims(second) == [held]


def test_a_claim_made_in_the_same_transaction_can_be_held(
    transaction: Any, masterid: int, second: Any
) -> None:
    with transaction() as (conn, hold):
        held = claim(conn, masterid, "scheduler", "nightly")
        hold(held)
        assert claim(conn, masterid, "scheduler", "nightly") == held
    assert get_claims(second) == [held]


def _release(second: Any, held: Claim, other: int) -> None:
    assert release(second, held.masterid, held.kind, held.name) is True


def _release_and_claim_again(second: Any, held: Claim, other: int) -> None:
    _release(second, held, other)
    assert claim(second, held.masterid, held.kind, held.name) != held


def _lose_to_another(second: Any, held: Claim, other: int) -> None:
    _release(second, held, other)
    claim(second, other, held.kind, held.name)


def _expire_the_owner(second: Any, held: Claim, other: int) -> None:
    _expire(second, held.masterid)


def _activate_again(second: Any, held: Claim, other: int) -> None:
    set_master_state(second, held.masterid, False)
    set_master_state(second, held.masterid, True)


def _forget_the_owner(second: Any, held: Claim, other: int) -> None:
    set_master_state(second, held.masterid, False)
    forget_master(second, held.masterid)


LOSSES = [
    _release,
    _release_and_claim_again,
    _lose_to_another,
    _expire_the_owner,
    _activate_again,
    _forget_the_owner,
]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda one: one.__name__.strip("_"))
def test_a_lost_claim_cannot_be_held(
    transaction: Any,
    held: Claim,
    other: int,
    objectid: int,
    stored: Stored,
    second: Any,
    lose: Callable[[Any, Claim, int], None],
) -> None:
    lose(second, held, other)
    message = f"no longer held by master {held.masterid} under"
    with pytest.raises(ClaimLostError, match=message), transaction() as (conn, hold):
        set_state(conn, objectid, "k", "a zombie's")
        hold(held)
    assert stored(objectid, "k") is ABSENT


def test_a_loss_that_is_caught_leaves_the_transaction_usable(
    transaction: Any, held: Claim, other: int, objectid: int, stored: Stored, second: Any
) -> None:
    _lose_to_another(second, held, other)
    with transaction() as (conn, hold):
        with pytest.raises(ClaimLostError):
            hold(held)
        set_state(conn, objectid, "k", "I know that I have lost it")
    assert stored(objectid, "k") == "I know that I have lost it"


@pytest.mark.parametrize(
    "different",
    [{"token": 0}, {"token": 2}, {"token": 2**70}, {"kind": "Scheduler"}, {"masterid": UNKNOWN}],
    ids=str,
)
def test_a_claim_that_never_was_cannot_be_held(
    transaction: Any, held: Claim, different: dict[str, Any]
) -> None:
    made_up = Claim(**{**held.__dict__, **different})
    with transaction() as (_, hold):
        with pytest.raises(ClaimLostError):
            hold(made_up)
        hold(held)


def test_while_a_claim_is_held_its_master_is_not_expired(
    engine: Engine, transaction: Any, held: Claim, other: int, second: Any
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's only lock is on the database: expiry waits for that")
    second.cursor().execute("UPDATE statedb_masters SET last_active = 0")
    with transaction() as (_, hold):
        hold(held)
        assert [one.id for one in expire_masters(second)] == [other]
        assert get_claims(second) == [held]
    assert [one.id for one in expire_masters(second)] == [held.masterid]
    assert get_claims(second) == []


ENDS: list[Callable[[Any, Claim], object]] = [
    lambda own, held: release(own, held.masterid, held.kind, held.name),
    lambda own, held: set_master_state(own, held.masterid, False),
]


@pytest.mark.parametrize("end", ENDS, ids=["release", "deactivation"])
def test_who_would_end_a_held_claim_waits_for_the_end_of_the_transaction(
    transaction: Any, held: Claim, impatient: Any, second: Any, end: Callable[[Any, Claim], object]
) -> None:
    with transaction() as (conn, hold):
        hold(held)
        if isinstance(conn, sqlite3.Connection) and conn.isolation_level is None:
            # Begun as a reader's, it becomes a writer's with what it writes.
            find_master_id(conn, "something written")
        with pytest.raises(Exception, match=LOCKED):
            end(impatient, held)
        master = get_master(second, held.masterid)
        assert master is not None
        assert master.active is True
        assert get_claims(second) == [held]
        hold(held)
    assert end(impatient, held) is True
    assert get_claims(second) == []


def test_two_transactions_of_the_owner_hold_it_at_once(
    engine: Engine, transaction: Any, held: Claim, impatient: Any
) -> None:
    impatient.cursor().execute("BEGIN")
    with transaction() as (_, hold):
        hold(held)
        hold_claim(impatient, held)
        hold(held)
        impatient.rollback()


def test_while_a_claim_is_held_the_same_thread_claims_on_another_connection(
    engine: Engine,
    transaction: Any,
    held: Claim,
    other: int,
    objectid: int,
    impatient: Any,
) -> None:
    with transaction() as (conn, hold):
        hold(held)
        set_state(conn, objectid, "k", 1)
        # On the same thread: what waited here would wait for itself.
        assert claim(impatient, held.masterid, held.kind, held.name) == held
        with pytest.raises(AlreadyClaimedError):
            claim(impatient, other, held.kind, held.name)
        assert get_claims(impatient) == [held]
        if engine.name != "sqlite":
            more = claim(impatient, held.masterid, held.kind, "another")
            assert get_claims(impatient, held.masterid) == [more, held]


def test_a_claim_is_held_across_a_savepoint(
    transaction: Any, held: Claim, impatient: Any, objectid: int, stored: Stored
) -> None:
    with transaction() as (conn, hold):
        hold(held)
        conn_of_ours = statedb.connection.adapt(conn)
        with contextlib.suppress(ZeroDivisionError), conn_of_ours.transaction():
            set_state(conn, objectid, "k", "undone")
            raise ZeroDivisionError
        set_state(conn, objectid, "l", 1)
        with pytest.raises(Exception, match=LOCKED):
            release(impatient, held.masterid, held.kind, held.name)
    assert [stored(objectid, name) for name in "kl"] == [ABSENT, 1]


# --- Holding where servers do not heed each other's locks, as Galera's nodes ---


@pytest.fixture
def writes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have any server be taken for one of those: what holds there holds here too."""
    monkeypatch.setattr(Connection, "certifies", lambda conn: True)


def test_there_it_is_written_which_others_do_not_see(
    writes_alone: None, db: Database, held: Claim, other: int, second: Any, impatient: Any
) -> None:
    claim(second, held.masterid, held.kind, "weekly")
    claim(second, other, "poller", held.name)
    before = _tokens(second)
    with db.transaction():
        db.masters.thdHoldClaim(held)
        with pytest.raises(Exception, match=LOCKED):
            impatient.cursor().execute("UPDATE statedb_claims SET token = 0")
    assert _tokens(second) == before
    # Their standing since they became active, through all these claims.
    assert set(Onlooker(second).masters().values()) == {Standing(True, 1, 1)}


@pytest.mark.parametrize("lose", LOSSES, ids=lambda one: one.__name__.strip("_"))
def test_there_too_a_lost_claim_cannot_be_held(
    writes_alone: None,
    db: Database,
    held: Claim,
    other: int,
    second: Any,
    lose: Callable[[Any, Claim, int], None],
) -> None:
    lose(second, held, other)
    before = _tokens(second)
    with db.transaction(), pytest.raises(ClaimLostError):
        db.masters.thdHoldClaim(held)
    assert _tokens(second) == before


@pytest.mark.parametrize(
    "different", [{"token": 0}, {"kind": "Scheduler"}, {"masterid": UNKNOWN}], ids=str
)
def test_there_too_a_claim_that_never_was_cannot_be_held(
    writes_alone: None, db: Database, held: Claim, second: Any, different: dict[str, Any]
) -> None:
    before = _tokens(second)
    with db.transaction(), pytest.raises(ClaimLostError):
        db.masters.thdHoldClaim(Claim(**{**held.__dict__, **different}))
    assert _tokens(second) == before


def test_there_too_an_inactive_master_claims_nothing(
    writes_alone: None, db: Database, masterid: int, other: int, second: Any
) -> None:
    set_master_state(second, masterid, False)
    before = Onlooker(second).masters()
    # In a transaction what has been read may be old: what is written decides.
    with db.transaction(), pytest.raises(MasterLostError):
        db.masters.thdClaim(masterid, "scheduler", "nightly")
    assert Onlooker(second).masters() == before
    assert _tokens(second) == []


def _tokens(second: Any) -> list[tuple[Any, ...]]:
    cursor = second.cursor()
    cursor.execute("SELECT kind, name, masterid, token FROM statedb_claims ORDER BY kind, name")
    return list(cursor.fetchall())


# --- Holding on SQLite, where a transaction may have begun as a reader's ---


@pytest.fixture
def reader(
    engine: Engine, application: Connect, objectid: int
) -> Callable[[bool], sqlite3.Connection]:
    """An application's transaction that has read, and means to write later."""
    if engine.name != "sqlite":
        pytest.skip("SQLite only")

    def begin(reads: bool) -> sqlite3.Connection:
        own: sqlite3.Connection = application(autocommit=True, timeout=0.1)
        own.execute("BEGIN DEFERRED")
        if reads:
            assert get_state(own, objectid, "k", ABSENT) is ABSENT
        return own

    return begin


@pytest.mark.parametrize("lose", LOSSES, ids=lambda one: one.__name__.strip("_"))
@pytest.mark.parametrize("when", ["before it is held", "after it was held"])
@pytest.mark.parametrize("reads", [True, False], ids=["read first", "nothing read"])
def test_what_follows_a_loss_in_a_readers_transaction_cannot_be_committed(
    reader: Callable[[bool], sqlite3.Connection],
    held: Claim,
    other: int,
    objectid: int,
    stored: Stored,
    second: Any,
    when: str,
    reads: bool,
    lose: Callable[[Any, Claim, int], None],
) -> None:
    own = reader(reads)
    if when == "after it was held":
        hold_claim(own, held)
        lose(second, held, other)
    else:
        lose(second, held, other)
        if not reads:
            with pytest.raises(ClaimLostError):
                hold_claim(own, held)
            return
        # By the snapshot of the transaction it still was held.
        hold_claim(own, held)
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        set_state(own, objectid, "k", "a zombie's")
    with contextlib.suppress(sqlite3.OperationalError):
        own.execute("COMMIT")
    assert stored(objectid, "k") is ABSENT


def test_without_a_write_ahead_log_a_reader_that_holds_a_claim_does_not_lose_it(
    engine: Engine, url: str, tmp_path: Any
) -> None:
    if engine.name != "sqlite":
        pytest.skip("SQLite only")

    def connect() -> Any:
        return contextlib.closing(engine.connect(url, autocommit=True, timeout=0.1))

    with connect() as own:
        assert own.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    with connect() as own, connect() as second:
        held = claim(second, _active(second, "host:/base"), "scheduler", "nightly")
        own.execute("BEGIN")
        hold_claim(own, held)
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            release(second, held.masterid, held.kind, held.name)
        assert find_master_id(own, "written") > 0
        own.execute("COMMIT")
        assert get_claims(second) == [held]
        assert release(second, held.masterid, held.kind, held.name) is True
