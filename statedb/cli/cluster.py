"""Cluster: the commands that are about masters and what they hold."""

from __future__ import annotations

import argparse
from typing import Any, Final

from statedb.claims import Claim, get_claims
from statedb.cli.output import Columns, Output, Row
from statedb.cli.pages import Standing, pages_of_masters
from statedb.cli.subjects import find_master
from statedb.cli.text import lasting, moment
from statedb.cli.watch import watch
from statedb.database import Database
from statedb.masters import MasterModel
from statedb.names import shown
from statedb.times import from_microseconds

_MASTERS: Final[Columns] = {
    "id": lambda row: str(row["id"]),
    "name": lambda row: row["name"],
    "active": lambda row: "yes" if row["active"] else "no",
    "seen": lambda row: f"{lasting(row['silent_for'])} ago",
    "expires after": lambda row: _expires_after(row["expire_after"]),
    "holds": lambda row: ", ".join(f"{one['kind']} {one['name']}" for one in row["holds"]),
}
_CLAIMS: Final[Columns] = {
    "kind": lambda row: row["kind"],
    "name": lambda row: row["name"],
    "master": lambda row: str(row["masterid"]),
    "token": lambda row: str(row["token"]),
}
_EXPIRED: Final[Columns] = {
    "id": lambda row: str(row["id"]),
    "name": lambda row: row["name"],
    "seen": lambda row: row["last_active"],
}


def _expires_after(seconds: float | None) -> str:
    return "" if seconds is None else lasting(seconds)


def masters(db: Database, options: argparse.Namespace, out: Output) -> None:
    def look() -> list[Row]:
        return _standings(db, only_active=options.active)

    if options.watch:
        watch(_MASTERS, look, out, options)
    else:
        out.table(_MASTERS, [look()])


def _standings(db: Database, *, only_active: bool) -> list[Row]:
    """All masters with what each holds, as of one moment, by their ids."""
    with db.snapshot() as conn:
        held: dict[int, list[Claim]] = {}
        for one in get_claims(conn):
            held.setdefault(one.masterid, []).append(one)
        standings = [one for page in pages_of_masters(conn) for one in page]
    return [
        _row(one, held.get(one.id, []))
        for one in sorted(standings)
        if one.active or not only_active
    ]


def _row(one: Standing, held: list[Claim]) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "active": one.active,
        "last_active": moment(from_microseconds(one.last_active)),
        "silent_for": one.silence / 1_000_000,
        "expire_after": None if one.expire_after is None else one.expire_after / 1_000_000,
        "holds": [{"kind": it.kind, "name": it.name, "token": it.token} for it in held],
    }


def claims(db: Database, options: argparse.Namespace, out: Output) -> None:
    masterid = None if options.master is None else find_master(db, options.master).id
    found = db.masters.thdGetClaims(masterid, options.kind)
    rows = [
        {"kind": one.kind, "name": one.name, "masterid": one.masterid, "token": one.token}
        for one in found
    ]
    out.table(_CLAIMS, [rows])


def expire(db: Database, options: argparse.Namespace, out: Output) -> None:
    expired = db.masters.thdExpireMasters(options.after)
    out.table(_EXPIRED, [[_expired(one) for one in expired]])


def _expired(one: MasterModel) -> Row:
    return {"id": one.id, "name": one.name, "last_active": moment(one.last_active)}


def forget(db: Database, options: argparse.Namespace, out: Output) -> None:
    found = find_master(db, options.master)
    what = f"master {found.id}, {shown(found.name)}"
    db.masters.thdForgetMaster(found.id)  # or somebody else has, just now
    out.said(f"forgot {what}", True)
