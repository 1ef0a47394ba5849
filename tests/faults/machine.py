"""Machine: all of db.state and db.masters, called at random, beside a model of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

import statedb
from faults import arguments
from faults.bench import CALLERS, Bench, in_tables
from faults.legality import CallbackError, Refusal
from faults.model import SECOND, Model
from statedb import (
    Claim,
    InvalidSettingError,
    InvalidTypeError,
    MasterLostError,
    Member,
    NoSuchObjectError,
    UnusableConnectionError,
    masters,
    state,
)

callers = st.sampled_from(CALLERS)
Operation = Callable[..., Any]
Outcome = tuple[Any, ...]


_OF_A_VALUE = (state.get_state, state.get_state, state.delete_state)


class _Undo(Exception):
    """Ends a block that is to be rolled back."""


class Machine(RuleBasedStateMachine):
    """Calls an operation, asks the model the same, and compares what came of it, and the tables."""

    objectids = Bundle("objectids")
    masterids = Bundle("masterids")
    claims = Bundle("claims")
    members = Bundle("members")

    some_object = arguments.mostly(objectids)
    some_master = arguments.mostly(masterids)

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.model = Model()
        #: What the model was before each block that is open, and how to end these.
        self._before: list[Model] = []
        self._ends: list[Callable[[bool], None]] = []
        #: Who has the transaction that is open, and its connection.
        self._owner = ""
        self._conn: Any = None
        #: Of each member its incarnation; None once it has lost the place or left it.
        self._members: dict[Member, int | None] = {}
        self._latest = 0

    # --- One call ---

    def _call(self, caller: str, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        """Call an operation as one of the callers does; within a transaction, its owner."""
        if self._owner == "application" or (self._owner and caller in ("plain", "implicit")):
            return operation(self._conn, *args, **kwargs)
        return self.bench.call(caller, operation, *args, **kwargs)

    def _step(self, caller: str, operation: Operation, *args: Any, **kwargs: Any) -> Any:
        """What an operation gives, once that is what the model says; None where it raises."""
        name = operation.__name__
        self.bench.events.update([name, f"{self._owner or 'no'} transaction, {caller}"])
        self.model.in_transaction = bool(self._owner) or caller == "implicit"
        wanted = self._outcome(getattr(self.model, name), *args, **kwargs)
        found = self._outcome(self._call, caller, operation, *args, **kwargs)
        return self._compare(wanted, found)

    def _outcome(self, function: Operation, *args: Any, **kwargs: Any) -> Outcome:
        try:
            return "returned", function(*args, **kwargs)
        except Refusal as refusal:
            return "raised", refusal.kinds
        except (statedb.Error, CallbackError) as error:
            return "raised", (type(error),)

    def _compare(self, wanted: Outcome, found: Outcome) -> Any:
        how, what = found
        if how == "raised":
            assert wanted[0] == "raised", f"{wanted[1]!r} wanted, {what[0].__name__} raised"
            assert set(what) <= set(wanted[1]), f"{wanted[1]} wanted, {what} raised"
            self.bench.events[what[0].__name__] += 1
            return None
        assert how == wanted[0], f"{wanted[1]} wanted, {what!r} returned"
        # By their text: True is 1 to Python, and 1.0 too.
        assert _text(what) == _text(wanted[1])
        return what

    # --- Objects and their values ---

    @initialize(target=objectids)
    def begin_with_an_object(self) -> int:
        return self._object("sync", "a", "A")

    @rule(target=objectids, caller=callers, name=arguments.names, class_name=arguments.few_names)
    def get_object_id(self, caller: str, name: Any, class_name: Any) -> int | MultipleResults[int]:
        return self._object(caller, name, class_name) or multiple()

    @precondition(lambda self: not self._owner)
    @rule(target=objectids, caller=st.sampled_from(["sync", "future"]))
    def get_the_id_of_an_object_that_the_application_deleted(self, caller: str) -> int:
        objectid = self._object(caller, "a", "A")
        self._step("plain", state.delete_object, objectid)
        return self._object(caller, "a", "A")

    def _object(self, caller: str, name: Any, class_name: Any) -> int:
        self.bench.events["get_object_id"] += 1
        wanted = self._outcome(self.model.get_object_id, name, class_name)
        found = self._outcome(self._call, caller, state.get_object_id, name, class_name)
        pair = name, class_name
        if found[0] == "returned" and self._is_stale(pair, found[1]):
            # An application has deleted it, which the Database finds out when it is used.
            self.bench.events["stale id"] += 1
            gone = self._outcome(self.bench.db.state.thdSetState, found[1], "a", 1)
            self._compare(("raised", (NoSuchObjectError,)), gone)
            found = self._outcome(self._call, caller, state.get_object_id, name, class_name)
        if wanted == ("returned", None) and found[0] == "returned":
            self.model.add_object(found[1], name, class_name)
            wanted = found
        objectid: int = self._compare(wanted, found) or 0
        # In a transaction none is: what it adds may be undone, and its id given once more.
        if objectid and not self._owner and caller in ("sync", "future"):
            self.bench.remembered.setdefault(pair, set()).add(objectid)
        return objectid

    def _is_stale(self, pair: Any, objectid: int) -> bool:
        known = self.bench.remembered.get(pair, set())
        return objectid in known and objectid not in self.model.objects

    @rule(caller=callers, objectid=some_object, name=arguments.names)
    def get_state(self, caller: str, objectid: Any, name: Any) -> None:
        self._step(caller, state.get_state, objectid, name)

    @rule(caller=callers, objectid=some_object, name=arguments.names, default=arguments.values)
    def get_state_or_default(self, caller: str, objectid: Any, name: Any, default: Any) -> None:
        self._step(caller, state.get_state, objectid, name, default)

    @rule(caller=callers, objectid=some_object, name=arguments.names, value=arguments.values)
    def set_state(self, caller: str, objectid: Any, name: Any, value: Any) -> None:
        self._step(caller, state.set_state, objectid, name, value)

    @rule(caller=callers, objectid=some_object, name=arguments.names, callback=arguments.callbacks)
    def atomic_create_state(self, caller: str, objectid: Any, name: Any, callback: Any) -> None:
        self._step(caller, state.atomic_create_state, objectid, name, callback)

    @rule(caller=callers, objectid=some_object, name=arguments.names)
    def delete_state(self, caller: str, objectid: Any, name: Any) -> None:
        self._step(caller, state.delete_state, objectid, name)

    @rule(
        caller=callers,
        objectid=some_object,
        name=arguments.names,
        callback=arguments.callbacks,
        default=st.just(statedb.NO_DEFAULT) | arguments.values,
    )
    def update_state(
        self, caller: str, objectid: Any, name: Any, callback: Any, default: Any
    ) -> None:
        self._step(caller, state.update_state, objectid, name, callback, default)

    @rule(
        caller=callers,
        objectid=some_object,
        names=st.none() | st.lists(arguments.names, max_size=4) | st.just("a"),
    )
    def get_states(self, caller: str, objectid: Any, names: Any) -> None:
        self._step(caller, state.get_states, objectid, names)

    @rule(caller=callers, objectid=some_object, names=st.lists(arguments.names, max_size=4))
    def get_states_named_by_an_iterator(self, caller: str, objectid: Any, names: Any) -> None:
        wanted = self._outcome(self.model.get_states, objectid, names)
        # Of no list, which would be kept, and has another address.
        each = (name for name in names)
        self._compare(wanted, self._outcome(self._call, caller, state.get_states, objectid, each))

    @rule(
        caller=callers,
        objectid=some_object,
        values=st.dictionaries(arguments.names, arguments.values, max_size=4) | st.just([]),
    )
    def set_states(self, caller: str, objectid: Any, values: Any) -> None:
        self._step(caller, state.set_states, objectid, values)

    @rule(caller=callers, spec=arguments.object_specs)
    def get_objects(self, caller: str, spec: Any) -> None:
        self._step(caller, state.get_objects, spec)

    @rule(caller=callers, objectid=some_object)
    def delete_object(self, caller: str, objectid: Any) -> None:
        self._step(caller, state.delete_object, objectid)

    # --- Masters and claims ---

    @initialize(target=masterids)
    def begin_with_masters(self) -> MultipleResults[int]:
        found = [self._master("sync", name) for name in ("a", "A")]
        for masterid in found:
            self._step("sync", masters.set_master_state, masterid, True)
        return multiple(*found)

    @rule(target=masterids, caller=callers, name=arguments.few_names)
    def find_master_id(self, caller: str, name: Any) -> int | MultipleResults[int]:
        return self._master(caller, name) or multiple()

    def _master(self, caller: str, name: Any) -> int:
        self.bench.events["find_master_id"] += 1
        wanted = self._outcome(self.model.find_master_id, name)
        found = self._outcome(self._call, caller, masters.find_master_id, name)
        if wanted == ("returned", None) and found[0] == "returned":
            self.model.add_master(found[1], name)
            wanted = found
        return self._compare(wanted, found) or 0

    @rule(
        caller=callers, masterid=some_master, active=st.sampled_from([True, True, False, False, 1])
    )
    def set_master_state(self, caller: str, masterid: Any, active: Any) -> None:
        self._step(caller, masters.set_master_state, masterid, active)

    @rule(caller=callers, masterid=some_master)
    def get_master(self, caller: str, masterid: Any) -> None:
        self._step(caller, masters.get_master, masterid)

    @rule(caller=callers, spec=arguments.master_specs)
    def get_masters(self, caller: str, spec: Any) -> None:
        self._step(caller, masters.get_masters, spec)

    @rule(caller=callers)
    def set_all_masters_active_long_time_ago(self, caller: str) -> None:
        self._step(caller, masters.set_all_masters_active_long_time_ago)

    @rule(
        caller=callers,
        expire_after=st.sampled_from([None, None, 0, 600, 10**9, -1, float("nan"), "1", True]),
    )
    def expire_masters(self, caller: str, expire_after: Any) -> None:
        if self._step(caller, masters.expire_masters, expire_after):
            self.bench.events["expiry"] += 1

    @precondition(lambda self: not self._owner)
    @rule(masterid=masterids)
    def silence(self, masterid: int) -> None:
        self.bench.events["silence"] += 1
        self.bench.onlooker.silence(masterid)
        self.model.silence(masterid)

    @rule(caller=callers, masterid=some_master)
    def forget_master(self, caller: str, masterid: Any) -> None:
        self._step(caller, masters.forget_master, masterid)

    @rule(
        target=claims,
        caller=callers,
        masterid=some_master,
        kind=arguments.kinds,
        name=arguments.few_names,
        incarnation=st.sampled_from([None, None, None, 1, 2]),
    )
    def claim(
        self, caller: str, masterid: Any, kind: Any, name: Any, incarnation: int | None
    ) -> Claim | MultipleResults[Claim]:
        number = {} if incarnation is None else {"incarnation": incarnation}
        return self._step(caller, masters.claim, masterid, kind, name, **number) or multiple()

    @rule(caller=callers, masterid=some_master, kind=arguments.kinds, name=arguments.few_names)
    def release(self, caller: str, masterid: Any, kind: Any, name: Any) -> None:
        self._step(caller, masters.release, masterid, kind, name)

    @rule(caller=callers, claim=claims)
    def release_what_was_claimed(self, caller: str, claim: Claim) -> None:
        self._step(caller, masters.release, claim.masterid, claim.kind, claim.name)

    @rule(caller=callers, masterid=st.none() | some_master, kind=st.none() | arguments.kinds)
    def get_claims(self, caller: str, masterid: Any, kind: Any) -> None:
        self._step(caller, masters.get_claims, masterid, kind)

    @rule(caller=callers, claim=claims, later=st.sampled_from([0, 0, 0, 1]))
    def hold_claim(self, caller: str, claim: Claim, later: int) -> None:
        self._step(caller, masters.hold_claim, replace(claim, token=claim.token + later))

    @rule(caller=callers, claim=st.sampled_from([None, ("a", "a", 1, 1)]))
    def hold_what_is_no_claim(self, caller: str, claim: Any) -> None:
        self._step(caller, masters.hold_claim, claim)

    # --- Futures that wait together: on each key in the order in which they were asked for ---

    @precondition(lambda self: self._owner != "application")
    @rule(
        calls=st.lists(
            st.one_of(
                st.tuples(st.sampled_from(_OF_A_VALUE), some_object, arguments.names),
                st.tuples(st.just(state.set_state), some_object, arguments.names, arguments.values),
                st.tuples(
                    st.just(state.set_states),
                    some_object,
                    # With no name it touches nothing, and has no place in any order.
                    st.dictionaries(arguments.names, arguments.values, min_size=1, max_size=2),
                ),
                st.tuples(
                    st.just(state.update_state),
                    some_object,
                    arguments.names,
                    arguments.callbacks,
                    arguments.values,
                ),
                st.tuples(st.sampled_from([state.get_states, state.delete_object]), some_object),
                st.tuples(
                    st.sampled_from([masters.claim, masters.release]),
                    some_master,
                    arguments.few_names,
                    arguments.few_names,
                ),
                st.tuples(st.just(masters.get_claims), some_master),
            ),
            min_size=2,
            max_size=10,
        )
    )
    def submit_together(self, calls: list[tuple[Any, ...]]) -> None:
        self.bench.events["submit_together"] += 1
        futures = [self.bench.bound(operation)(*given) for operation, *given in calls]
        for (operation, *given), future in zip(calls, futures, strict=True):
            wanted = self._outcome(getattr(self.model, operation.__name__), *given)
            self._compare(wanted, self._outcome(future.result, timeout=60))

    # --- Members ---

    @precondition(lambda self: not self._owner)
    @rule(
        target=members,
        name=arguments.few_names,
        expire_after=st.sampled_from([180.0, 600, 600, 10**6, 100, "1"]),
    )
    def join(self, name: Any, expire_after: Any) -> Member | MultipleResults[Member]:
        self.bench.events["join"] += 1
        join = self.bench.db.masters.join
        try:
            known = self.model.find_master_id(name)
        except Refusal as refusal:
            wanted: Outcome = "raised", refusal.kinds
        else:
            kind = InvalidSettingError if expire_after == 100 else InvalidTypeError
            wanted = "raised", (kind,)
            if expire_after not in (100, "1"):
                return self._joined(known, join(name, 60, expire_after))
        found = self._outcome(join, name, 60, expire_after)
        self._compare(wanted, found)
        return multiple()

    def _joined(self, known: int | None, member: Member) -> Member:
        self._members[member] = member.incarnation
        if known is None:
            self.model.add_master(member.id, member.name)
        else:
            assert member.id == known
        assert member.incarnation == self.model.join(member.id, member.expire_after)
        # Its thread checks in at once, and then no more for as long as this takes.
        deadline = time.monotonic() + 60
        heartbeats = self.model.masters[member.id].heartbeats
        while self.bench.onlooker.masters()[member.id].heartbeats < heartbeats:
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        return member

    @precondition(lambda self: self._owner != "application")
    @rule(target=claims, member=members, kind=arguments.kinds, name=arguments.few_names)
    def claim_as_a_member(
        self, member: Member, kind: Any, name: Any
    ) -> Claim | MultipleResults[Claim]:
        self.bench.events["claim_as_a_member"] += 1
        incarnation = self._members[member]
        wanted: Outcome = "raised", (MasterLostError,)
        if incarnation is not None:
            wanted = self._outcome(self.model.claim, member.id, kind, name, incarnation=incarnation)
            if wanted == ("raised", (MasterLostError,)):
                self._members[member] = None
                self.bench.events["loss"] += 1
        claim = self._compare(wanted, self._outcome(member.claim, kind, name))
        assert member.lost.is_set() or self._members[member] is not None or not incarnation
        return claim or multiple()

    @precondition(lambda self: self._owner != "application")
    @rule(caller=callers, member=members)
    def deactivate_a_member(self, caller: str, member: Member) -> None:
        self._step(caller, masters.set_master_state, member.id, False)
        self.claim_as_a_member(member, "a", "a")

    @precondition(lambda self: self._owner != "application")
    @rule(member=members, claim=claims)
    def release_as_a_member(self, member: Member, claim: Claim) -> None:
        self.bench.events["release_as_a_member"] += 1
        wanted: Outcome = "raised", (MasterLostError,)
        if self._members[member] is not None:
            wanted = self._outcome(self.model.release_claim, claim)
        self._compare(wanted, self._outcome(member.release, claim))

    @precondition(lambda self: not self._owner)
    @rule(member=members)
    def leave(self, member: Member) -> None:
        self.bench.events["leave"] += 1
        self._leave(member)

    def _leave(self, member: Member) -> None:
        incarnation = self._members[member]
        if incarnation is not None:
            self.model.leave(member.id, incarnation)
        self._members[member] = None
        member.leave()

    @precondition(lambda self: self._owner == "database")
    @rule(member=members)
    def take_or_leave_a_place_within_a_transaction(self, member: Member) -> None:
        self.bench.events["take_or_leave_a_place_within_a_transaction"] += 1
        for refused in (member.leave, lambda: self.bench.db.masters.join("x")):
            self._compare(("raised", (UnusableConnectionError,)), self._outcome(refused))

    # --- Transactions ---

    @precondition(lambda self: not self._owner)
    @rule(how=st.sampled_from(["plain", "implicit", "database", "database"]))
    def begin(self, how: str) -> None:
        self.bench.events["begin"] += 1
        if how == "database":
            self._owner = how
            self._enter_block()
            return
        self._owner = "application"
        self._conn = getattr(self.bench, how)
        if how == "plain":
            self._conn.cursor().execute("BEGIN")
        self._open(lambda commits: self._conn.commit() if commits else self._conn.rollback())

    @precondition(lambda self: 0 < len(self._ends) < 3 and self._conn is not self.bench.implicit)
    @rule()
    def begin_within(self) -> None:
        self.bench.events["begin_within"] += 1
        if self._owner == "database":
            self._enter_block()
            return
        name = f"of_the_application_{len(self._ends)}"
        self._conn.cursor().execute(f"SAVEPOINT {name}")

        def end(commits: bool) -> None:
            if not commits:
                self._conn.cursor().execute(f"ROLLBACK TO SAVEPOINT {name}")
            self._conn.cursor().execute(f"RELEASE SAVEPOINT {name}")

        self._open(end)

    def _enter_block(self) -> None:
        block = self.bench.db.transaction()
        self._conn = block.__enter__()

        def end(commits: bool) -> None:
            error = None if commits else _Undo()
            assert not block.__exit__(type(error) if error else None, error, None)

        self._open(end)

    def _open(self, end: Callable[[bool], None]) -> None:
        self._before.append(self.model.copy())
        self._ends.append(end)

    @precondition(lambda self: self._owner)
    @rule(commits=st.sampled_from([True, True, False]))
    def end(self, commits: bool) -> None:
        self.bench.events[f"{'commit' if commits else 'rollback'}, {self._owner}"] += 1
        self._end(commits)

    def _end(self, commits: bool) -> None:
        self._ends.pop()(commits)
        before = self._before.pop()
        if not commits:
            self.model = before
        if not self._ends:
            self._owner, self._conn = "", None

    # --- What is to be so after each step ---

    @invariant()
    def the_tables_hold_what_the_model_does(self) -> None:
        if any(one.is_new for one in self.model.masters.values()):
            self._learn_when_masters_were_seen()
        committed = self._before[0] if self._before else self.model
        assert self.bench.look() == in_tables(committed)
        if self._before:
            assert self.bench.look(self._conn) == in_tables(self.model)

    def _learn_when_masters_were_seen(self) -> None:
        rows = self.bench.look(self._conn)["masters"]
        for masterid, one in self.model.masters.items():
            if one.is_new:
                *_, last_active, expire_after, due = rows[masterid]
                # Its clock, which may be set meanwhile, but not by much.
                assert last_active >= self._latest - SECOND
                self._latest = max(self._latest, last_active)
                # It is asked for each.
                assert one.due is None or 0 <= due - last_active - expire_after < SECOND
                due = None if one.due is None else due
                self.model.masters[masterid] = replace(one, last_active=last_active, due=due)

    def teardown(self) -> None:
        self.bench.events["example"] += 1
        try:
            while self._ends:
                self._end(commits=False)
            for member in self._members:
                self._leave(member)
        finally:
            self.bench.empty()


def _text(value: Any) -> str:
    """By which values are compared; in what order get_states gives them is nobody's promise."""
    return repr(sorted(value.items(), key=repr) if isinstance(value, dict) else value)
