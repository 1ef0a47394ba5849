"""Dump: all that a database holds, as of one moment, line by line."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from statedb import schema
from statedb.cli import records
from statedb.cli.endings import DumpError
from statedb.cli.pages import (
    StoredValue,
    pages_of_masters,
    pages_of_objects,
    pages_of_tokens,
    pages_of_values,
)
from statedb.cli.records import Claimed, Counts, Master, Object
from statedb.connection import Connection
from statedb.errors import Error, InvalidNameError
from statedb.names import encode_name, shown
from statedb.values import decode_value

#: The class of what says how far a load has come, which is no part of a dump.
LOAD_CLASS: Final = "statedb.load"

Write = Callable[[str], object]


def write_dump(conn: Connection, write: Write) -> Counts:
    """Write what a connection within a snapshot sees; how much it was."""
    write(records.header(uuid.uuid4().hex, schema.VERSION))
    objects, values = _write_objects(conn, write)
    masters = claims = 0
    for standings in pages_of_masters(conn):
        for one in standings:
            _check_name(one.name, f"master {one.id}")
            last = (one.last_active, one.expire_after or 0, one.incarnation)
            write(records.master_line(Master(one.name, one.active, *last)))
        masters += len(standings)
    for tokens in pages_of_tokens(conn):
        for thing in tokens:
            _check_name(thing.kind, f"the kind of {shown(thing.name)}, which was claimed,")
            _check_name(thing.name, f"a {shown(thing.kind)} that was claimed")
            write(records.claim_line(Claimed(*thing)))
        claims += len(tokens)
    counts = Counts(objects, values, masters, claims)
    write(records.end_line(counts))
    return counts


def _write_objects(conn: Connection, write: Write) -> tuple[int, int]:
    """Write the objects, each with its values; how many they were."""
    objects = count = 0
    # Both are in the order of the objects' ids.
    values = (one for page in pages_of_values(conn) for one in page)
    value = next(values, None)
    for page in pages_of_objects(conn):
        for one in page:
            while value is not None and value.objectid < one.id:
                value = next(values, None)  # of no object: of nobody's
            own = one.class_name != LOAD_CLASS
            if own:
                _check_name(one.name, f"object {one.id}")
                _check_name(one.class_name, f"the class of object {one.id}")
                write(records.object_line(Object(one.name, one.class_name)))
                objects += 1
            while value is not None and value.objectid == one.id:
                if own:
                    write(_value_line(value))
                    count += 1
                value = next(values, None)
    return objects, count


def _value_line(one: StoredValue) -> str:
    _check_name(one.name, f"a value of object {one.objectid}")
    try:
        value = decode_value(one.text, one.objectid, one.name)
    except Error as error:
        raise DumpError(f"{error}: correct it by `statedb set`, or delete it") from error
    text = one.text
    # As it is stored, if it is as statedb stores it.
    if not isinstance(text, str) or not text.isascii() or not text.isprintable():
        text = records.encode(value)
    return records.value_line(one.name, text)


def _check_name(name: str, whose: str) -> None:
    try:
        encode_name(name, "the name")
    except InvalidNameError as error:
        raise DumpError(f"{whose} cannot be dumped: {error}") from error
