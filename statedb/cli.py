"""The command line: ``python -m statedb``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

import statedb
from statedb.database import connect
from statedb.demo import command as demo
from statedb.errors import Error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 it failed, 2 not understood, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "demo":
            demo.run(options.url)
        else:
            _upgrade(options.url)
    except BrokenPipeError:
        # Or Python would try once more, at its end, to write what nobody reads.
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.close()
        return 1
    except KeyboardInterrupt:
        return 130
    except (Error, ValueError, OSError) as error:
        # On one line, which libpq's own messages are not.
        print(f"statedb: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _upgrade(url: str) -> None:
    with connect(url) as db:
        db.upgrade()
        print(f"{db!r} has the tables of statedb {statedb.__version__}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="statedb",
        description="State and masters in a database.",
        epilog="exit code: 0 it is done; 1 it failed, and stderr says in one line why and what to"
        " do; 2 the command is not understood; 130 it was interrupted",
    )
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
    told = commands.add_parser("demo", help=demo.HELP, description=demo.DESCRIPTION)
    told.add_argument("--url", help=demo.URL_HELP)
    return parser
