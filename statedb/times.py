"""Times: moments and lengths of time as the database keeps them, in microseconds."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from statedb.errors import InvalidSettingError, InvalidTypeError
from statedb.names import shown

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
#: The longest length of time that is taken, in seconds: more than thirty years.
LONGEST = 10**9


def to_microseconds(moment: datetime) -> int:
    """Since 1970, of an aware datetime."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(since_1970: int) -> datetime:
    """An aware datetime, in UTC."""
    return _EPOCH + since_1970 * _MICROSECOND


def check_seconds(name: str, seconds: float, least: float) -> float:
    """A length of time that a caller gave; ``name`` says in an error what it was to be."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise InvalidTypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    # A NaN is not between either.
    if not least <= seconds <= LONGEST:
        raise InvalidSettingError(
            f"{name} is at least {least:g} and at most {LONGEST:g} seconds, not {shown(seconds)}"
        )
    return float(seconds)


def in_microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
