"""Scene: what there is of one run of the demo in the database, as functions of a connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from statedb import masters, state
from statedb.claims import Claim
from statedb.connection import Connection
from statedb.demo.facts import Write
from statedb.demo.settings import WRITES, master_name
from statedb.masters import MasterModel
from statedb.resultspec import Filter, ResultSpec


@dataclass(frozen=True)
class Scene:
    """What a look has found; each of its parts is as it was at one moment of the look."""

    masters: list[MasterModel]
    claims: list[Claim]
    #: Each scheduler's, oldest first.
    histories: dict[str, list[Write]]
    #: Whether other programs' masters are active in this database.
    strangers: bool

    @property
    def active(self) -> list[int]:
        return [one.id for one in self.masters if one.active]


def look(conn: Connection, run: str, schedulers: Iterable[str]) -> Scene:
    """All of it; run as one call it takes no longer than one may."""
    # In this order: what is written or claimed once a master is inactive is not taken for older.
    histories = {name: _history(conn, name, run) for name in schedulers}
    claims = masters.get_claims(conn, kind=run)
    ours = masters.get_masters(conn, _masters_of(run))
    known = {one.id for one in ours}
    spec = ResultSpec([Filter("active", "eq", [True])], limit=len(known) + 1)
    strangers = any(one.id not in known for one in masters.get_masters(conn, spec))
    return Scene(ours, claims, histories, strangers)


def _history(conn: Connection, scheduler: str, run: str) -> list[Write]:
    objectid = state.get_object_id(conn, scheduler, run)
    return [Write(**one) for one in state.get_state(conn, objectid, WRITES, default=[])]


def forget(conn: Connection, run: str) -> None:
    """Delete the run's masters and objects; its claims' rows stay, as all such rows do."""
    with conn.transaction():
        for master in masters.get_masters(conn, _masters_of(run)):
            masters.set_master_state(conn, master.id, False)
            masters.forget_master(conn, master.id)
        for one in state.get_objects(conn, ResultSpec([Filter("class_name", "eq", [run])])):
            state.delete_object(conn, one.id)


def _masters_of(run: str) -> ResultSpec:
    return ResultSpec([Filter("name", "contains", [master_name(run, "")])])


def tables(scene: Scene, names: Mapping[int, str], tokens: Mapping[str, int]) -> list[str]:
    """The lines of two tables; ``tokens`` are the last of each scheduler's."""
    standing = [
        (
            names[one.id],
            "active" if one.active else "inactive",
            f"{one.last_active:%H:%M:%S.%f}"[:-3],
        )
        for one in scene.masters
    ]
    holders = {claim.name: names[claim.masterid] for claim in scene.claims}
    work = [
        (
            name,
            holders.get(name, "nobody"),
            str(tokens[name]),
            writes[-1].revision[:7],
            names[writes[-1].masterid],
            str(writes[-1].token),
        )
        for name, writes in scene.histories.items()
    ]
    title = ("scheduler", "held by", "token", "last revision", "recorded by", "with token")
    return [
        *_table(("master", "standing", "last seen, UTC"), standing),
        "",
        *_table(title, work),
    ]


def _table(title: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    lines = [title, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(title))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
