"""Things broken on purpose, and whether what statedb promises holds.

Each test has a short form, which every run takes, and a thorough one: ``tox -e faults``.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")

THOROUGH = os.environ.get("STATEDB_TEST_THOROUGH") == "1"


def extent(short: T, thorough: T) -> T:
    """How much of something there is to be."""
    return thorough if THOROUGH else short
