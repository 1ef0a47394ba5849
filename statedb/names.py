"""Names and ids: which are legal, and by what the database knows them."""

from __future__ import annotations

import reprlib
from functools import lru_cache
from hashlib import sha256

from statedb.errors import InvalidNameError, InvalidTypeError

#: The longest name, in bytes of UTF-8.
MAX_NAME_BYTES = 64 * 1024
_SHORT = 100


def encode_name(name: str, what: str) -> bytes:
    """A name as it is stored; ``what`` says in an error whose name it was to be."""
    if not isinstance(name, str):
        raise InvalidTypeError(f"{what} is a str, not {type(name).__name__}: {shown(name)}")
    try:
        # Not name.encode(): a subclass may say what it likes, and is the str that it holds.
        encoded = str.encode(name)
    except UnicodeEncodeError:
        raise InvalidNameError(f"{what} holds a lone surrogate: {shown(name)}") from None
    if not encoded:
        raise InvalidNameError(f"{what} is empty; a name has at least one character")
    if len(encoded) > MAX_NAME_BYTES:
        raise InvalidNameError(
            f"{what} has {len(encoded)} bytes of UTF-8, and {MAX_NAME_BYTES} are the most:"
            f" {shown(name)}"
        )
    if b"\0" in encoded:
        raise InvalidNameError(f"{what} holds a NUL: {shown(name)}")
    return encoded


def decode_name(encoded: bytes) -> str:
    """A stored name. What is no UTF-8 is not of statedb's making, and no legal name's equal."""
    return encoded.decode(errors="surrogateescape")


@lru_cache(maxsize=4096)
def _encode_short_name(name: str, what: str) -> tuple[bytes, bytes]:
    encoded = encode_name(name, what)
    return encoded, name_hash(encoded)


def encode_and_hash(name: str, what: str) -> tuple[bytes, bytes]:
    """A name as it is stored, and its hash; remembered, for programs use few names often."""
    if type(name) is str and len(name) <= _SHORT:
        return _encode_short_name(name, what)
    encoded = encode_name(name, what)
    return encoded, name_hash(encoded)


def name_hash(*encoded: bytes) -> bytes:
    """What decides whether names are the same. No name holds the NUL that parts several."""
    return sha256(b"\0".join(encoded)).digest()


def check_id(value: int, what: str) -> int:
    """An id as the database can look for it: one beyond its integers is no row's, as 0 is."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidTypeError(f"{what} is an int, not {type(value).__name__}: {shown(value)}")
    number = plain_int(value)
    return number if 0 < number < 2**63 else 0


def plain_int(value: int) -> int:
    """The number that an int is: of a subclass, as of an IntEnum, a driver may send other text."""
    return value if type(value) is int else int.__index__(value)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def shown(value: object) -> str:
    """A value for an error's text: its repr, shortened where it is long."""
    try:
        return _short.repr(value)
    except Exception:  # an int of more digits than Python converts
        return f"<{type(value).__name__}>"
