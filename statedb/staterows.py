"""Rows of values: the parameters by which a value is found and written."""

from __future__ import annotations

from typing import Any, Final

from statedb.connection import Connection
from statedb.errors import NoSuchStateError
from statedb.names import check_id, encode_and_hash, shown
from statedb.stamps import new_stamp


class NoDefault:
    """The type of NO_DEFAULT, which stands for "no default given": None is a legal default."""

    def __repr__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Final = NoDefault()

#: In ``conn.memo``: a moment ago there was no such value.
SEEMS_NEW: Final = "seems new"


def key_of(conn: Connection, objectid: int, name: str) -> dict[str, Any]:
    """The parameters of a statement that finds a value."""
    _, digest = encode_and_hash(name, "a value's name")
    return {"objectid": check_id(objectid, "an objectid"), "name_hash": conn.binary(digest)}


def row_of(conn: Connection, objectid: int, name: str, text: str) -> dict[str, Any]:
    """The parameters of a statement that writes a value, with a stamp of its own."""
    encoded, digest = encode_and_hash(name, "a value's name")
    return {
        "objectid": check_id(objectid, "an objectid"),
        "name_hash": conn.binary(digest),
        "name": conn.binary(encoded),
        "value": text,
        "stamp": new_stamp(),
    }


def no_such_state(objectid: int, name: str) -> NoSuchStateError:
    return NoSuchStateError(f"object {shown(objectid)} has no value named {shown(name)}")
