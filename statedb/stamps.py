"""Stamps: random numbers by which a write is known for whose it was."""

from __future__ import annotations

import os
import struct

# Drawn several at once: asking the system for each would take as long as looking a value up.
_AT_ONCE = struct.Struct("64Q")
_drawn: list[int] = []


def new_stamp() -> int:
    """A number that nobody else draws.

    It is not of ``random``, which an application may have seeded alike in every process.
    """
    try:
        return _drawn.pop()
    except IndexError:
        first: int
        first, *others = (number >> 1 for number in _AT_ONCE.unpack(os.urandom(_AT_ONCE.size)))
        _drawn.extend(others)
        return first


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    # Parent and child must not draw the same.
    os.register_at_fork(after_in_child=_drawn.clear)
