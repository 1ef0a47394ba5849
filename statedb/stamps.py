"""Stamps: random numbers by which a write is known for whose it was."""

from __future__ import annotations

import os


def new_stamp() -> int:
    """A number that nobody else draws.

    It is not of ``random``, which an application may have seeded alike in every process.
    """
    return int.from_bytes(os.urandom(8), "big") >> 1
