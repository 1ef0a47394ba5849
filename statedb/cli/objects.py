"""Objects: the commands that are about objects and their values."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any, Final

from statedb.cli.endings import NotThere, NotUnderstood
from statedb.cli.files import STANDARD, standard_input
from statedb.cli.output import Columns, Output, Row, encoding
from statedb.cli.pages import pages_of_objects, pages_of_values
from statedb.cli.subjects import find_object, names_of
from statedb.cli.text import visible_json
from statedb.connection import Connection
from statedb.database import Database
from statedb.names import shown
from statedb.resultspec import Filter
from statedb.staterows import NO_DEFAULT
from statedb.values import decode_value, refuse_constant

_OBJECTS: Final[Columns] = {
    "id": lambda row: str(row["id"]),
    "class": lambda row: row["class"],
    "name": lambda row: row["name"],
}
_STATES: Final[Columns] = {
    "name": lambda row: row["name"],
    "value": lambda row: visible_json(row["value"], encoding()),
}


def objects(db: Database, options: argparse.Namespace, out: Output) -> None:
    filters = []
    if options.name is not None:
        filters.append(Filter("name", "contains", [options.name]))
    if options.class_name is not None:
        filters.append(Filter("class_name", "eq", [options.class_name]))
    with db.snapshot() as conn:
        out.table(_OBJECTS, _rows_of_objects(conn, filters))


def _rows_of_objects(conn: Connection, filters: list[Filter]) -> Iterator[list[Row]]:
    for page in pages_of_objects(conn, *filters):
        yield [{"id": one.id, "class": one.class_name, "name": one.name} for one in page]


def states(db: Database, options: argparse.Namespace, out: Output) -> None:
    objectid = find_object(db, options.object).id
    with db.snapshot() as conn:
        out.table(_STATES, _rows_of_values(conn, objectid))


def _rows_of_values(conn: Connection, objectid: int) -> Iterator[list[Row]]:
    """The object's values, those of a page by their names."""
    for page in pages_of_values(conn, objectid):
        own = sorted((one for one in page if one.objectid == objectid), key=lambda one: one.name)
        if own:
            yield [
                {"name": one.name, "value": decode_value(one.text, objectid, one.name)}
                for one in own
            ]
        if len(own) < len(page):
            return


def get(db: Database, options: argparse.Namespace, out: Output) -> None:
    default = NO_DEFAULT
    if options.default is not None:
        default = _json_of(options.default, "the default")
    try:
        objectid = find_object(db, options.object).id
    except NotThere:
        if default is NO_DEFAULT:
            raise
        out.value(default)
        return
    out.value(db.state.thdGetState(objectid, options.key, default))


def set_value(db: Database, options: argparse.Namespace, out: Output) -> None:
    given: str = options.value
    text = standard_input().read() if given == STANDARD else given
    value = _json_of(text, "the value")
    names = names_of(options.object)
    if options.create and names is not None:
        objectid = db.state.thdGetObjectId(*names)
    else:
        objectid = find_object(db, options.object).id
    # Not setState, which leaves what a rival has created at the same moment.
    out.value(db.state.thdSetStates(objectid, {options.key: value})[options.key])


def _json_of(text: str, what: str) -> Any:
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        # Nothing of it is shown: it may be meant to be a secret.
        raise NotUnderstood(
            f"""{what} is no JSON ({error}); a text needs its quotes, as in '"green"'"""
        ) from error


def delete(db: Database, options: argparse.Namespace, out: Output) -> None:
    if options.whole is (options.key is not None):
        raise NotUnderstood("delete takes a KEY, or --object for the object with all its values")
    found = find_object(db, options.object)
    if options.whole:
        deleted = db.state.thdDeleteObject(found.id)
        what = f"object {found.id} with all its values"
    else:
        deleted = db.state.thdDeleteState(found.id, options.key)
        what = f"{shown(options.key)} of object {found.id}"
    if not deleted:
        raise NotThere(f"there is no {what}")
    out.said(f"deleted {what}", True)
