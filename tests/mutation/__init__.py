"""Mutation: each statement and operation changed in small ways, to see that some test fails.

``tox -e mutation`` prints the survivors: changes that no test has noticed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Mutant(NamedTuple):
    """One small change to one file."""

    path: Path
    #: The statement, or the function as "module.name", that it changes; by which tests are chosen.
    subject: str
    #: What was changed, for whoever reads the list of survivors.
    change: str
    #: The whole file, changed.
    text: str

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name} {self.subject}: {self.change}"
