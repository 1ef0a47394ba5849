"""Expiry: marking masters inactive that were silent for too long, as functions of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from statedb.connection import AnyConnection, Connection, adapt
from statedb.errors import OutcomeUnknownError
from statedb.link import Row
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
    database, it waits for that; and in a transaction on MySQL at REPEATABLE READ, for who holds a
    claim that is newer than the snapshot.)
    """
    conn = adapt(conn)
    silence = EXPIRE_AFTER
    if expire_after is not None:
        silence = in_microseconds(check_seconds("expire_after", expire_after, 0))
    doubt: Doubt = conn.memo.setdefault(Doubt, Doubt())
    doubt.settle(conn)
    overdue = conn.fetch_all(conn.sql["select_overdue_masters"], {"expire_after": silence})
    if overdue:
        _expire(conn, sorted(row[0] for row in overdue), silence, doubt)
    del conn.memo[Doubt]
    return doubt.expired


@operation(repeatable=True)
def expire_silent_masters(
    conn: AnyConnection, heartbeats: Mapping[int, tuple[int, int]], doubt: Doubt
) -> list[MasterModel]:
    """Expire those masters that are overdue and still at this incarnation and count of heartbeats.

    For an observer, who expires nobody that it has not itself watched. Where it raises, the next
    call with the same ``doubt`` returns also whom this one has expired.
    """
    conn = adapt(conn)
    doubt.settle(conn)
    if heartbeats:
        _expire(conn, sorted(heartbeats), EXPIRE_AFTER, doubt, heartbeats)
    expired, doubt.expired = doubt.expired, []
    return expired


def _expire(
    conn: Connection,
    masterids: list[int],
    silence: int,
    doubt: Doubt,
    heartbeats: Mapping[int, tuple[int, int]] | None = None,
) -> None:
    """Expire those of these masters who are overdue."""
    doubt.stamp = new_stamp()
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
    doubt.incarnations = {}
    doubt.expired += [model_of((*overdue[one][:2], False, overdue[one][4])) for one in expired]


def _without_held_claims(conn: Connection, masterids: list[int]) -> list[int]:
    """Those masters none of whose claims somebody has locked; all they hold is locked now."""
    held: dict[int, int] = dict(rows_of_masters(conn, "select_claim_counts", masterids, {}))
    for row in rows_of_masters(conn, "lock_claims_of_masters", masterids, {}):
        held[row[0]] = held.get(row[0], 0) - 1
    return [masterid for masterid in masterids if held.get(masterid, 0) <= 0]


def _rows_for_good(conn: Connection, masterids: list[int]) -> list[Row]:
    """The masters' rows, which an earlier try of this call will not change any more.

    The lock waits for it, should it still be under way. Where it is so at another server, which
    does not know of the lock, it will fail for what is written here.
    """
    if not conn.certifies():
        return list(rows_of_masters(conn, "lock_masters", masterids, {}))
    with conn.transaction():
        for masterid in masterids:
            for step in (1, -1):
                key = {"masterid": masterid, "step": step}
                conn.execute(conn.sql["update_heartbeats"], key)
        return list(rows_of_masters(conn, "lock_masters", masterids, {}))


# --- A lost answer ---


class Doubt:
    """Whom a call has expired, and whom the last of its tries may have, if its answer was lost."""

    def __init__(self) -> None:
        #: What that try wrote into the rows that it expired.
        self.stamp = 0
        #: Whom it was about to expire, and in which incarnation.
        self.incarnations: dict[int, int] = {}
        #: Whom the call has surely expired.
        self.expired: list[MasterModel] = []

    @property
    def is_pending(self) -> bool:
        """Whether there is something to settle, or to tell."""
        return bool(self.incarnations or self.expired)

    def settle(self, conn: Connection) -> None:
        """Find out what the last try has done; OutcomeUnknownError if that cannot be told."""
        if not self.incarnations:
            return
        rows = {row[0]: row for row in _rows_for_good(conn, sorted(self.incarnations))}
        incarnations, self.incarnations = self.incarnations, {}
        unknown = []
        for masterid, incarnation in incarnations.items():
            *model, current, stamp = rows.get(masterid, (None, None))
            if stamp == self.stamp:
                self.expired.append(model_of(model))
            elif current != incarnation:
                unknown.append(masterid)
        if unknown:
            raise OutcomeUnknownError(
                f"the answer to expireMasters was lost; whether it was this call that expired"
                f" masters {unknown}, active or forgotten since, cannot be told; surely expired by"
                f" it are {[one.id for one in self.expired]}"
            )
