"""Dumps of a million values: in constant memory, and there and back the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from engines import Engine

from faults import extent
from statedb.names import name_hash

pytestmark = [pytest.mark.once, pytest.mark.timeout(extent(300, 1_800))]

#: How many values one object has, and how many objects share as many among them.
FEW, MANY = 4_000, extent(8_000, 500_000)
EACH = 20
#: How much more memory, in MiB, many values may take than few.
MORE = 10


class Child(NamedTuple):
    """What a command took."""

    seconds: float
    mebibytes: float
    out: str


#: Runs a command, and then tells the most memory that it had. (What wait4 tells of a child is at
#: least what its parent had when it began.)
MEASURED = """
import sys
from pathlib import Path
from statedb.cli import main
code = main()
(peak,) = (one for one in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in one)
print(peak.split()[1], file=sys.stderr)
sys.exit(code)
"""


def run(url: str, *arguments: object) -> Child:
    """What the command took, in a process of its own."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *(str(one) for one in arguments)],
        env={**os.environ, "STATEDB_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Child(time.monotonic() - began, int(done.stderr) / 1024, done.stdout)


def lines(count: int) -> Iterator[str]:
    """A dump of twice as many values: of one object, and of many with some each."""
    yield json.dumps({"statedb": "dump", "format": 1, "dump": f"{count:032x}", "schema": 2})
    yield json.dumps({"object": "one", "class": "Large"})
    # In the order in which a dump has them.
    names = sorted((f"value {number}" for number in range(count)), key=_hash)
    for name in names:
        yield json.dumps({"key": name, "value": {"name": name, "list": [1, 2, 3], "x": "y" * 40}})
    own = sorted((f"k{number}" for number in range(EACH)), key=_hash)
    for number in range(count // EACH):
        yield json.dumps({"object": f"object {number}", "class": "Small"})
        for name in own:
            yield json.dumps({"key": name, "value": number})
    counts = {"objects": 1 + count // EACH, "values": 2 * count, "masters": 0, "claims": 0}
    yield json.dumps({"end": counts})


def _hash(name: str) -> bytes:
    return name_hash(name.encode())


def contents(path: Path) -> int:
    """A sum over all that a dump says, in whatever order its objects come."""
    total, whose = 0, ""
    with path.open(encoding="utf-8") as file:
        next(file)  # each dump's own
        for line in file:
            whose = whose if line.startswith('{"key"') else line
            total += int.from_bytes(hashlib.sha256(f"{whose}{line}".encode()).digest(), "big")
    return total


WAYS = extent({"resume": ["--resume"]}, {"whole": [], "resume": ["--resume"]})


@pytest.mark.parametrize("resume", WAYS.values(), ids=WAYS)
def test_many_values_are_loaded_and_dumped_in_the_memory_of_few(
    engine: Engine, tmp_path: Path, resume: list[str]
) -> None:
    took: dict[str, list[Child]] = {"load": [], "dump": []}
    for count in (FEW, MANY):
        written, dumped = tmp_path / "written.jsonl", tmp_path / "dumped.jsonl"
        with written.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines(count))
        with engine.empty_database(tmp_path) as url:
            run(url, "upgrade")
            took["load"].append(run(url, "load", written, *resume))
            assert f"{2 * count} values" in took["load"][-1].out
            took["dump"].append(run(url, "dump", dumped))
            assert contents(dumped) == contents(written)
    for what, (few, many) in took.items():
        print(
            f"{engine.name} {what} {' '.join(resume)}: {2 * MANY} values in {many.seconds:.1f} s,"
            f" {many.mebibytes:.0f} MiB ({2 * FEW}: {few.seconds:.1f} s, {few.mebibytes:.0f} MiB)"
        )
        assert many.mebibytes < few.mebibytes + MORE
