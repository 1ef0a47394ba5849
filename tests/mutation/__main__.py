"""Runs the tests against mutants of the SQL and of the operations, in a copy of the checkout."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
#: The modules whose functions are mutated.
OPERATIONS = (
    *("attempts", "batches", "claims", "detector", "expiry", "masterrows", "masters", "names"),
    *("objects", "place", "resultspec", "sharedcommit", "staterows", "states", "state", "values"),
)
#: Their directories in sql/, beside what is common.
DIRECTORIES = {"sqlite": "sqlite", "postgresql": "postgresql", "mariadb": "mysql", "mysql": "mysql"}
#: These know of no engine, or judge other things than results.
APART = ("benchmarks", "demo", "git_poller", "packaging", "readme", "servers_and_proxy", "typing")


def _path(text: str) -> Path:
    """A path as it is meant: from where the command was given."""
    return Path(os.environ.get("STATEDB_MUTATION", ""), text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=DIRECTORIES)
    parser.add_argument("what", choices=["sql", "python"])
    parser.add_argument("--only", default="", help="what is found in 'FILE STATEMENT'")
    parser.add_argument("--part", default="0/1", help="0/4: the first of each four mutants")
    parser.add_argument("--again", type=_path, help="an earlier output: only what it names")
    parser.add_argument("--seconds", type=float, default=60.0, help="of tests for each mutant")
    parser.add_argument("--record", type=_path, help="where it is kept which tests run what")
    chosen = parser.parse_args()
    if Path.cwd() != CHECKOUT or "STATEDB_MUTATION" not in os.environ:
        return _in_a_copy(chosen.engine)
    return _judge(chosen)


def _in_a_copy(engine: str) -> int:
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        Path(scratch).chmod(0o755)  # servers run as users of their own
        copy, temporary = Path(scratch, "copy"), Path(scratch, "tmp")
        shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "build"))
        temporary.mkdir(0o1777)
        temporary.chmod(0o1777)
        environment = os.environ | {
            "STATEDB_MUTATION": str(Path.cwd()),
            "STATEDB_TEST_ENGINES": engine,
            "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'tests'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(temporary),
        }
        command = [sys.executable, "-m", "mutation", *sys.argv[1:]]
        return subprocess.run(command, cwd=copy, env=environment, check=False).returncode


def _judge(chosen: argparse.Namespace) -> int:
    import pytest

    from mutation import functions, judge, statements

    if chosen.what == "sql":
        directories = [CHECKOUT / "sql" / one for one in ("common", DIRECTORIES[chosen.engine])]
        mutants = [one for directory in directories for one in statements.mutants(directory)]
    else:
        paths = [CHECKOUT / "statedb" / f"{module}.py" for module in OPERATIONS]
        mutants = [one for path in paths for one in functions.mutants(path)]
    mutants = [one for one in mutants if re.search(chosen.only, f"{one.path.stem} {one.subject}")]
    if chosen.again is not None:
        named = chosen.again.read_text("utf-8")
        mutants = [one for one in mutants if str(one) in named]
    first, step = map(int, chosen.part.split("/"))
    record = chosen.record or Path(tempfile.gettempdir(), "uses.json")
    plugin = judge.Judge(mutants[first::step], chosen.seconds, record)
    # Nor tests/faults, which are at something for long: what they would find, a short test should.
    apart = [f"--ignore=tests/{one}" for one in ("faults", *(f"test_{one}.py" for one in APART))]
    plain = ["-qq", "-p", "no:randomly", "-p", "no:xdist", "-s", "--timeout=15"]
    return int(pytest.main([*plain, *apart, "tests"], plugins=[plugin]))


if __name__ == "__main__":
    sys.exit(main())
