"""Masters: operations on the members of a cluster, as functions of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from statedb.claims import Claim, claim, get_claims, hold_claim, release
from statedb.connection import AnyConnection, adapt
from statedb.errors import InvalidTypeError, MasterActiveError
from statedb.expiry import all_masters, expire_masters
from statedb.masterrows import MasterModel, model_of, release_all
from statedb.names import check_id, encode_and_hash, shown
from statedb.operation import operation
from statedb.resultspec import (
    Field,
    ResultSpec,
    boolean_field,
    integer_field,
    select,
    text_field,
    time_field,
)

__all__ = [
    "Claim",
    "MasterModel",
    "claim",
    "expire_masters",
    "find_master_id",
    "forget_master",
    "get_claims",
    "get_master",
    "get_masters",
    "hold_claim",
    "release",
    "set_all_masters_active_long_time_ago",
    "set_master_state",
]


MASTER_FIELDS: Final[Mapping[str, Field]] = {
    "id": integer_field("id"),
    "name": text_field("name"),
    "active": boolean_field("active"),
    "last_active": time_field("last_active"),
}


def _one_master(masterid: Any, *_: Any, **__: Any) -> tuple[str, tuple[Any, ...]]:
    return "masters", (masterid,)


def _by_activity(masterid: Any, active: Any) -> tuple[str, tuple[Any, ...] | None]:
    # What a deactivation frees another master may claim next; a check-in is its own matter.
    return _one_master(masterid) if active is True else all_masters()


# --- One master ---


@operation(repeatable=True)
def find_master_id(conn: AnyConnection, name: str) -> int:
    """The id of the master of this name, which is added, inactive, if there is none.

    The name is generally ``hostname:basedir``. All callers get the same id, however many ask at
    once; no id is used again. Raises InvalidNameError, or InvalidTypeError for what is no str.
    """
    conn = adapt(conn)
    encoded, digest = encode_and_hash(name, "a master's name")
    identity = {"name": conn.binary(encoded), "name_hash": conn.binary(digest)}
    row = conn.fetch_one(conn.sql["select_master_id"], identity)
    while row is None:
        if conn.insert(conn.sql["insert_master"], identity):
            row = (conn.new_id(),)
        else:
            # The rival's; or nobody's once more, if it was forgotten meanwhile.
            row = conn.fetch_one(conn.sql["select_master_id_of_rival"], identity)
    masterid: int = row[0]
    return masterid


@operation(touches=_by_activity)
def set_master_state(conn: AnyConnection, masterid: int, active: bool) -> bool:
    """Mark a master active, seen now, or inactive, holding nothing; whether ``active`` changed.

    False too for a master that does not exist. From inactive to active is a new incarnation: a
    member that had the place before has lost it, and what was claimed then is free.
    """
    conn = adapt(conn)
    if not isinstance(active, bool):
        raise InvalidTypeError(f"active is a bool, not {type(active).__name__}: {shown(active)}")
    key = {"masterid": check_id(masterid, "a masterid")}
    with conn.transaction():
        row = conn.fetch_one(conn.sql["lock_master"], key)
        if row is None:
            return False
        changed = bool(row[0]) != active
        if active:
            conn.execute(conn.sql["update_master_active"], key)
        elif changed:
            conn.execute(conn.sql["update_master_inactive"], key)
            release_all(conn, [key["masterid"]])
    return changed


@operation(reads=True, touches=_one_master)
def get_master(conn: AnyConnection, masterid: int) -> MasterModel | None:
    """The master of this id, or None."""
    conn = adapt(conn)
    key = {"masterid": check_id(masterid, "a masterid")}
    row = conn.fetch_one(conn.sql["select_master"], key)
    return None if row is None else model_of(row)


@operation(touches=_one_master)
def forget_master(conn: AnyConnection, masterid: int) -> bool:
    """Whether there was a master of this id; it is deleted.

    Raises MasterActiveError, a ValueError, where it is active.
    """
    conn = adapt(conn)
    key = {"masterid": check_id(masterid, "a masterid")}
    with conn.transaction():
        row = conn.fetch_one(conn.sql["lock_master"], key)
        if row is None:
            return False
        if row[0]:
            raise MasterActiveError(
                f"master {masterid} is active; only one that is marked inactive can be forgotten"
            )
        conn.execute(conn.sql["delete_master"], key)
    return True


# --- Many masters ---


@operation(reads=True, touches=all_masters)
def get_masters(conn: AnyConnection, resultSpec: ResultSpec | None = None) -> list[MasterModel]:
    """The masters that a ResultSpec asks for, all without one; by id where it gives no order.

    Fields are id, name, active and last_active; names are compared and ordered by their UTF-8
    bytes. To page while others join, filter by ``Filter("id", "gt", [last])``. Raises
    InvalidResultSpecError, which says what is legal.
    """
    rows = select(adapt(conn), "select_masters", MASTER_FIELDS, resultSpec)
    return [model_of(row) for row in rows]


@operation(repeatable=True, touches=all_masters)
def set_all_masters_active_long_time_ago(conn: AnyConnection) -> None:
    """Mark every master active and last seen at the epoch, so that the next look expires it.

    For upgrade scripts, with no master running.
    """
    conn = adapt(conn)
    conn.execute(conn.sql["update_masters_active_long_ago"])
