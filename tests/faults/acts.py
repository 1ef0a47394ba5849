"""Acts: every public operation, what it gives in a Scene, and what a lost answer makes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from faults.scene import KIND, NAMES, Scene, Snapshot
from statedb import AlreadyClaimedError, ClaimLostError, Connection, NoSuchObjectError, ObjectModel
from statedb.claims import Claim, release_claim
from statedb.connection import adapt
from statedb.errors import MasterActiveError, MasterLostError
from statedb.expiry import Doubt, expire_silent_masters
from statedb.masters import (
    MasterModel,
    claim,
    expire_masters,
    find_master_id,
    forget_master,
    get_claims,
    get_master,
    get_masters,
    hold_claim,
    release,
    set_all_masters_active_long_time_ago,
    set_master_state,
)
from statedb.place import check_in, leave_place, look_around, take_place
from statedb.state import (
    atomic_create_state,
    delete_object,
    delete_state,
    get_object_id,
    get_objects,
    get_state,
    get_states,
    set_state,
    set_states,
    update_state,
)
from statedb.times import from_microseconds

#: Where the connection was cut: before the statement that commits reached the server, or after.
NEVER_UNKNOWN: tuple[str, ...] = ()
ALWAYS_UNKNOWN = ("before", "after")

Of = Callable[[Scene], Any]


class Act(NamedTuple):
    """An operation with what it is given, and what there is to see of it."""

    operation: Callable[..., Any]
    arguments: Callable[[Scene], tuple[Any, ...]]
    #: What it returns, or the class of what it raises, as seen once it is done; and what where it
    #: has been done before, if that differs.
    gives: Of
    again: Of | None = None
    changes: bool = True
    #: Where the statement that commits was cut if its caller is told that he cannot know.
    unknown: tuple[str, ...] = NEVER_UNKNOWN
    #: What may be found besides nothing of it and all.
    between: Callable[[Snapshot, Snapshot], Iterable[Snapshot]] = lambda before, after: ()
    #: Done twice it leaves other numbers, of incarnations and heartbeats, than done once.
    counts: bool = False


def reading(operation: Callable[..., Any], arguments: Of, gives: Of) -> Act:
    return Act(operation, arguments, gives, changes=False)


# --- What operations call, and users' own functions of a connection ---


def new_value() -> str:
    return "after"


def listed(found: Any) -> Any:
    return [found]


def write_under_claim(conn: Connection, held: Claim, objectid: int) -> Any:
    with conn.transaction():
        hold_claim(conn, held)
        return set_state(conn, objectid, "k0", "after")


def write_several(conn: Connection, objectid: int) -> str:
    """A transaction with savepoints in it, one of which is given up."""
    with conn.transaction():
        set_state(conn, objectid, "k0", "after")
        delete_state(conn, objectid, "k1")
        try:
            with conn.transaction():
                set_states(conn, objectid, {"k2": "given up", "new": "given up"})
                raise LookupError
        except LookupError:
            atomic_create_state(conn, objectid, "new", new_value)
    return "done"


def write_one_by_one(conn: Connection, objectid: int) -> str:
    set_state(conn, objectid, "k0", "after")
    set_state(conn, objectid, "k1", "after")
    return "done"


def _first_of_two(before: Snapshot, after: Snapshot) -> Iterable[Snapshot]:
    first = ("there", "Object"), "k0"
    return [{**before, "values": {**before["values"], first: after["values"][first]}}]


def _expired(scene: Scene) -> list[MasterModel]:
    return [MasterModel(scene.silent.masterid, "silent", False, from_microseconds(0))]


def _lost(scene: Scene) -> Claim:
    return dataclasses.replace(scene.claim, token=scene.claim.token + 1)


def _set_all(scene: Scene) -> dict[str, str]:
    return dict.fromkeys([*NAMES, "new"], "after")


_NO_OBJECT = 0

STATE_ACTS: dict[str, Act] = {
    "getObjectId of a new one": Act(
        get_object_id,
        lambda _: ("new", "Object"),
        lambda scene: scene.id_of("statedb_objects", "new"),
    ),
    "getObjectId": reading(
        get_object_id, lambda _: ("there", "Object"), lambda scene: scene.objectid
    ),
    "getObjects": reading(
        get_objects,
        lambda _: (),
        lambda scene: [ObjectModel(scene.objectid, "there", "Object")],
    ),
    "deleteObject": Act(
        delete_object,
        lambda scene: (scene.objectid,),
        lambda _: True,
        again=lambda _: False,
        unknown=ALWAYS_UNKNOWN,
    ),
    "getState": reading(get_state, lambda scene: (scene.objectid, "k0"), lambda _: "before"),
    "getStates": reading(
        get_states, lambda scene: (scene.objectid,), lambda _: dict.fromkeys(NAMES, "before")
    ),
    "setState": Act(set_state, lambda scene: (scene.objectid, "k0", "after"), lambda _: "after"),
    "setState of a new one": Act(
        set_state, lambda scene: (scene.objectid, "new", "after"), lambda _: "after"
    ),
    "setState of no object": reading(
        set_state, lambda _: (_NO_OBJECT, "k0", "after"), lambda _: NoSuchObjectError
    ),
    "setStates": Act(set_states, lambda scene: (scene.objectid, _set_all(scene)), _set_all),
    "setStates of no object": reading(
        set_states, lambda scene: (_NO_OBJECT, _set_all(scene)), lambda _: NoSuchObjectError
    ),
    "atomicCreateState": Act(
        atomic_create_state,
        lambda scene: (scene.objectid, "new", new_value),
        lambda _: "after",
    ),
    "atomicCreateState of one there": reading(
        atomic_create_state, lambda scene: (scene.objectid, "k0", new_value), lambda _: "before"
    ),
    "updateState": Act(
        update_state,
        lambda scene: (scene.objectid, "k0", listed),
        lambda _: ["before"],
        again=lambda _: [["before"]],
    ),
    "updateState of a new one": Act(
        update_state,
        lambda scene: (scene.objectid, "new", listed, None),
        lambda _: [None],
        again=lambda _: [[None]],
        # Nothing there may mean that it was, and has been deleted since.
        unknown=("before",),
    ),
    "deleteState": Act(
        delete_state,
        lambda scene: (scene.objectid, "k0"),
        lambda _: True,
        again=lambda _: False,
        unknown=ALWAYS_UNKNOWN,
    ),
    "a user's own in a transaction": Act(
        write_several, lambda scene: (scene.objectid,), lambda _: "done", unknown=ALWAYS_UNKNOWN
    ),
    # It asked for no transaction: each of its operations is all or nothing by itself.
    "a user's own in none": Act(
        write_one_by_one,
        lambda scene: (scene.objectid,),
        lambda _: "done",
        unknown=ALWAYS_UNKNOWN,
        between=_first_of_two,
    ),
}

MASTERS_ACTS: dict[str, Act] = {
    "findMasterId of a new one": Act(
        find_master_id, lambda _: ("new",), lambda scene: scene.id_of("statedb_masters", "new")
    ),
    "findMasterId": reading(find_master_id, lambda _: ("other",), lambda scene: scene.other),
    "getMaster": reading(
        get_master,
        lambda scene: (scene.other,),
        lambda scene: get_master(scene.own, scene.other),
    ),
    "getMasters": reading(get_masters, lambda _: (), lambda scene: get_masters(scene.own)),
    "setMasterState to inactive": Act(
        set_master_state,
        lambda scene: (scene.masterid, False),
        lambda _: True,
        again=lambda _: False,
        unknown=ALWAYS_UNKNOWN,
    ),
    "setMasterState to active": Act(
        set_master_state,
        lambda scene: (scene.gone, True),
        lambda _: True,
        again=lambda _: False,
        unknown=ALWAYS_UNKNOWN,
    ),
    "setAllMastersActiveLongTimeAgo": Act(
        set_all_masters_active_long_time_ago, lambda _: (), lambda _: None, counts=True
    ),
    "expireMasters": Act(expire_masters, lambda _: (), _expired, again=lambda _: []),
    "claim": Act(
        claim,
        lambda scene: (scene.masterid, KIND, "new"),
        lambda scene: Claim(KIND, "new", scene.masterid, 1),
    ),
    "claim of what was free": Act(
        claim,
        lambda scene: (scene.masterid, KIND, "free"),
        lambda scene: Claim(KIND, "free", scene.masterid, 2),
    ),
    "claim of one's own": reading(
        claim, lambda scene: (scene.masterid, KIND, "a"), lambda scene: scene.claim
    ),
    "claim of another's": reading(
        claim,
        lambda scene: (scene.masterid, KIND, "the other's"),
        lambda _: AlreadyClaimedError,
    ),
    "claim by one who is gone": reading(
        claim, lambda scene: (scene.gone, KIND, "new"), lambda _: MasterLostError
    ),
    "release": Act(
        release,
        lambda scene: (scene.masterid, KIND, "a"),
        lambda _: True,
        again=lambda _: False,
        unknown=ALWAYS_UNKNOWN,
    ),
    "getClaims": reading(get_claims, lambda _: (), lambda scene: get_claims(scene.own)),
    "forgetMaster": Act(
        forget_master,
        lambda scene: (scene.gone,),
        lambda _: True,
        again=lambda _: False,
        unknown=ALWAYS_UNKNOWN,
    ),
    "forgetMaster of an active one": reading(
        forget_master, lambda scene: (scene.other,), lambda _: MasterActiveError
    ),
    "holdClaim": Act(
        write_under_claim,
        lambda scene: (scene.claim, scene.objectid),
        lambda _: "after",
        unknown=ALWAYS_UNKNOWN,
    ),
    "holdClaim of a lost one": reading(
        write_under_claim, lambda scene: (_lost(scene), scene.objectid), lambda _: ClaimLostError
    ),
}

#: What a member does, besides claiming.
MEMBER_ACTS: dict[str, Act] = {
    "join": Act(
        take_place, lambda _: ("new", 600.0), lambda scene: scene.place_of("new"), counts=True
    ),
    "join anew": Act(
        take_place, lambda _: ("member", 600.0), lambda scene: scene.place_of("member"), counts=True
    ),
    "check in": Act(check_in, lambda scene: (scene.place,), lambda _: True, counts=True),
    "check in where another has the place": reading(
        check_in, lambda scene: (scene.place._replace(incarnation=0),), lambda _: False
    ),
    "look around": reading(look_around, lambda _: (), lambda scene: look_around(adapt(scene.own))),
    "expire the silent": Act(
        expire_silent_masters,
        lambda scene: ({scene.silent.masterid: scene.heartbeats_of_silent()}, Doubt()),
        _expired,
        again=lambda _: [],
    ),
    "release of a claim": Act(
        release_claim,
        lambda scene: (scene.claim,),
        lambda _: True,
        again=lambda _: False,
        unknown=ALWAYS_UNKNOWN,
    ),
    "leave": Act(leave_place, lambda scene: (scene.place,), lambda _: None),
}

#: Every public operation, as a function of a connection.
ACTS = STATE_ACTS | MASTERS_ACTS | MEMBER_ACTS
