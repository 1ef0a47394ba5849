"""Endings: what the command line says where it fails, and with which exit code."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Final

from statedb import dialects
from statedb.dialects import Failure
from statedb.errors import (
    CallTimeoutError,
    DatabaseError,
    Error,
    InvalidNameError,
    InvalidResultSpecError,
    InvalidSettingError,
    InvalidURLError,
    InvalidValueError,
    NoSuchObjectError,
    NoSuchStateError,
    OutcomeUnknownError,
    ValueTooLargeError,
)

FAILED: Final = 1
NOT_UNDERSTOOD: Final = 2
NOT_THERE: Final = 3
UNREACHABLE: Final = 4
INTERRUPTED: Final = 130
READER_GONE: Final = 141

#: Whatever stands between a scheme's slashes and an @, but a user's name, may be a password.
_PASSWORD = re.compile(r"(://[^\s:@/]*):.*(?=@)|(?<=password=)[^\s&]*", re.DOTALL)


class NotUnderstood(Error, ValueError):
    """What was asked for cannot be meant."""


class NotThere(Error, LookupError):
    """There is no such object, value or master."""


class DumpError(Error, ValueError):
    """A dump cannot be loaded, or made."""


_NOT_UNDERSTOOD = (
    NotUnderstood,
    InvalidURLError,
    InvalidSettingError,
    InvalidResultSpecError,
    InvalidNameError,
    InvalidValueError,
    ValueTooLargeError,
)
_NOT_THERE = (NotThere, NoSuchObjectError, NoSuchStateError)


def end(error: BaseException, url: str | None) -> int:
    """Say what went wrong on one line of stderr; the exit code."""
    if isinstance(error, OSError):
        _let_go_of_output()
    if isinstance(error, BrokenPipeError):
        return READER_GONE
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if not isinstance(error, (Error, ValueError, OSError)):
        raise error
    complain(error)
    return _code(error, url)


def _let_go_of_output() -> None:
    """Where it cannot be written: or Python would try once more at its end, and complain."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            sys.stdout.close()


def complain(error: BaseException) -> None:
    # On one line, which libpq's own messages are not.
    print(f"statedb: {told(error)}", file=sys.stderr, flush=True)


def told(error: BaseException) -> str:
    """What an error says, on one line and without what may be a password or harm a terminal."""
    words = " ".join(hide_password(str(error)).split())
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in words)


def hide_password(text: str) -> str:
    return _PASSWORD.sub(r"\1", text)


def _code(error: BaseException, url: str | None) -> int:
    if isinstance(error, _NOT_UNDERSTOOD):
        return NOT_UNDERSTOOD
    if isinstance(error, _NOT_THERE):
        return NOT_THERE
    return UNREACHABLE if is_unreachable(error, url) else FAILED


def is_unreachable(error: BaseException, url: str | None) -> bool:
    """Whether the server could not be reached or did not answer in time."""
    if isinstance(error, (CallTimeoutError, OutcomeUnknownError)):
        return True
    if url is None or not isinstance(error, DatabaseError) or error.__cause__ is None:
        return False
    failure = dialects.for_url(url).failure(error.__cause__)
    return failure in (Failure.LOST, Failure.REFUSED)
