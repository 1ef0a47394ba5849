"""Records: the lines of a dump, how they are written and what they must be when they are read.

A dump is JSON Lines: a header; objects, each followed by its values; masters; the things that were
ever claimed; and last how many there are of each, so that a part is not taken for the whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

from statedb.names import encode_name, shown
from statedb.times import to_microseconds
from statedb.values import MAX_VALUE_CHARACTERS

#: The version of the format.
FORMAT: Final = 1
#: The longest line, in bytes: it holds the longest value and the longest name, escaped.
LONGEST_LINE: Final = 2 * MAX_VALUE_CHARACTERS
#: The largest number that is taken, so that there are enough above it.
LARGEST: Final = 2**62
#: The moments that have a date.
_MOMENTS: Final = (
    to_microseconds(datetime.min.replace(tzinfo=timezone.utc)),
    to_microseconds(datetime.max.replace(tzinfo=timezone.utc)),
)
_MARK: Final = "statedb"
_DUMP = re.compile("[0-9a-f]{32}")


class Header(NamedTuple):
    dump: str


class Object(NamedTuple):
    name: str
    class_name: str


class Value(NamedTuple):
    name: str
    value: Any


class Master(NamedTuple):
    """Times are in microseconds; an ``expire_after`` of 0 says that it has none."""

    name: str
    active: bool
    last_active: int
    expire_after: int
    incarnation: int


class Claimed(NamedTuple):
    kind: str
    name: str
    token: int


class Counts(NamedTuple):
    objects: int
    values: int
    masters: int
    claims: int

    def __str__(self) -> str:
        return (
            f"{self.objects} objects, {self.values} values, {self.masters} masters, the tokens of"
            f" {self.claims} claims"
        )


Record = Header | Object | Value | Master | Claimed | Counts

encode = json.JSONEncoder().encode


# --- Writing ---


def header(dump: str, schema: int) -> str:
    return encode({_MARK: "dump", "format": FORMAT, "dump": dump, "schema": schema})


def object_line(one: Object) -> str:
    return f'{{"object": {encode(one.name)}, "class": {encode(one.class_name)}}}'


def value_line(name: str, text: str) -> str:
    return f'{{"key": {encode(name)}, "value": {text}}}'


def master_line(one: Master) -> str:
    members = one._asdict()
    return encode({"master": members.pop("name"), **members})


def claim_line(one: Claimed) -> str:
    return encode({"claim": one.name, "kind": one.kind, "token": one.token})


def end_line(counts: Counts) -> str:
    return encode({"end": counts._asdict()})


# --- Reading ---


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name stands twice in one JSON object")
    return members


_decode = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refuse_constant).decode


def read(line: bytes) -> Record:
    """What a line says; ValueError or TypeError where it is none."""
    try:
        members = _decode(line.decode())
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg}, at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(members, dict):
        for kind, (names, of) in _KINDS.items():
            if kind in members:
                if kind == _MARK:
                    _check_format(members)
                if members.keys() != names:
                    raise ValueError(f"with {kind!r} there is {', '.join(sorted(names - {kind}))}")
                return of(members)
    raise ValueError(f"it is none of {', '.join(_KINDS)}")


def _check_format(members: Mapping[str, Any]) -> None:
    """Of another format the header may have other members."""
    found = members.get("format")
    if found != FORMAT:
        raise ValueError(
            f"the dump is of format {shown(found)}, and this statedb reads format {FORMAT}: load it"
            f" with a newer statedb"
        )


def _header(members: Mapping[str, Any]) -> Header:
    dump = members["dump"]
    if members[_MARK] != "dump" or not isinstance(dump, str) or not _DUMP.fullmatch(dump):
        raise ValueError("it is no header of a dump")
    return Header(dump)


def _object(members: Mapping[str, Any]) -> Object:
    return Object(_name(members, "object"), _name(members, "class"))


def _value(members: Mapping[str, Any]) -> Value:
    return Value(_name(members, "key"), members["value"])


def _master(members: Mapping[str, Any]) -> Master:
    active = members["active"]
    if not isinstance(active, bool):
        raise TypeError(f"active is true or false, not {shown(active)}")
    return Master(
        _name(members, "master"),
        active,
        _number(members, "last_active", *_MOMENTS),
        _number(members, "expire_after", 0),
        _number(members, "incarnation", 0),
    )


def _claimed(members: Mapping[str, Any]) -> Claimed:
    return Claimed(_name(members, "kind"), _name(members, "claim"), _number(members, "token", 1))


def _counts(members: Mapping[str, Any]) -> Counts:
    counts = members["end"]
    if not isinstance(counts, dict) or counts.keys() != set(Counts._fields):
        raise ValueError(f"the end says how many {', '.join(Counts._fields)} there are")
    return Counts(*(_number(counts, name, 0) for name in Counts._fields))


def _name(members: Mapping[str, Any], of: str) -> str:
    name: str = members[of]
    encode_name(name, f"the name of the {of}")
    return name


def _number(members: Mapping[str, Any], of: str, least: int, most: int = LARGEST) -> int:
    number = members[of]
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        legal = f"from {least} on" if most == LARGEST else f"from {least} to {most}"
        raise ValueError(f"{of} is a whole number {legal}, not {shown(number)}")
    return number


#: By the member that tells a kind of line: all its members, and what reads them.
_KINDS: Final[Mapping[str, tuple[set[str], Callable[[Mapping[str, Any]], Record]]]] = {
    "key": ({"key", "value"}, _value),
    "object": ({"object", "class"}, _object),
    "master": ({"master", "active", "last_active", "expire_after", "incarnation"}, _master),
    "claim": ({"claim", "kind", "token"}, _claimed),
    "end": ({"end"}, _counts),
    _MARK: ({_MARK, "format", "dump", "schema"}, _header),
}
