"""Values: which are legal, and their JSON as it is stored."""

from __future__ import annotations

import json
from typing import Any

from statedb.errors import InvalidValueError, StoredValueError, ValueTooLargeError
from statedb.names import shown

#: The longest JSON of a value, in characters; even escaped once more it fits every engine's packet.
MAX_VALUE_CHARACTERS = 4 * 1024 * 1024
#: How deeply lists and objects may be nested. Counted here: the encoder's limit varies.
MAX_NESTING = 200

# ASCII only, so that the text survives every charset. Building one takes longer than encoding a
# short value with it.
_encode = json.JSONEncoder(allow_nan=False).encode


def refuse_constant(name: str) -> Any:
    """Refuse NaN and the infinities, which Python reads though they are no JSON."""
    raise ValueError(f"{name} is none")


_decoder = json.JSONDecoder(parse_constant=refuse_constant)
_STR, _SCALARS = frozenset((str,)), frozenset((str, int, bool, type(None)))


class _TooMany(Exception):
    """So many values need more characters than there may be."""


def encode_value(value: Any, objectid: int, name: str) -> str:
    """The JSON of a value that is to be the object's value of that name."""
    try:
        if type(value) not in _SCALARS and not _is_flat(value):
            _check_containers(value)
        text = _encode(value)
    except _TooMany:
        raise ValueTooLargeError(
            f"the value for {shown(name)} of object {shown(objectid)} holds more than"
            f" {MAX_VALUE_CHARACTERS} values, and that many characters of JSON are the most"
        ) from None
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        # Reading a value may run code of the caller's, which may raise anything.
        raise InvalidValueError(
            f"the value for {shown(name)} of object {shown(objectid)} is no JSON: {error}"
        ) from error
    if len(text) > MAX_VALUE_CHARACTERS:
        raise ValueTooLargeError(
            f"the value for {shown(name)} of object {shown(objectid)} has {len(text)} characters of"
            f" JSON, and {MAX_VALUE_CHARACTERS} are the most"
        )
    return text


def _is_flat(value: Any) -> bool:
    """Whether it is a dict of scalars, which most values are: there is nothing to refuse."""
    return (
        type(value) is dict
        and _STR.issuperset(map(type, value))
        and _SCALARS.issuperset(map(type, value.values()))
    )


def _check_containers(value: Any) -> None:
    """Refuse what the encoder lets pass, or refuses only from a depth that varies."""
    level = [value]
    count = 0
    for _ in range(MAX_NESTING):
        deeper: list[Any] = []
        for one in level:
            if isinstance(one, (dict, list, tuple)):
                # A few lists that hold each other many times are more than any memory.
                count += len(one)
                if count > MAX_VALUE_CHARACTERS:
                    raise _TooMany
            if isinstance(one, dict):
                _check_keys(one)
                deeper += [inner for inner in one.values() if type(inner) not in _SCALARS]
            elif isinstance(one, (list, tuple)):
                deeper += [inner for inner in one if type(inner) not in _SCALARS]
        if not deeper:
            return
        level = deeper
    if any(isinstance(one, (dict, list, tuple)) for one in level):
        raise ValueError(f"it is nested more than {MAX_NESTING} levels deep, or holds itself")


def _check_keys(mapping: dict[Any, Any]) -> None:
    seen: dict[str, Any] = {}
    for key in mapping:
        if type(key) is not str:
            break
    else:
        return
    for key in mapping:
        text = _key_text(key)
        if text in seen:
            raise ValueError(f"its keys {shown(seen[text])} and {shown(key)} are one key in JSON")
        seen[text] = key


def _key_text(key: Any) -> str:
    """The string that the encoder makes of a key."""
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (int, float)):
        return _encode(key)
    raise TypeError(f"keys must be str, int, float, bool or None, not {type(key).__name__}")


def decode_value(text: str | bytes, objectid: int, name: str) -> Any:
    """The value of a stored JSON text; bytes where the application's connection gives no str."""
    try:
        if not isinstance(text, str):
            text = text.decode("ascii")
        # What statedb has written is a value and nothing else: no blanks to look for.
        value, end = _decoder.raw_decode(text) if text[:1].strip() else (None, -1)
        return value if end == len(text) else _decoder.decode(text)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, RecursionError) and not _may_be_too_deep(text):
            raise
        raise StoredValueError(
            f"what is stored for {shown(name)} of object {shown(objectid)} is no JSON: {error}"
        ) from error


def _may_be_too_deep(text: str | bytes) -> bool:
    """Whether it may be the text that was too deep, and not the stack of the caller."""
    return isinstance(text, str) and text.count("[") + text.count("{") > MAX_NESTING
