"""Objects: operations on what values belong to, as functions of a connection."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from statedb.connection import AnyConnection, Connection, adapt
from statedb.errors import NoSuchObjectError
from statedb.names import check_id, decode_name, encode_name, name_hash, shown
from statedb.operation import operation
from statedb.resultspec import Field, ResultSpec, integer_field, select, text_field


@dataclass(frozen=True)
class ObjectModel:
    """An object: what it is called, of which class, and the id by which its values are known."""

    id: int
    name: str
    class_name: str


OBJECT_FIELDS: Final[Mapping[str, Field]] = {
    "id": integer_field("id"),
    "name": text_field("name"),
    "class_name": text_field("class_name"),
}

#: Past this many remembered object ids, all are forgotten and remembered anew as they are used.
MAX_KNOWN_OBJECTS = 10_000
#: For how many seconds an id is remembered: so long it may be given after another process has
#: deleted its object, and perhaps added one of the same name.
KNOWN_FOR = 60.0


def _all_values(objectid: Any) -> tuple[Any, None]:
    return objectid, None


@operation(repeatable=True)
def get_object_id(conn: AnyConnection, name: str, class_name: str) -> int:
    """The id of the object of this name and class, which is added if there is none.

    All callers get the same id, however many ask at once, until the object is deleted; no id is
    used again. Raises InvalidNameError, or InvalidTypeError for what is no str.
    """
    conn = adapt(conn)
    names = {
        "name": encode_name(name, "an object's name"),
        "class_name": encode_name(class_name, "an object's class name"),
    }
    bind = conn.binary
    identity = {"identity_hash": bind(name_hash(names["name"], names["class_name"]))}
    row = conn.fetch_one(conn.sql["select_object_id"], identity)
    while row is None:
        values = {key: bind(value) for key, value in names.items()}
        if conn.insert(conn.sql["insert_object"], values | identity):
            row = (conn.new_id(),)
        else:
            # The rival's; or nobody's once more, if it was deleted meanwhile.
            row = conn.fetch_one(conn.sql["select_object_id_of_rival"], identity)
    objectid: int = row[0]
    # A subclass of str's may be unhashable, or the equal of anything.
    if not conn.in_transaction and type(name) is str and type(class_name) is str:
        if len(conn.known) >= MAX_KNOWN_OBJECTS:
            conn.known.clear()
        conn.known[name, class_name] = objectid, time.monotonic() + KNOWN_FOR
    return objectid


def known_object(known: Mapping[Any, tuple[int, float]], name: str, class_name: str) -> int | None:
    """The id that get_object_id has found within the last minute, if it is remembered."""
    if type(name) is not str or type(class_name) is not str:
        return None
    found = known.get((name, class_name))
    return found[0] if found is not None and time.monotonic() < found[1] else None


@operation(reads=True)
def get_objects(conn: AnyConnection, resultSpec: ResultSpec | None = None) -> list[ObjectModel]:
    """The objects that a ResultSpec asks for, all without one; by id where it gives no order.

    Fields are id, name and class_name; names are compared and ordered by their UTF-8 bytes.
    Raises InvalidResultSpecError, which says what is legal.
    """
    rows = select(adapt(conn), "select_objects", OBJECT_FIELDS, resultSpec)
    return [ObjectModel(row[0], decode_name(row[1]), decode_name(row[2])) for row in rows]


@operation(touches=_all_values)
def delete_object(conn: AnyConnection, objectid: int) -> bool:
    """Whether there was an object of this id; it is deleted, and its values with it."""
    conn = adapt(conn)
    parameters = {"objectid": check_id(objectid, "an objectid")}
    _forget(conn, objectid)
    with conn.transaction():
        deleted = conn.execute(conn.sql["delete_object"], parameters) > 0
        conn.execute(conn.sql["delete_values"], parameters)
    # Again: it may have been looked up, and remembered, until the transaction's end.
    _forget(conn, objectid)
    return deleted


def _forget(conn: Connection, objectid: int) -> None:
    for key, (known, _) in list(conn.known.items()):
        if known == objectid:
            conn.known.pop(key, None)


def no_such_object(conn: Connection, objectid: int) -> NoSuchObjectError:
    _forget(conn, objectid)
    return NoSuchObjectError(f"there is no object {shown(objectid)}; getObjectId makes one")
