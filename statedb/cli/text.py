"""Text: how names, values and lengths of time are shown to a person, and to a program."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def visible(text: str, encoding: str) -> str:
    """A name with whatever a terminal would act upon, or cannot show, written as ``\\u001b``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one if one.isprintable() and _can_be_written(one, encoding) else _escaped(one)
        for one in text
    )


def visible_json(value: Any, encoding: str) -> str:
    """A value's JSON for a person: letters as they are, all else that needs it escaped."""
    return visible(json.dumps(value, ensure_ascii=False), encoding)


def compact_json(value: Any) -> str:
    """JSON for a program: ASCII, on one line."""
    # The one control character that JSON lets stand.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _can_be_written(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeError:
        return False
    return True


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def lasting(seconds: float) -> str:
    """A length of time in the largest unit of which there are two."""
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.1f} s"


def moment(when: datetime) -> str:
    return when.isoformat(timespec="microseconds")
