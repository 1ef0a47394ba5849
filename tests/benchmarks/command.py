"""The command: which engines and cases, and what becomes of the table."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import distributions
from pathlib import Path

import statedb
from benchmarks import databases, picture, table
from benchmarks.cases import alone, masters, network, operations, processes, stored, weight
from benchmarks.contest import PEERS, QUICK, THOROUGH, Contest
from benchmarks.databases import ENGINES
from benchmarks.table import Result

CASES: dict[str, Callable[[Contest], Iterator[Result]]] = {
    "get": operations.get,
    "set": operations.set_existing,
    "new": operations.set_new,
    "id": operations.object_id,
    "create": operations.create,
    "update": operations.update,
    "bulk": operations.bulk,
    "alone": alone.alone,
    "processes": processes.processes,
    "network": network.network,
    "stored": stored.stored,
    "masters": masters.masters,
    "weight": weight.weight,
}
PACKAGES = ("psycopg", "PyMySQL", "SQLAlchemy", "diskcache", "sqlitedict")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 1 where a bound is missed and was to be checked."""
    options = _parser().parse_args(arguments)
    if options.one_core:
        # The servers and the other processes, started from here, inherit it.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    about = [_about_the_machine()]
    print(about[0], table.line(table.COLUMNS), sep="\n", flush=True)
    results = []
    for engine in dict.fromkeys(options.engine):
        with databases.running(engine) as own, ExitStack() as stack:
            pace = QUICK if options.quick else THOROUGH
            contest = Contest(own, options.peer, pace, stack)
            about.append(f"{engine} {own.version()}")
            for case in dict.fromkeys(options.case):
                for result in CASES[case](contest):
                    print(table.line(result.cells()), flush=True)
                    results.append(result)
            if "buildbot" in contest.__dict__:
                about.append(f"Buildbot {contest.buildbot.version()}")
    heading = "; ".join(dict.fromkeys(about))
    if options.markdown:
        document = options.markdown.read_text("utf-8") if options.markdown.exists() else ""
        text = table.into_document(table.markdown(results, heading), document)
        options.markdown.write_text(text, "utf-8")
    if options.svg:
        options.svg.write_text(picture.drawn(results), "utf-8")
    return 1 if options.check and any(result.missed for result in results) else 0


def _about_the_machine() -> str:
    parts = [f"statedb {statedb.__version__}", f"Python {platform.python_version()}"]
    found = {one.name: one.version for one in distributions() if one.name in PACKAGES}
    parts += [f"{package} {found[package]}" for package in PACKAGES if package in found]
    cores = len(os.sched_getaffinity(0))
    return "; ".join([*parts, f"{platform.machine()}, {cores} core{'s' * (cores > 1)}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare statedb's speed with what a user would pick instead."
    )
    add = parser.add_argument
    add("--engine", nargs="+", choices=ENGINES, default=ENGINES, help="which; all unless given")
    add("--case", nargs="+", choices=CASES, default=list(CASES), help="which; all unless given")
    add("--peer", nargs="+", choices=PEERS, default=PEERS, help="with whom; all unless given")
    add("--quick", action="store_true", help="see whether it works; the figures say nothing")
    add("--one-core", action="store_true", help="keep all processes on one core")
    add("--svg", type=Path, metavar="FILE", help="draw the table into this file")
    add(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write the table into its place in this file",
    )
    add("--check", action="store_true", help="exit with 1 where a bound is missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
