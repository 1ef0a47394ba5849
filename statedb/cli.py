"""The command line: ``python -m statedb``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import statedb
from statedb.database import connect
from statedb.errors import Error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 it failed, 2 it was not understood."""
    options = _parser().parse_args(arguments)
    try:
        with connect(options.url) as db:
            db.upgrade()
            print(f"{db!r} has the tables of statedb {statedb.__version__}")
    except (Error, ValueError) as error:
        # On one line, which libpq's own messages are not.
        print(f"statedb: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="statedb", description="State and masters in a database.")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    upgrade = commands.add_parser(
        "upgrade", help="create the tables, or bring them up to date; safe to run again"
    )
    url = os.environ.get("STATEDB_URL")
    upgrade.add_argument(
        "--url",
        default=url,
        required=url is None,
        help="the database, as for statedb.connect(); STATEDB_URL unless given",
    )
    return parser
