"""Subjects: which object or master is meant by a word on the command line."""

from __future__ import annotations

from statedb.cli.endings import NotThere, NotUnderstood
from statedb.connection import Connection
from statedb.database import Database
from statedb.masters import MasterModel
from statedb.names import encode_and_hash, encode_name, name_hash, shown
from statedb.objects import ObjectModel
from statedb.operation import operation
from statedb.resultspec import Filter, ResultSpec


def names_of(word: str) -> tuple[str, str] | None:
    """The name and the class of ``NAME:CLASS``; None of an id."""
    if _is_id(word):
        return None
    name, colon, class_name = word.rpartition(":")
    if not colon:
        raise NotUnderstood(
            f"{shown(word)} is no object: an object is an id or NAME:CLASS, as nightly:Scheduler"
        )
    return name, class_name


def find_object(db: Database, word: str) -> ObjectModel:
    """The object of this id, or NAME:CLASS; NotThere if there is none."""
    names = names_of(word)
    objectid = int(word) if names is None else db.run(object_id, *names)
    found = db.state.thdGetObjects(_by_id(objectid)) if objectid else []
    if not found:
        raise NotThere(f"there is no object {word}; `statedb objects` lists them")
    return found[0]


def find_master(db: Database, word: str) -> MasterModel:
    """The master of this id, or of this name; NotThere if there is none."""
    found = db.masters.thdGetMaster(int(word)) if _is_id(word) else None
    if found is None:
        masterid = db.run(_master_id, word)
        found = None if masterid is None else db.masters.thdGetMaster(masterid)
    if found is None:
        raise NotThere(f"there is no master {word}; `statedb masters` lists them")
    return found


def _is_id(word: str) -> bool:
    # Longer ones Python may refuse to convert, and the database has none.
    return word.isascii() and word.isdigit() and len(word) < 20


def _by_id(objectid: int) -> ResultSpec:
    return ResultSpec([Filter("id", "eq", [objectid])])


@operation(reads=True)
def object_id(conn: Connection, name: str, class_name: str) -> int | None:
    """The id of an object, or None."""
    # Not get_object_id, which adds what is not there.
    encoded = (encode_name(name, "an object's name"), encode_name(class_name, "a class name"))
    key = {"identity_hash": conn.binary(name_hash(*encoded))}
    row = conn.fetch_one(conn.sql["select_object_id"], key)
    return None if row is None else row[0]


@operation(reads=True)
def _master_id(conn: Connection, name: str) -> int | None:
    _, digest = encode_and_hash(name, "a master's name")
    row = conn.fetch_one(conn.sql["select_master_id"], {"name_hash": conn.binary(digest)})
    return None if row is None else row[0]
