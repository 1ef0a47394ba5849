"""Races between masters: who expires whom, who holds what, and what each side is told."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple

import pytest
from engines import Engine
from interposed import interpose
from onlooker import Onlooker

import statedb
from statedb import (
    AlreadyClaimedError,
    Claim,
    ClaimLostError,
    ConflictError,
    Database,
    MasterLostError,
    Member,
)
from statedb.connection import adapt
from statedb.masters import (
    claim,
    expire_masters,
    find_master_id,
    get_claims,
    hold_claim,
    release,
    set_master_state,
)
from statedb.place import Place, check_in, leave_place, take_place

pytestmark = pytest.mark.once

Connect = Callable[..., Any]
KIND = "builder"


@pytest.fixture
def connect(engine: Engine, application: Connect) -> Callable[[], Any]:
    """Opens autocommit connections of the driver's, which wait for one another."""
    patience = {"timeout": 60.0} if engine.name == "sqlite" else {}
    return lambda: application(autocommit=True, **patience)


@pytest.fixture
def onlooker(connect: Callable[[], Any]) -> Onlooker:
    return Onlooker(connect())


@contextlib.contextmanager
def _rounds(work: list[Callable[[], None]], rounds: int) -> Iterator[Callable[[], None]]:
    """Have each work once a round, let go at once; what is given runs one round to its end."""
    gate = threading.Barrier(len(work) + 1)

    def repeat(one: Callable[[], None]) -> None:
        try:
            for _ in range(rounds):
                gate.wait(120)
                one()
                gate.wait(120)
        except BaseException:
            gate.abort()
            raise

    def run_one() -> None:
        gate.wait(120)
        gate.wait(120)

    with ThreadPoolExecutor(len(work)) as executor:
        futures = [executor.submit(repeat, one) for one in work]
        try:
            yield run_one
        except BaseException:
            gate.abort()
            for future in futures:
                if not isinstance(future.exception(), (threading.BrokenBarrierError, type(None))):
                    future.result()
            raise


# --- Many who expire ---

OBSERVERS, EXPIRIES = 16, 1000


def test_sixteen_observers_expire_a_silent_master_once_a_thousand_times(
    connect: Callable[[], Any], onlooker: Onlooker
) -> None:
    own = connect()
    silent, standby = (find_master_id(own, name) for name in ("silent", "standby"))
    set_master_state(own, standby, True)
    told: list[tuple[int, int]] = []

    def observer(own: Any) -> Callable[[], None]:
        def observe() -> None:
            # It is free, and nobody else frees it once more: it stays the standby's.
            told.extend(
                (expired.id, claim(own, standby, KIND, "main").token)
                for expired in expire_masters(own)
            )

        return observe

    observers = [observer(connect()) for _ in range(OBSERVERS)]
    with _rounds(observers, EXPIRIES) as run_one:
        for number in range(EXPIRIES):
            release(own, standby, KIND, "main")
            assert set_master_state(own, silent, True) is True
            assert claim(own, silent, KIND, "main").token == 2 * number + 1
            onlooker.silence(silent)
            run_one()
            assert told == [(silent, 2 * number + 2)]
            assert not onlooker.masters()[silent].active
            assert onlooker.claims() == {"main": (standby, 2 * number + 2)}
            told.clear()


# --- A check-in against an expiry ---

Expire = Callable[[str, Callable[[], None]], list[int]]


@pytest.fixture(params=["direct", "sync", "future"])
def expire_beside(request: pytest.FixtureRequest, engine: Engine, url: str) -> Expire:
    """Whom expire_masters expires while a rival acts before the statement that holds a text."""
    kind: str = request.param

    def expire(text: str, rival: Callable[[], None]) -> list[int]:
        with interpose(text, rival):
            if kind == "direct":
                with contextlib.closing(engine.connect(url, autocommit=True)) as own:
                    expired = expire_masters(own)
            else:
                with statedb.connect(url) as db:
                    if kind == "sync":
                        expired = db.masters.thdExpireMasters()
                    else:
                        expired = db.masters.expireMasters().result(timeout=60)
        return [one.id for one in expired]

    return expire


@pytest.fixture
def place(connect: Callable[[], Any], onlooker: Onlooker) -> Place:
    """The place of a master that holds a thing, and is overdue."""
    own = connect()
    place = take_place(adapt(own), "late", 600.0)
    claim(own, place.masterid, KIND, "main")
    onlooker.silence(place.masterid)
    return place


# Where the lock is the database's, on SQLite, it is had from BEGIN on.
@pytest.mark.parametrize("before", ["BEGIN", "FOR UPDATE SKIP LOCKED"])
def test_a_check_in_between_the_look_and_the_lock_saves_its_master(
    engine: Engine,
    connect: Callable[[], Any],
    onlooker: Onlooker,
    place: Place,
    expire_beside: Expire,
    before: str,
) -> None:
    if engine.name == "sqlite" and before != "BEGIN":
        pytest.skip("SQLite's one writer is the observer: nobody can check in meanwhile")
    own = adapt(connect())
    answers: list[bool] = []
    assert expire_beside(before, lambda: answers.append(check_in(own, place))) == []
    assert answers == [True]
    assert onlooker.masters()[place.masterid].active
    assert onlooker.held_by(place.masterid) == {"main"}
    assert check_in(own, place) is True


@pytest.mark.parametrize("before", ["BEGIN", "FOR UPDATE SKIP LOCKED"])
def test_who_left_between_the_look_and_the_lock_is_not_expired(
    engine: Engine, db: Database, place: Place, expire_beside: Expire, before: str
) -> None:
    if engine.name == "sqlite" and before != "BEGIN":
        pytest.skip("SQLite's one writer is the observer: nobody can leave meanwhile")
    assert expire_beside(before, lambda: db.run(leave_place, place)) == []


@pytest.mark.parametrize("active", [True, False])
def test_of_two_who_change_a_masters_state_at_once_one_has_changed_it(
    url: str, db: Database, active: bool
) -> None:
    masterid = db.masters.thdFindMasterId("host:/base")
    db.masters.thdSetMasterState(masterid, not active)
    rivals: list[Future[bool]] = []

    def change() -> None:
        rivals.append(db.masters.setMasterState(masterid, active))
        wait(rivals, 0.3)  # which it could be done in, were it not for the lock

    changes = "SET incarnation" if active else "SET active"
    with interpose(changes, change), statedb.connect(url) as own:
        changed = own.masters.thdSetMasterState(masterid, active)
    assert [changed, rivals[0].result(timeout=60)] == [True, False]


@pytest.mark.parametrize("before", ["UPDATE statedb_masters", "UPDATE statedb_claims", "COMMIT"])
def test_a_check_in_after_the_lock_waits_and_reports_the_loss(
    connect: Callable[[], Any],
    onlooker: Onlooker,
    place: Place,
    expire_beside: Expire,
    before: str,
) -> None:
    own = adapt(connect())
    answers: list[Future[bool]] = []
    with ThreadPoolExecutor(1) as executor:

        def check_in_late() -> None:
            answers.append(executor.submit(check_in, own, place))
            assert not wait(answers, 0.3).done

        assert expire_beside(before, check_in_late) == [place.masterid]
        assert answers[0].result(timeout=60) is False
    assert not onlooker.masters()[place.masterid].active
    assert onlooker.held_by(place.masterid) == set()
    assert check_in(own, place) is False


@pytest.mark.parametrize("commits", [True, False])
def test_an_open_check_in_saves_its_master_if_it_commits(
    engine: Engine,
    url: str,
    connect: Callable[[], Any],
    onlooker: Onlooker,
    place: Place,
    call: Callable[..., Any],
    commits: bool,
) -> None:
    own = connect()
    own.cursor().execute("BEGIN IMMEDIATE" if engine.name == "sqlite" else "BEGIN")
    assert check_in(adapt(own), place) is True
    with ThreadPoolExecutor(1) as executor:
        observer = executor.submit(call, expire_masters)
        # What is locked is left for the next round; SQLite's only lock is waited for.
        if engine.name == "sqlite":
            assert not wait([observer], 0.3).done
        else:
            assert observer.result(timeout=60) == []
        own.cursor().execute("COMMIT" if commits else "ROLLBACK")
        expired = observer.result(timeout=60)
    # On a server only the next round sees what became of the check-in.
    expired += call(expire_masters)
    assert [one.id for one in expired] == ([] if commits else [place.masterid])
    assert onlooker.masters()[place.masterid].active is commits
    assert onlooker.held_by(place.masterid) == ({"main"} if commits else set())
    assert check_in(adapt(own), place) is commits


def test_of_a_check_in_and_an_expiry_one_is_first_and_both_know_which(
    connect: Callable[[], Any], onlooker: Onlooker
) -> None:
    rounds = 400
    own, members_own = connect(), adapt(connect())
    places: list[Place] = []
    expired: list[int] = []
    answers: list[bool] = []
    #: By how much each side starts late, in seconds, so that both are first now and then.
    delays = {"observers": 0.0, "master": 0.0}

    def observer(own: Any) -> Callable[[], None]:
        def observe() -> None:
            time.sleep(delays["observers"])
            expired.extend(one.id for one in expire_masters(own))

        return observe

    def check_in_again() -> None:
        time.sleep(delays["master"])
        answers.append(check_in(members_own, places[-1]))

    saved = 0
    work = [observer(connect()), observer(connect()), check_in_again]
    with _rounds(work, rounds) as run_one:
        for number in range(rounds):
            places.append(take_place(adapt(own), "late", 600.0))
            masterid = places[-1].masterid
            held = claim(own, masterid, KIND, "main")
            onlooker.silence(masterid)
            before = onlooker.masters()[masterid]
            late = "master" if number % 2 else "observers"
            delays.update({"master": 0.0, "observers": 0.0, late: random.uniform(0, 0.003)})
            run_one()
            after = onlooker.masters()[masterid]
            if answers == [True]:
                saved += 1
                assert expired == []
                assert after == (True, before.incarnation, before.heartbeats + 1)
                assert onlooker.claims() == {"main": (masterid, held.token)}
            else:
                assert answers == [False]
                assert expired == [masterid]
                assert after == (False, before.incarnation, before.heartbeats)
                assert onlooker.claims() == {"main": (None, held.token)}
            answers.clear()
            expired.clear()
    assert 0 < saved < rounds


def test_a_member_that_was_expired_and_activated_again_learns_that_it_was_lost(
    engine: Engine, url: str, application: Connect, onlooker: Onlooker
) -> None:
    told: list[Member] = []
    was_told = threading.Event()

    def on_lost(member: Member) -> None:
        told.append(member)
        was_told.set()

    with (
        statedb.connect(url) as db,
        db.masters.join("bouncing", interval=0.2, expire_after=60, on_lost=on_lost) as member,
    ):
        held = member.claim(KIND, "main")
        own = application()
        own.cursor().execute("BEGIN IMMEDIATE" if engine.name == "sqlite" else "SELECT 1")
        # In one transaction: no check-in falls between the two.
        Onlooker(own).silence(member.id)
        assert [one.id for one in expire_masters(own)] == [member.id]
        assert set_master_state(own, member.id, True) is True
        own.commit()
        assert member.lost.wait(30)
        assert was_told.wait(30)
        with pytest.raises(MasterLostError):
            member.check()
        with pytest.raises(MasterLostError):
            member.claim(KIND, "other")
        with pytest.raises(ClaimLostError), db.transaction() as conn:
            hold_claim(conn, held)
        now = onlooker.masters()[member.id]
        # It does not take back what it has lost, nor end what somebody else has begun.
        assert now == (True, member.incarnation + 1, now.heartbeats)
    assert onlooker.masters()[member.id].active
    assert onlooker.held_by(member.id) == set()
    assert told == [member]


# --- Who holds what ---

THINGS, CLAIM_ROUNDS, JOINS = 200, 50, 300
_things = [f"thing {number}" for number in range(THINGS)]


class _Answer(NamedTuple):
    """What came of claiming many things."""

    tokens: dict[str, int]
    owners: dict[str, int]
    losses: int


def _claim_all(attempts: Iterable[tuple[str, Callable[[], Claim]]]) -> _Answer:
    answer = _Answer({}, {}, 0)
    for name, attempt in attempts:
        outcome = _outcome(attempt)
        if isinstance(outcome, Claim):
            answer.tokens[name] = outcome.token
        elif isinstance(outcome, AlreadyClaimedError):
            answer.owners[name] = outcome.owner
        else:
            answer = answer._replace(losses=answer.losses + 1)
    return answer


def _outcome(attempt: Callable[[], Claim]) -> Claim | AlreadyClaimedError | MasterLostError:
    try:
        return attempt()
    except (AlreadyClaimedError, MasterLostError) as error:
        return error


def _claim_in_process(pipe: Pipe, gate: Any, url: str, name: str, form: str) -> None:
    """Does what it is told through the pipe, and answers with what came of it."""
    with statedb.connect(url, timeout=120) as db:
        masterid = db.masters.thdFindMasterId(name)
        db.masters.thdSetMasterState(masterid, True)
        pipe.send(masterid)

        def attempts(names: list[str]) -> Iterator[tuple[str, Callable[[], Claim]]]:
            if form == "future":
                futures = [db.masters.claim(masterid, KIND, one) for one in names]
                yield from zip(names, [future.result for future in futures], strict=True)
            else:
                for one in names:
                    yield one, partial(db.masters.thdClaim, masterid, KIND, one)

        while (order := pipe.recv()) is not None:
            command, names = order
            if command == "claim":
                gate.wait(60)
                pipe.send(_claim_all(attempts(names)))
            elif command == "release":
                pipe.send([db.masters.thdRelease(masterid, KIND, one) for one in names])
            else:
                pipe.send(db.masters.thdSetMasterState(masterid, True))


class _Claimant:
    """One of the processes, and what it is known to hold."""

    def __init__(self, context: Any, gate: Any, url: str, name: str, form: str) -> None:
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(
            target=_claim_in_process, args=(far_end, gate, url, name, form)
        )
        self._process.start()
        far_end.close()
        self.id: int = self.answer()
        self.held: dict[str, int] = {}

    def ask(self, command: str, names: Iterable[str] = ()) -> None:
        self._pipe.send((command, list(names)))

    def answer(self) -> Any:
        assert self._pipe.poll(120), "a claimant does not answer"
        return self._pipe.recv()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._pipe.close()


class _Ledger:
    """All that two claimants were ever given, held against what the tables say."""

    def __init__(self, onlooker: Onlooker) -> None:
        self._onlooker = onlooker
        self._last = dict.fromkeys(_things, 0)
        self._given: dict[tuple[str, int], int] = {}
        self.handovers = self.refusals = 0

    def enter(
        self, claimant: _Claimant, rival: _Claimant, answer: _Answer, *, expired: bool
    ) -> None:
        assert set(answer.owners.values()) <= {rival.id}
        self.refusals += len(answer.owners)
        for name, token in answer.tokens.items():
            # Its own still, or larger than all that were given before this round.
            if claimant.held.get(name) != token:
                assert token > self._last[name]
                self.handovers += 1
            assert self._given.setdefault((name, token), claimant.id) == claimant.id
        claimant.held = {} if expired else answer.tokens

    def close_round(self, claimants: list[_Claimant]) -> None:
        table = self._onlooker.claims()
        for claimant in claimants:
            theirs = {name: token for name, (owner, token) in table.items() if owner == claimant.id}
            assert theirs == claimant.held
        for name, (owner, token) in table.items():
            assert token >= self._last[name]
            assert owner is None or self._given[name, token] == owner
            self._last[name] = token


def test_two_processes_never_hold_one_thing_and_tokens_grow(
    url: str, connect: Callable[[], Any], onlooker: Onlooker
) -> None:
    chance = random.Random(7)
    own = connect()
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    ledger = _Ledger(onlooker)
    with contextlib.ExitStack() as stack:
        stack.callback(gate.abort)
        claimants = []
        for name, form in (("first", "sync"), ("second", "future")):
            claimants.append(_Claimant(context, gate, url, name, form))
            stack.callback(claimants[-1].end)
        watched = stack.enter_context(_watched(Onlooker(connect())))
        for number in range(CLAIM_ROUNDS):
            victim = claimants[number // 5 % 2] if number % 5 == 4 else None
            for one in claimants:
                one.ask("claim", chance.sample(_things, THINGS))
            gate.wait(60)
            if victim is not None:
                _expire_among_claims(own, onlooker, victim.id)
            answers = [one.answer() for one in claimants]
            for one, rival, answer in zip(claimants, claimants[::-1], answers, strict=True):
                assert answer.losses == 0 or one is victim
                ledger.enter(one, rival, answer, expired=one is victim)
            ledger.close_round(claimants)
            if victim is None:
                assert sum(len(one.held) for one in claimants) == THINGS
            else:
                victim.ask("activate")
                assert victim.answer() is True
            _claim_again(claimants, gate)
            for one in claimants:
                _release_half(one, chance)
    assert watched.looks > CLAIM_ROUNDS
    assert ledger.handovers > THINGS * 10
    assert ledger.refusals > THINGS


def _expire_among_claims(own: Any, onlooker: Onlooker, masterid: int) -> None:
    """Expire a master who is claiming; while it does, it is left for the next round."""
    onlooker.silence(masterid)
    deadline = time.monotonic() + 60
    while not (expired := expire_masters(own)):
        assert time.monotonic() < deadline
    assert [one.id for one in expired] == [masterid]


def _claim_again(claimants: list[_Claimant], gate: Any) -> None:
    """Claimed again by its owner it is the same."""
    for one in claimants:
        one.ask("claim", one.held)
    gate.wait(60)
    for one in claimants:
        assert one.answer() == _Answer(one.held, {}, 0)


def _release_half(claimant: _Claimant, chance: random.Random) -> None:
    freed = chance.sample(sorted(claimant.held), len(claimant.held) // 2)
    claimant.ask("release", freed)
    assert claimant.answer() == [True] * len(freed)
    for name in freed:
        del claimant.held[name]


class _Watch:
    """Looks again and again whether a claim has no active master."""

    def __init__(self, onlooker: Onlooker) -> None:
        self._onlooker = onlooker
        self._stop = threading.Event()
        self.looks = 0

    def run(self) -> None:
        # Often, and not all the time: those who are looked at need the processor too.
        while not self._stop.wait(0.002):
            assert self._onlooker.claims_without_an_active_master() == 0
            self.looks += 1

    def stop(self) -> None:
        self._stop.set()


@contextlib.contextmanager
def _watched(onlooker: Onlooker) -> Iterator[_Watch]:
    watch = _Watch(onlooker)
    with ThreadPoolExecutor(1) as executor:
        watching = executor.submit(watch.run)
        try:
            yield watch
        finally:
            watch.stop()
        watching.result(timeout=60)


def test_an_older_process_of_the_same_name_never_gets_the_newers_token(
    url: str, onlooker: Onlooker
) -> None:
    with statedb.connect(url) as older_db, statedb.connect(url) as newer_db:
        older = older_db.masters.join("twice", interval=300, expire_after=3000)
        first = older.claim(KIND, "main")
        # The first check-in comes at once; after it none tells the older one: only its claims do.
        joined = onlooker.masters()[older.id].heartbeats
        deadline = time.monotonic() + 60
        while onlooker.masters()[older.id].heartbeats == joined == 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with newer_db.masters.join("twice", interval=300, expire_after=3000) as newer:
            assert newer.id == older.id
            second = newer.claim(KIND, "main")
            assert second.token > first.token
            with pytest.raises(ClaimLostError), older_db.transaction():
                older_db.masters.thdHoldClaim(first)
            assert not older.lost.is_set()
            assert older.release(first) is False
            with pytest.raises(MasterLostError):
                older.claim(KIND, "main")
            assert older.lost.is_set()
            with pytest.raises(MasterLostError):
                older.claim(KIND, "other")
            older.leave()
            assert onlooker.claims() == {"main": (newer.id, second.token)}
            assert onlooker.masters()[newer.id].active
            with newer_db.transaction():
                newer_db.masters.thdHoldClaim(second)
            newer.check()


def test_what_an_older_process_claims_while_a_newer_one_joins_is_not_kept(
    connect: Callable[[], Any], onlooker: Onlooker
) -> None:
    older_own, newer_own, own = connect(), connect(), connect()
    answers: list[Claim | None] = []
    places = [take_place(adapt(own), "twice", 600.0)]

    def claim_as_the_older() -> None:
        time.sleep(random.uniform(0, 0.001))
        try:
            masterid, incarnation = older.masterid, older.incarnation
            answers.append(claim(older_own, masterid, KIND, "main", incarnation=incarnation))
        except MasterLostError:
            answers.append(None)

    def join_as_the_newer() -> None:
        time.sleep(random.uniform(0, 0.001))
        places.append(take_place(adapt(newer_own), "twice", 600.0))

    token = claimed = 0
    with _rounds([claim_as_the_older, join_as_the_newer], JOINS) as run_one:
        for _ in range(JOINS):
            older = places[-1]
            run_one()
            newer = places[-1]
            assert newer == Place(older.masterid, older.incarnation + 1)
            (answer,) = answers
            if answer is not None:
                claimed += 1
                assert answer.token == token + 1
                token += 1
            assert onlooker.held_by(newer.masterid) == set()
            newest = claim(own, newer.masterid, KIND, "main", incarnation=newer.incarnation)
            assert newest.token == token + 1
            token += 1
            release(own, newer.masterid, KIND, "main")
            answers.clear()
    assert 0 < claimed < JOINS


# --- All at once ---

LOAD_SECONDS = 5.0
Refused = (AlreadyClaimedError, MasterLostError, ClaimLostError)


class _Program:
    """One that does at random what programs do with masters and claims."""

    def __init__(self, db: Database, masterids: list[int], number: int) -> None:
        self._db = db
        self._masterids = masterids
        self._chance = random.Random(number)
        self._claims: list[Claim] = []
        self.outcomes: Counter[str] = Counter()

    def run(self, until: float) -> None:
        acts = [
            *[self._claim] * 3,
            self._release,
            self._expire,
            self._set_state,
            self._come_and_go,
            *[self._hold] * 2,
            self._claim_several,
        ]
        while time.monotonic() < until:
            self.outcomes[self._outcome(self._chance.choice(acts))] += 1

    def _outcome(self, act: Callable[[], None]) -> str:
        try:
            act()
        except Refused as error:
            return type(error).__name__
        return "done"

    def _master(self) -> int:
        return self._chance.choice(self._masterids)

    def _thing(self) -> str:
        return f"thing {self._chance.randrange(10)}"

    def _claim(self) -> None:
        self._claims.append(self._db.masters.thdClaim(self._master(), KIND, self._thing()))

    def _release(self) -> None:
        self._db.masters.thdRelease(self._master(), KIND, self._thing())

    def _expire(self) -> None:
        self._db.masters.thdExpireMasters(self._chance.choice([0.01, 600]))

    def _set_state(self) -> None:
        active = self._chance.random() < 0.8
        self._db.masters.setMasterState(self._master(), active).result(timeout=60)

    def _come_and_go(self) -> None:
        name = f"master {self._chance.randrange(len(self._masterids))}"
        place = self._db.run(take_place, name, 0.5)
        self._db.run(check_in, place)
        if self._chance.random() < 0.5:
            self._db.run(leave_place, place)

    def _hold(self) -> None:
        held = self._chance.choice(self._claims or [Claim(KIND, "never", self._masterids[0], 1)])
        with self._transaction() as conn:
            hold_claim(conn, held)
            time.sleep(self._chance.uniform(0, 0.003))
            if self._chance.random() < 0.5:
                self._db.masters.thdRelease(held.masterid, KIND, held.name)

    def _claim_several(self) -> None:
        masterid = self._master()
        with self._transaction() as conn:
            for _ in range(2):
                hold_claim(conn, self._db.masters.thdClaim(masterid, KIND, self._thing()))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[statedb.Connection]:
        """Only here is a deadlock the caller's to see, who begins anew."""
        try:
            with self._db.transaction() as conn:
                yield conn
        except ConflictError:
            self.outcomes["ConflictError"] += 1


def test_under_load_nothing_but_the_promised_errors_comes_out(
    url: str, connect: Callable[[], Any], onlooker: Onlooker, record_property: Callable[..., None]
) -> None:
    until = time.monotonic() + LOAD_SECONDS
    with (
        statedb.connect(url, pool_size=6) as first,
        statedb.connect(url, pool_size=6) as second,
        ThreadPoolExecutor(8) as executor,
        _watched(Onlooker(connect())) as watched,
    ):
        masterids = [first.masters.thdFindMasterId(f"master {number}") for number in range(5)]
        programs = [_Program((first, second)[number % 2], masterids, number) for number in range(8)]
        for future in [executor.submit(program.run, until) for program in programs]:
            future.result()
    assert onlooker.claims_without_an_active_master() == 0
    outcomes = sum((program.outcomes for program in programs), Counter())
    record_property("outcomes", dict(outcomes))
    assert watched.looks > 10
    assert all(outcomes[error.__name__] > 0 for error in Refused)
    assert outcomes["done"] > 100
    assert outcomes["ConflictError"] < outcomes["done"] / 20


@pytest.mark.parametrize("act", ["release", "claim"])
def test_nobody_waits_for_who_has_locked_another_thing(
    engine: Engine,
    application: Connect,
    connect: Callable[[], Any],
    onlooker: Onlooker,
    db: Database,
    act: str,
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's only lock is the database's")
    own = connect()
    first, second = (find_master_id(own, name) for name in ("first", "second"))
    for masterid in (first, second):
        set_master_state(own, masterid, True)
        for number in range(3):
            claim(own, masterid, KIND, f"thing {masterid} {number}")
    for masterid in (first, second):
        release(own, masterid, KIND, f"thing {masterid} 1")
    transaction = application()
    cursor = transaction.cursor()
    cursor.execute("SELECT 1")
    cursor.fetchall()
    # One claim locked, and a free thing taken, by who takes his time.
    (held,) = [one for one in get_claims(own, first) if one.name.endswith("0")]
    hold_claim(transaction, held)
    claim(transaction, first, KIND, f"thing {first} 1")
    if act == "release":
        future: Future[Any] = db.masters.release(first, KIND, f"thing {first} 2")
    else:
        future = db.masters.claim(second, KIND, f"thing {second} 1")
    assert wait([future], 15).done
    assert future.result()
    transaction.commit()
    left = {f"thing {first} {number}" for number in range(2 if act == "release" else 3)}
    assert onlooker.held_by(first) == left


def test_who_joins_as_its_master_is_forgotten_is_a_new_one(
    engine: Engine, url: str, db: Database
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's one writer is whoever joins: nobody can forget the master meanwhile")
    forgotten = db.masters.thdFindMasterId("host:/base")

    def forget() -> None:
        assert db.masters.thdForgetMaster(forgotten) is True

    with (
        interpose("expire_after = ", forget),
        statedb.connect(url) as own,
        own.masters.join("host:/base") as member,
    ):
        assert member.id != forgotten
        assert [one.id for one in db.masters.thdGetMasters()] == [member.id]
