"""State: operations on the values of objects, and on objects, as functions of a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from statedb.batches import get_together, set_together
from statedb.connection import AnyConnection, Connection, adapt
from statedb.errors import Error, OutcomeUnknownError
from statedb.names import shown
from statedb.objects import (
    ObjectModel,
    delete_object,
    get_object_id,
    get_objects,
    no_such_object,
)
from statedb.operation import operation
from statedb.staterows import (
    NO_DEFAULT,
    SEEMS_NEW,
    NoDefault,
    key_of,
    no_such_state,
    row_of,
)
from statedb.states import get_states, set_states
from statedb.values import decode_value, encode_value

__all__ = [
    "NO_DEFAULT",
    "NoDefault",
    "ObjectModel",
    "atomic_create_state",
    "delete_object",
    "delete_state",
    "get_object_id",
    "get_objects",
    "get_state",
    "get_states",
    "set_state",
    "set_states",
    "update_state",
]


def _value(objectid: Any, name: Any, *_: Any, **__: Any) -> tuple[Any, tuple[Any, ...]]:
    return objectid, (name,)


@operation(reads=True, touches=_value, batch=get_together)
def get_state(conn: AnyConnection, objectid: int, name: str, default: Any = NO_DEFAULT) -> Any:
    """The object's value of this name; ``default`` if there is none and one was given.

    Raises NoSuchStateError, a KeyError, where there is neither, and StoredValueError, a TypeError,
    where what is stored is no JSON. None is a legal default, and a stored null a value.
    """
    conn = adapt(conn)
    row = conn.fetch_one(conn.sql["select_value"], key_of(conn, objectid, name))
    if row is not None:
        return decode_value(row[0], objectid, name)
    if isinstance(default, NoDefault):
        raise no_such_state(objectid, name)
    return default


@operation(repeatable=True, touches=_value, batch=set_together, shares_commit=True)
def set_state(conn: AnyConnection, objectid: int, name: str, value: Any) -> Any:
    """Overwrite the object's value of this name, or create it; the value actually written.

    If a rival creates the name between our looking for it and our writing it, the first wins: the
    rival's value stands and is returned. In an application's transaction on MySQL at REPEATABLE
    READ, whoever created it since the transaction's snapshot is a rival. Raises InvalidValueError,
    a TypeError, for what is no JSON, and NoSuchObjectError, a KeyError.
    """
    conn = adapt(conn)
    row = row_of(conn, objectid, name, encode_value(value, objectid, name))
    if conn.memo.pop(SEEMS_NEW, False):
        return _create(conn, objectid, name, row)
    # An UPDATE that finds nothing may lock the gap against those who would fill it, until the
    # application's transaction ends; two that do so to each other deadlock. So look first.
    may_be_there = not _locks_gap(conn) or conn.fetch_one(conn.sql["select_value"], row)
    if may_be_there and conn.execute(conn.sql["update_value"], row):
        return decode_value(row["value"], objectid, name)
    return _create(conn, objectid, name, row)


def _locks_gap(conn: Connection) -> bool:
    return conn.dialect.locks_gaps and not conn.owned and conn.in_transaction


@operation(repeatable=True, touches=_value)
def atomic_create_state(
    conn: AnyConnection, objectid: int, name: str, thd_create_callback: Callable[[], Any]
) -> Any:
    """The object's value of this name; if there is none, what the callback returns is stored.

    It is created once for the whole cluster: every caller everywhere returns the same value. The
    callback runs in this thread, at most once, with no lock or transaction of ours held; what it
    raises propagates, and nothing is stored. Raises InvalidValueError for a result that is no
    JSON, and NoSuchObjectError.
    """
    conn = adapt(conn)
    key = key_of(conn, objectid, name)
    found = conn.fetch_one(conn.sql["select_value"], key)
    if found is not None:
        return decode_value(found[0], objectid, name)
    created = (atomic_create_state, key["objectid"], key["name_hash"])
    if created not in conn.memo:
        conn.memo[created] = encode_value(_call_back(conn, thd_create_callback), objectid, name)
    try:
        value = _create(conn, objectid, name, row_of(conn, objectid, name, conn.memo[created]))
    except Exception as error:
        # There will be no other try, but perhaps another call in the same transaction.
        if isinstance(error, Error) or conn.in_transaction:
            del conn.memo[created]
        raise
    del conn.memo[created]
    return value


def _call_back(conn: Connection, callback: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return callback(*arguments)
    except BaseException:
        # Whatever it is, it is the caller's own: even a failure of this very connection, which the
        # callback may have used, is none of this operation's, to be tried again.
        conn.error = None
        raise


def _create(conn: Connection, objectid: int, name: str, row: dict[str, Any]) -> Any:
    """Add a value; the rival's if somebody else was first."""
    while True:
        if conn.insert(conn.sql["insert_value"], row):
            return decode_value(row["value"], objectid, name)
        rival = conn.fetch_one(conn.sql["select_value_of_rival"], row)
        if rival is not None:
            return decode_value(rival[0], objectid, name)
        if conn.fetch_one(conn.sql["lock_object"], row) is None:
            raise no_such_object(conn, objectid)
        # The rival's value was deleted before we could read it: the name is free again.


@operation(touches=_value, shares_commit=True)
def delete_state(conn: AnyConnection, objectid: int, name: str) -> bool:
    """Whether the object had a value of this name; it is deleted."""
    conn = adapt(conn)
    return conn.execute(conn.sql["delete_value"], key_of(conn, objectid, name)) > 0


@operation(repeatable=True, touches=_value)
def update_state(
    conn: AnyConnection,
    objectid: int,
    name: str,
    thd_update_callback: Callable[[Any], Any],
    default: Any = NO_DEFAULT,
) -> Any:
    """Replace the object's value of this name by what the callback makes of it; the new value.

    Where there is none the callback gets ``default``, and without one NoSuchStateError is raised.
    It runs again whenever another writer got in between, so it touches nothing else; no update is
    lost. By compare-and-set on the row's stamp, and by locking the row in a transaction that is
    already open. Raises what the callback raises, InvalidValueError and NoSuchObjectError.
    """
    conn = adapt(conn)
    key = key_of(conn, objectid, name)
    locked = "_for_update" if conn.in_transaction else ""
    query = conn.sql[f"select_value_and_stamp{locked}"]
    in_doubt = (update_state, key["objectid"], key["name_hash"])
    doubts = conn.memo.get(in_doubt) or _Doubts()
    while True:
        text, stamp = conn.fetch_one(query, key) or (None, None)
        if doubts.settled_by(stamp, objectid, name):
            return decode_value(text, objectid, name)
        if text is not None:
            value = decode_value(text, objectid, name)
        elif isinstance(default, NoDefault):
            raise no_such_state(objectid, name)
        else:
            value = default
        new_text = encode_value(_call_back(conn, thd_update_callback, value), objectid, name)
        row = row_of(conn, objectid, name, new_text)
        try:
            if stamp is None:
                written = conn.insert(conn.sql["insert_value"], row)
            else:
                row["expected_stamp"] = stamp
                written = conn.execute(conn.sql["update_value_of_stamp"], row) > 0
        except BaseException:
            if conn.in_doubt:
                doubts.add(stamp, row["stamp"])
                conn.memo[in_doubt] = doubts
            raise
        if written:
            return decode_value(new_text, objectid, name)
        if stamp is None and conn.fetch_one(conn.sql["lock_object"], key) is None:
            raise no_such_object(conn, objectid)


class _Doubts:
    """The tries of one update_state whose answers were lost: each may have landed, or may yet."""

    def __init__(self) -> None:
        self._expected: int | None = None
        self._stamps: set[int] = set()

    def add(self, expected: int | None, stamp: int) -> None:
        self._expected = expected
        self._stamps.add(stamp)

    def settled_by(self, stamp: int | None, objectid: int, name: str) -> bool:
        """Whether the stamp that is there now is one of our tries'; raises if that cannot be told.

        The stamp that we expected, still there, says that none has landed yet. No stamp says
        nothing: ours may have been there, and deleted since.
        """
        if not self._stamps or (stamp is not None and stamp == self._expected):
            return False
        if stamp in self._stamps:
            return True
        raise OutcomeUnknownError(
            f"the answer to an update of {shown(name)} of object {objectid} was lost, and whether"
            f" it took effect before somebody else wrote or deleted the value cannot be told"
        )
