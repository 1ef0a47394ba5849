"""A place in the cluster: what its member does to keep it, as functions of a connection."""

from __future__ import annotations

from typing import NamedTuple

from statedb.connection import Connection
from statedb.expiry import EXPIRE_AFTER
from statedb.masterrows import release_all
from statedb.masters import find_master_id
from statedb.operation import operation
from statedb.times import in_microseconds


class Place(NamedTuple):
    """A master's place, as one process has it: later incarnations are others'."""

    masterid: int
    incarnation: int


class Sighting(NamedTuple):
    """What an observer has seen of an active master."""

    masterid: int
    incarnation: int
    #: How often it has checked in.
    heartbeats: int
    #: After how many seconds of silence it is expired.
    expire_after: float
    #: Whether that is over, by the database's clock.
    overdue: bool


@operation(repeatable=True)
def take_place(conn: Connection, name: str, expire_after: float) -> Place:
    """The place of the master of this name, for a new incarnation; all that it held is free.

    Done again it is one incarnation more, which is the one that counts.
    """
    number = {"expire_after": in_microseconds(expire_after)}
    with conn.transaction():
        while True:
            key = {"masterid": find_master_id(conn, name)}
            # Finds no row where the master was forgotten just now.
            if conn.execute(conn.sql["update_master_joined"], number | key):
                break
        release_all(conn, [key["masterid"]])
        ((incarnation,),) = conn.fetch_all(conn.sql["select_incarnation"], key)
    return Place(key["masterid"], incarnation)


@operation(repeatable=True)
def check_in(conn: Connection, place: Place) -> bool:
    """Whether the place is still this incarnation's: if so, it was seen now."""
    return conn.execute(conn.sql["update_heartbeat"], _key(place)) > 0


@operation(reads=True)
def look_around(conn: Connection) -> list[Sighting]:
    """All active masters, as an observer sees them."""
    number = {"expire_after": EXPIRE_AFTER}
    return [
        Sighting(row[0], row[1], row[2], float(row[3]) / 1_000_000, bool(row[4]))
        for row in conn.fetch_all(conn.sql["select_heartbeats"], number)
    ]


@operation(repeatable=True)
def leave_place(conn: Connection, place: Place) -> None:
    """Mark the master inactive, holding nothing, if the place is still this incarnation's."""
    with conn.transaction():
        if conn.execute(conn.sql["update_master_left"], _key(place)):
            release_all(conn, [place.masterid])


def _key(place: Place) -> dict[str, int]:
    return {"masterid": place.masterid, "incarnation": place.incarnation}
