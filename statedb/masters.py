"""Masters: operations on the members of a cluster, as functions of a connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from statedb.claims import Claim, claim, get_claims, hold_claim, release
from statedb.connection import AnyConnection, Connection, Row, adapt
from statedb.errors import InvalidTypeError, MasterActiveError, OutcomeUnknownError
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
from statedb.stamps import new_stamp
from statedb.times import check_seconds, from_microseconds, in_microseconds

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


@dataclass(frozen=True)
class MasterModel:
    """A master; ``last_active`` is an aware datetime, in UTC, by the database's clock."""

    id: int
    name: str
    active: bool
    last_active: datetime


MASTER_FIELDS: Final[Mapping[str, Field]] = {
    "id": integer_field("id"),
    "name": text_field("name"),
    "active": boolean_field("active"),
    "last_active": time_field("last_active"),
}

#: How long a master may be silent, in seconds, where neither it nor the caller says.
EXPIRE_AFTER = 600.0
#: How many masters are expired by one statement.
_AT_ONCE = 256


def _one_master(masterid: Any, *_: Any, **__: Any) -> tuple[str, tuple[Any, ...]]:
    return "masters", (masterid,)


def _all_masters(*_: Any, **__: Any) -> tuple[str, None]:
    return "masters", None


# --- One master ------------------------------------------------------------------------------


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


@operation(touches=_one_master)
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
    return None if row is None else _model(row)


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
        return conn.execute(conn.sql["delete_master"], key) > 0


# --- Many masters ----------------------------------------------------------------------------


@operation(reads=True, touches=_all_masters)
def get_masters(conn: AnyConnection, resultSpec: ResultSpec | None = None) -> list[MasterModel]:
    """The masters that a ResultSpec asks for, all without one; by id where it gives no order.

    Fields are id, name, active and last_active; names are compared and ordered by their UTF-8
    bytes. To page while others join, filter by ``Filter("id", "gt", [last])``. Raises
    InvalidResultSpecError, which says what is legal.
    """
    rows = select(adapt(conn), "select_masters", MASTER_FIELDS, resultSpec)
    return [_model(row) for row in rows]


@operation(repeatable=True, touches=_all_masters)
def set_all_masters_active_long_time_ago(conn: AnyConnection) -> None:
    """Mark every master active and last seen at the epoch, so that the next look expires it.

    For upgrade scripts, with no master running.
    """
    conn = adapt(conn)
    conn.execute(conn.sql["update_masters_active_long_ago"])


@operation(repeatable=True, touches=_all_masters)
def expire_masters(conn: AnyConnection, expire_after: float | None = None) -> list[MasterModel]:
    """Mark inactive who was silent for too long, holding nothing more; whom this call expired.

    Too long is the master's own number of seconds, else ``expire_after``, else 600. However many
    look at once, each expiry is told to one of them at most; a check-in that commits first saves
    its master. It waits for nobody: a master that somebody has locked, or whose claim somebody
    holds in a transaction, is left for the next round. (On SQLite, where the only lock is on the
    database, it waits for that.)
    """
    conn = adapt(conn)
    default = EXPIRE_AFTER if expire_after is None else expire_after
    number = {"expire_after": in_microseconds(check_seconds("expire_after", default, 0))}
    reports = _reports(conn)
    overdue = [row[0] for row in conn.fetch_all(conn.sql["select_overdue_masters"], number)]
    return _expire(conn, reports, overdue, number)


@operation(repeatable=True)
def expire_silent_masters(
    conn: AnyConnection, heartbeats: Mapping[int, tuple[int, int]]
) -> list[MasterModel]:
    """Expire those masters that are overdue and still at this incarnation and count of heartbeats.

    For an observer, who expires nobody that it has not itself watched.
    """
    conn = adapt(conn)
    number = {"expire_after": in_microseconds(EXPIRE_AFTER)}
    return _expire(conn, _reports(conn), sorted(heartbeats), number, heartbeats)


def _expire(
    conn: Connection,
    reports: _Reports,
    masterids: list[int],
    number: Mapping[str, int],
    heartbeats: Mapping[int, tuple[int, int]] | None = None,
) -> list[MasterModel]:
    if not masterids:
        return reports.certain
    with conn.transaction():
        rows = [
            row
            for row in _for_each(conn, "lock_overdue_masters", masterids, number)
            if heartbeats is None or heartbeats.get(row[0]) == (row[2], row[3])
        ]
        untouched = _without_held_claims(conn, [row[0] for row in rows])
        rows = [row for row in rows if row[0] in untouched]
        for some in _parts([row[0] for row in rows]):
            sql, parameters = conn.sql.for_each("update_masters_expired", "masterid", some)
            conn.execute(sql, parameters | {"stamp": reports.stamp})
            release_all(conn, some)
        reports.in_doubt = {row[0]: row[2] for row in rows}
    # Committed, and known to be.
    del conn.memo[_Reports]
    return reports.certain + [_model((*row[:2], False, row[4])) for row in rows]


def _without_held_claims(conn: Connection, masterids: list[int]) -> set[int]:
    """Those masters none of whose claims somebody has locked; all they hold is locked now."""
    held: dict[int, int] = dict(_for_each(conn, "select_claim_counts", masterids))
    for row in _for_each(conn, "lock_claims_of_masters", masterids):
        held[row[0]] = held.get(row[0], 0) - 1
    return {masterid for masterid in masterids if held.get(masterid, 0) <= 0}


@dataclass
class _Reports:
    """Whom one call has expired, in all its tries."""

    #: What the call writes into the rows that it expires.
    stamp: int = field(default_factory=new_stamp)
    certain: list[MasterModel] = field(default_factory=list)
    #: Whom the last try was about to expire, and in which incarnation.
    in_doubt: dict[int, int] = field(default_factory=dict)


def _reports(conn: Connection) -> _Reports:
    """What the call has to report, once it is settled what became of an earlier try's answer."""
    reports: _Reports = conn.memo.setdefault(_Reports, _Reports())
    # The lock waits for that try, should it still be under way.
    rows = {row[0]: row for row in _for_each(conn, "lock_masters", sorted(reports.in_doubt))}
    ours = []
    for masterid, expired in reports.in_doubt.items():
        *model, incarnation, stamp = rows.get(masterid, (None, None))
        if stamp == reports.stamp:
            ours.append(_model(model))
        elif incarnation != expired:
            raise OutcomeUnknownError(
                f"the answer to expireMasters was lost; whether it was this call that expired"
                f" master {masterid}, which has been active or forgotten since, cannot be told"
            )
    reports.certain += ours
    reports.in_doubt = {}
    return reports


# --- Rows ------------------------------------------------------------------------------------


def release_all(conn: Connection, masterids: list[int]) -> None:
    """Release all that these masters hold; their rows are locked, so they claim nothing more."""
    sql, parameters = conn.sql.for_each("update_claims_released", "masterid", masterids)
    conn.execute(sql, parameters)


def _parts(masterids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(masterids), _AT_ONCE):
        yield masterids[start : start + _AT_ONCE]


def _for_each(
    conn: Connection,
    statement: str,
    masterids: list[int],
    others: Mapping[str, Any] | None = None,
) -> Iterator[Row]:
    for some in _parts(masterids):
        sql, parameters = conn.sql.for_each(statement, "masterid", some)
        yield from conn.fetch_all(sql, {**parameters, **(others or {})})


def _model(row: Sequence[Any]) -> MasterModel:
    return MasterModel(row[0], row[1].decode(), bool(row[2]), from_microseconds(row[3]))
