"""Documents: the programs in them, and running these as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def said(program: str) -> list[str]:
    """What a program says beside its prints that they print."""
    return re.findall(r"# -> (.+)$", program, re.MULTILINE)


def logged(program: str) -> list[str]:
    """What a program says that the log says, on stderr, where nothing else is set up."""
    return re.findall(r"# the log says: (.+)$", program, re.MULTILINE)


def run(program: str, directory: Path, *arguments: str, **environment: str) -> list[str]:
    """What a program prints in a directory; it fails by as much as a warning.

    On stderr is what it says that the log says, and no more.
    """
    path = directory / "program.py"
    path.write_text(program, "utf-8")
    inherited = {key: value for key, value in os.environ.items() if key != "STATEDB_URL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), *arguments],
        cwd=directory,
        env={**inherited, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()) == (0, logged(program))
    return done.stdout.splitlines()
