"""Claims: operations on what masters hold exclusively, as functions of a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from statedb.connection import AnyConnection, Connection, adapt
from statedb.errors import (
    AlreadyClaimedError,
    ClaimLostError,
    InvalidTypeError,
    MasterLostError,
    UnusableConnectionError,
)
from statedb.link import Row, only_read
from statedb.names import check_id, decode_name, encode_name, name_hash, shown
from statedb.operation import operation
from statedb.resultspec import Field, Filter, ResultSpec, integer_field, select, text_field


@dataclass(frozen=True)
class Claim:
    """That a master holds a thing of a kind; ``token`` is its fencing token.

    Each time that the thing changes hands, its token is larger than all before.
    """

    kind: str
    name: str
    masterid: int
    token: int


#: The token that a thing gets when it is claimed for the first time.
FIRST_TOKEN: Final = 1

_CLAIM_FIELDS: Final[Mapping[str, Field]] = {
    "masterid": integer_field("masterid"),
    "kind": text_field("kind"),
}


def thing_of_master(masterid: Any, kind: Any, name: Any, **_: Any) -> tuple[str, tuple[Any, ...]]:
    return "masters", (masterid, (kind, name))


@operation(repeatable=True, touches=thing_of_master)
def claim(
    conn: AnyConnection, masterid: int, kind: str, name: str, *, incarnation: int | None = None
) -> Claim:
    """Link a thing exclusively to an active master; the Claim, its token larger than any before.

    Claimed again by its owner, and not released between, it is the same Claim. Of several who
    claim a thing at once one gets it. With ``incarnation``, only that one of the master's may: a
    member's number, so that an older process of its name cannot. Raises AlreadyClaimedError, which
    names the owner, and MasterLostError for a master that is inactive, unknown, or another
    incarnation. In an open transaction the master's check-ins, and on PostgreSQL and Galera its
    claims by other connections, wait for the end; and on MySQL at REPEATABLE READ the snapshot says
    who has the thing.
    """
    conn = adapt(conn)
    thing = _thing(conn, kind, name) | {"masterid": check_id(masterid, "a masterid")}
    # Plainly first: that a thing is taken, or one's own, is told without a lock that might wait for
    # whoever is within a transaction that holds the claim; perhaps for this very thread.
    row = conn.fetch_one(conn.sql["select_claimant"], thing) or (0, 0, None, None, None)
    active, current, token, owner, owner_name = row
    has_place = active and incarnation in (None, current)
    # In a transaction a snapshot may be old; what is locked is not, and decides.
    if not has_place and not conn.in_transaction:
        raise _lost(masterid)
    if has_place and owner == masterid:
        found = Claim(kind, name, masterid, token)
        if not conn.in_transaction or _is_held(conn, found):
            return found
    elif has_place and owner is not None:
        raise _taken(kind, name, owner, owner_name)
    with conn.transaction():
        if conn.certifies() and not _write_master(conn, thing):
            raise _lost(masterid)
        locked = conn.fetch_one(conn.sql["lock_active_master"], thing)
        if locked is None or incarnation not in (None, locked[0]):
            raise _lost(masterid)
        owner, token = _take(conn, thing, token)
    if owner != masterid:
        found_owner = conn.fetch_one(conn.sql["select_master"], {"masterid": owner})
        raise _taken(kind, name, owner, found_owner[1] if found_owner else None)
    return Claim(kind, name, masterid, token)


def _take(conn: Connection, thing: dict[str, Any], token: int | None) -> tuple[int, int]:
    """Who holds the thing now, the master if it was free, and the token; ``token`` was its last."""
    while True:
        if token is None and conn.insert(conn.sql["insert_claim"], thing):
            return thing["masterid"], FIRST_TOKEN
        if token is not None and conn.execute(conn.sql["update_free_claim"], thing):
            (token,) = conn.fetch_one(conn.sql["select_token"], thing) or (FIRST_TOKEN,)
            return thing["masterid"], token
        # Somebody was faster. The row that he wrote is there to stay, free or not.
        row: Row = conn.fetch_one(conn.sql["select_claim_of_rival"], thing) or (None, None)
        if row[0] is not None:
            return row[0], row[1]
        token = row[1]


@operation(touches=thing_of_master)
def release(conn: AnyConnection, masterid: int, kind: str, name: str) -> bool:
    """Whether the thing was this master's; it is free now."""
    conn = adapt(conn)
    thing = _thing(conn, kind, name) | {"masterid": check_id(masterid, "a masterid")}
    return conn.execute(conn.sql["update_claim_released"], thing) > 0


@operation()
def release_claim(conn: AnyConnection, claim: Claim) -> bool:
    """Whether the claim still held; it is free now. Who has claimed it since keeps it."""
    conn = adapt(conn)
    return conn.execute(conn.sql["update_claim_of_token_released"], _held(conn, claim)) > 0


def _masters_claims(masterid: Any = None, kind: Any = None) -> tuple[str, tuple[Any, ...] | None]:
    return "masters", None if masterid is None else (masterid,)


@operation(reads=True, touches=_masters_claims)
def get_claims(
    conn: AnyConnection, masterid: int | None = None, kind: str | None = None
) -> list[Claim]:
    """What is claimed, by this master, and of this kind, where they are given.

    Ordered by kind and name, by their UTF-8 bytes.
    """
    filters = []
    if masterid is not None:
        filters.append(Filter("masterid", "eq", [check_id(masterid, "a masterid")]))
    if kind is not None:
        encode_name(kind, "a claim's kind")
        filters.append(Filter("kind", "eq", [kind]))
    rows = select(adapt(conn), "select_claims", _CLAIM_FIELDS, ResultSpec(filters))
    return [Claim(decode_name(row[0]), decode_name(row[1]), row[2], row[3]) for row in rows]


@operation(reads=True)
def hold_claim(conn: AnyConnection, claim: Claim) -> None:
    """Keep a claim until the transaction ends; raises ClaimLostError if it is lost already.

    What the same transaction then writes cannot come from a master that has been expired: until it
    ends, nobody expires the master or releases the claim; on Galera somebody at another node may,
    and then its end fails. So keep it short; on SQLite nobody else writes anything meanwhile.
    Several transactions of the owner's may hold it at once, but on Galera. Outside of a
    transaction it is an UnusableConnectionError. In a deferred transaction of an application's on
    SQLite it only has what is written after the claim was lost fail.
    """
    conn = adapt(conn)
    thing = _held(conn, claim)
    if not conn.in_transaction:
        raise UnusableConnectionError(
            "a claim is held within a transaction, until its end, and none is open"
        )
    if conn.reads_only:
        raise only_read()
    conn.begin_if_implicit()
    if not _lock(conn, thing):
        raise ClaimLostError(
            f"{_what(claim.kind, claim.name)} is no longer held by master {claim.masterid} under"
            f" token {claim.token}"
        )


def _is_held(conn: Connection, found: Claim) -> bool:
    return _lock(conn, _held(conn, found))


def _lock(conn: Connection, held: dict[str, Any]) -> bool:
    """Whether the claim is still held; if so, it stays until the transaction ends."""
    if not conn.certifies():
        return conn.fetch_one(conn.sql["lock_claim"], held) is not None
    # Changed, and changed back. First of all: who has it locked shared could not always go on to
    # write it.
    statement = conn.sql["update_token"]
    if not conn.execute(statement, held | {"step": 1}):
        return False
    return conn.execute(statement, held | {"token": held["token"] + 1, "step": -1}) > 0


def _write_master(conn: Connection, thing: dict[str, Any]) -> bool:
    """Whether the master is active; if so, whoever ends it elsewhere meanwhile has a conflict."""
    statement = conn.sql["update_heartbeats"]
    return all(conn.execute(statement, thing | {"step": step}) for step in (1, -1))


def _thing(conn: Connection, kind: str, name: str) -> dict[str, Any]:
    encoded_kind = encode_name(kind, "a claim's kind")
    encoded_name = encode_name(name, "a claim's name")
    return {
        "identity_hash": conn.binary(name_hash(encoded_kind, encoded_name)),
        "kind": conn.binary(encoded_kind),
        "name": conn.binary(encoded_name),
        "first_token": FIRST_TOKEN,
    }


def _held(conn: Connection, claim: Claim) -> dict[str, Any]:
    if not isinstance(claim, Claim):
        raise InvalidTypeError(f"a claim is a Claim, not {type(claim).__name__}")
    return _thing(conn, claim.kind, claim.name) | {
        "masterid": check_id(claim.masterid, "a masterid"),
        "token": check_id(claim.token, "a token"),
    }


def _what(kind: str, name: str) -> str:
    return f"{shown(kind)} {shown(name)}"


def _taken(
    kind: str, name: str, owner: int, owner_name: bytes | None = None
) -> AlreadyClaimedError:
    known = "" if owner_name is None else f" ({shown(decode_name(owner_name))})"
    return AlreadyClaimedError(f"{_what(kind, name)} is held by master {owner}{known}", owner)


def _lost(masterid: int) -> MasterLostError:
    return MasterLostError(
        f"master {shown(masterid)} cannot hold anything: it is inactive, unknown, or has another"
        f" incarnation"
    )
