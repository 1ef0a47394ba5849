"""Batches: what several calls of one operation that waited together become, in one statement.

Whatever is out of the ordinary about a call a batch leaves to the operation itself, to be made
alone: so each thing that can go wrong is dealt with in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from statedb.connection import Connection
from statedb.names import check_id, encode_and_hash
from statedb.operation import ALONE, Arguments
from statedb.stamps import new_stamp
from statedb.staterows import NO_DEFAULT, SEEMS_NEW, NoDefault, no_such_state
from statedb.values import decode_value, encode_value

#: A longer value, in characters of JSON, travels alone: together the longest would be 256 MiB.
MAX_SHARED_VALUE = 64 * 1024

Key = tuple[int, bytes]


def get_together(conn: Connection, calls: Sequence[Arguments]) -> list[Any]:
    """What several calls of get_state give."""
    asked = [_each(_asked, call) for call in calls]
    keys = list(dict.fromkeys(one[0] for one in asked if one is not None))
    if not keys:
        return [ALONE for _ in calls]
    found = _select(conn, keys, longest=MAX_SHARED_VALUE)
    return [ALONE if one is None else _got(found, *one) for one in asked]


def _select(conn: Connection, keys: Sequence[Key], longest: int) -> dict[Key, str | None]:
    """The values that are there; None for a longer one."""
    sql, parameters = conn.sql.for_each("select_values_of_keys", _columns(conn, keys))
    parameters["longest"] = longest
    return {(row[0], row[1]): row[2] for row in conn.fetch_all(sql, parameters)}


def _asked(objectid: int, name: str, default: Any = NO_DEFAULT) -> tuple[Key, int, str, Any]:
    return _key(objectid, name), objectid, name, default


def _got(found: dict[Key, str | None], key: Key, objectid: int, name: str, default: Any) -> Any:
    if key in found:
        text = found[key]
        try:
            return ALONE if text is None else decode_value(text, objectid, name)
        except Exception:
            return ALONE
    if isinstance(default, NoDefault):
        return no_such_state(objectid, name)
    # What is an Exception would be raised.
    return ALONE if isinstance(default, Exception) else default


def set_together(conn: Connection, calls: Sequence[Arguments]) -> list[Any]:
    """What several calls of set_state give.

    It writes the values that are there and that nobody has locked, so it never waits while it has
    locked any: an application that writes the same rows meets no deadlock by it. The others are
    written alone.
    """
    texts: dict[Key, str] = {}
    asked = []
    for call in calls:
        one = _each(_written, call)
        if one is not None and len(one[1]) <= MAX_SHARED_VALUE and one[0] not in texts:
            texts[one[0]] = one[1]
        else:
            one = None
        asked.append(one)
    done = _update(conn, texts) if texts else set()
    new = _not_there(conn, [key for key in texts if key not in done])
    outcomes = []
    for call, one in zip(calls, asked, strict=True):
        if one is not None and one[0] in done:
            outcomes.append(decode_value(*one[1:]))
        else:
            call.memo = {SEEMS_NEW: True} if one is not None and one[0] in new else None
            outcomes.append(ALONE)
    return outcomes


def _not_there(conn: Connection, keys: list[Key]) -> set[Key]:
    """Which of several keys have no values; the others' are locked."""
    return set(keys).difference(_select(conn, keys, longest=0)) if keys else set()


def _written(objectid: int, name: str, value: Any) -> tuple[Key, str, int, str]:
    return _key(objectid, name), encode_value(value, objectid, name), objectid, name


def _update(conn: Connection, texts: dict[Key, str]) -> set[Key]:
    """Overwrite those of the values that are there and not locked; which these were."""
    if "lock_values" not in conn.sql:
        # This engine's update finds and locks them itself.
        return _keys(conn.fetch_all(*conn.sql.for_each("update_values", _rows(conn, texts))))
    with conn.transaction():
        lock = conn.sql.for_each("lock_values", _columns(conn, list(texts)))
        free = _keys(conn.fetch_all(*lock))
        if free:
            rows = _rows(conn, {key: texts[key] for key in free})
            conn.execute(*conn.sql.for_each("update_values", rows))
    return free


def _columns(conn: Connection, keys: Sequence[Key]) -> dict[str, list[Any]]:
    return {
        "objectid": [objectid for objectid, _ in keys],
        "name_hash": [conn.binary(digest) for _, digest in keys],
    }


def _rows(conn: Connection, texts: dict[Key, str]) -> dict[str, list[Any]]:
    columns = _columns(conn, list(texts))
    columns["value"] = list(texts.values())
    columns["stamp"] = [new_stamp() for _ in texts]
    return columns


def _keys(rows: Sequence[Sequence[Any]]) -> set[Key]:
    return {(row[0], row[1]) for row in rows}


def _key(objectid: int, name: str) -> Key:
    return check_id(objectid, "an objectid"), encode_and_hash(name, "a value's name")[1]


def _each(read: Any, call: Arguments) -> Any:
    """What a call asks for; None where the operation itself is to say what is wrong with it."""
    try:
        return read(*call.args, **call.kwargs)
    except Exception:
        return None
