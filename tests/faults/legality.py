"""Legality: which error the contract asks for, where an argument is not legal."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from statedb import InvalidNameError, InvalidTypeError, InvalidValueError

Kinds = list[type[BaseException]]


class Refusal(Exception):
    """An error of one of these kinds is what the contract asks for, and that nothing changes."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        super().__init__(*kinds)
        self.kinds = kinds


class CallbackError(Exception):
    """What a callback of the tests' own raises."""


def refuse(*wrong: Kinds) -> None:
    """Raise where any argument is wrong; which of several is told first is nobody's promise."""
    kinds = [kind for some in wrong for kind in some]
    if kinds:
        raise Refusal(*kinds)


def of_id(value: object) -> Kinds:
    """What is wrong with an id, as are the next two of a name and a value."""
    legal = isinstance(value, int) and not isinstance(value, bool)
    return [] if legal else [InvalidTypeError]


def of_name(value: object) -> Kinds:
    if not isinstance(value, str):
        return [InvalidTypeError]
    text = str.__str__(value)  # whatever a subclass says of itself
    encoded = text.encode(errors="surrogatepass")
    lone = any("\ud800" <= one <= "\udfff" for one in text)
    legal = 0 < len(encoded) <= 65_536 and "\0" not in text and not lone
    return [] if legal else [InvalidNameError]


def of_value(value: object) -> Kinds:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return [InvalidValueError]
    # Of the values that the tests give only flat ones have keys that collide.
    collide = isinstance(value, dict) and len(json.loads(text)) < len(value)
    return [InvalidValueError] if collide else []


def as_json(value: Any) -> Any:
    """What comes back of a value that was stored."""
    return json.loads(json.dumps(value, allow_nan=False))


def call(callback: Callable[..., Any], *arguments: Any) -> Any:
    """What a callback returns; a Refusal where it raises."""
    try:
        return callback(*arguments)
    except CallbackError:
        raise Refusal(CallbackError) from None
