"""Expiry: marking masters inactive that were silent for too long, as functions of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from statedb.connection import AnyConnection, Connection, adapt
from statedb.errors import OutcomeUnknownError
from statedb.masterrows import (
    MasterModel,
    change_masters,
    model_of,
    release_all,
    rows_of_masters,
)
from statedb.operation import operation
from statedb.stamps import new_stamp
from statedb.times import check_seconds, in_microseconds

#: How long a master may be silent where neither it nor the caller says: 600 seconds.
EXPIRE_AFTER: Final = in_microseconds(600)


def all_masters(*_: Any, **__: Any) -> tuple[str, None]:
    return "masters", None


@operation(repeatable=True, touches=all_masters)
def expire_masters(conn: AnyConnection, expire_after: float | None = None) -> list[MasterModel]:
    """Mark inactive who was silent for too long, holding nothing more; whom this call expired.

    Too long is the master's own number of seconds, else ``expire_after``, else 600. However many
    look at once, each expiry is told to one of them at most; a check-in that commits first saves
    its master. It waits for nobody: a master that somebody has locked, or whose claim somebody
    holds in a transaction, is left for the next round. (On SQLite, where the only lock is on the
    database, it waits for that.)
    """
    conn = adapt(conn)
    silence = EXPIRE_AFTER
    if expire_after is not None:
        silence = in_microseconds(check_seconds("expire_after", expire_after, 0))
    certain = _expired_before(conn)
    number = {"expire_after": silence}
    overdue = conn.fetch_all(conn.sql["select_overdue_masters"], number)
    return certain + _expire(conn, sorted(row[0] for row in overdue), silence)


@operation(repeatable=True)
def expire_silent_masters(
    conn: AnyConnection, heartbeats: Mapping[int, tuple[int, int]]
) -> list[MasterModel]:
    """Expire those masters that are overdue and still at this incarnation and count of heartbeats.

    For an observer, who expires nobody that it has not itself watched.
    """
    conn = adapt(conn)
    certain = _expired_before(conn)
    return certain + _expire(conn, sorted(heartbeats), EXPIRE_AFTER, heartbeats)


def _expire(
    conn: Connection,
    masterids: list[int],
    silence: int,
    heartbeats: Mapping[int, tuple[int, int]] | None = None,
) -> list[MasterModel]:
    """Expire those of these masters who are overdue; their models, as they are now."""
    if not masterids:
        return []
    doubt = conn.memo.setdefault(_Doubt, _Doubt())
    with conn.transaction():
        number = {"expire_after": silence}
        overdue = {
            row[0]: row
            for row in rows_of_masters(conn, "lock_overdue_masters", masterids, number)
            if heartbeats is None or heartbeats.get(row[0]) == (row[2], row[3])
        }
        expired = _without_held_claims(conn, list(overdue))
        change_masters(conn, "update_masters_expired", expired, {"stamp": doubt.stamp})
        release_all(conn, expired)
        doubt.incarnations = {masterid: overdue[masterid][2] for masterid in expired}
    # Committed, and known to be.
    del conn.memo[_Doubt]
    return [model_of((*overdue[one][:2], False, overdue[one][4])) for one in expired]


def _without_held_claims(conn: Connection, masterids: list[int]) -> list[int]:
    """Those masters none of whose claims somebody has locked; all they hold is locked now."""
    held: dict[int, int] = dict(rows_of_masters(conn, "select_claim_counts", masterids, {}))
    for row in rows_of_masters(conn, "lock_claims_of_masters", masterids, {}):
        held[row[0]] = held.get(row[0], 0) - 1
    return [masterid for masterid in masterids if held.get(masterid, 0) <= 0]


# --- A lost answer ---------------------------------------------------------------------------


@dataclass
class _Doubt:
    """What the last try of a call was about to expire, if its answer was lost."""

    #: What the call writes into the rows that it expires.
    stamp: int = field(default_factory=new_stamp)
    #: Whom, and in which incarnation.
    incarnations: dict[int, int] = field(default_factory=dict)
    #: Whom earlier tries have surely expired.
    certain: list[MasterModel] = field(default_factory=list)


def _expired_before(conn: Connection) -> list[MasterModel]:
    """Whom earlier tries of this call have expired, once that is settled."""
    doubt: _Doubt | None = conn.memo.get(_Doubt)
    if doubt is None:
        return []
    # The lock waits for the last try, should it still be under way.
    rows = {
        row[0]: row for row in rows_of_masters(conn, "lock_masters", sorted(doubt.incarnations), {})
    }
    ours = []
    for masterid, expired in doubt.incarnations.items():
        *model, incarnation, stamp = rows.get(masterid, (None, None))
        if stamp == doubt.stamp:
            ours.append(model_of(model))
        elif incarnation != expired:
            raise OutcomeUnknownError(
                f"the answer to expireMasters was lost; whether it was this call that expired"
                f" master {masterid}, which has been active or forgotten since, cannot be told"
            )
    doubt.incarnations = {}
    doubt.certain += ours
    return doubt.certain
