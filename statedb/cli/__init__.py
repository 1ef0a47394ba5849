"""The command line: ``statedb``, or ``python -m statedb``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import statedb
from statedb import dialects
from statedb.cli import cluster, dumping, endings, objects
from statedb.cli.output import Output, output
from statedb.cli.parser import parse
from statedb.database import Database, connect
from statedb.demo import command as demo
from statedb.errors import SchemaError
from statedb.signals import ending_on_signals

#: What goes wrong for good is said in one line; what the log warns of would be further ones.
_SILENT: Final = logging.NullHandler()

_Command = Callable[[Database, argparse.Namespace, Output], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code, which ``statedb --help`` explains."""
    logging.getLogger("statedb").addHandler(_SILENT)
    url: str | None = None
    try:
        if sys.stdout is None:
            raise OSError("standard output is closed")
        options = parse(arguments)
        url = options.url
        if options.command == "demo":
            demo.run(url)
        else:
            _check_is_there(options)
            out = output(as_json=options.json)
            with ending_on_signals(), connect(options.url, timeout=options.timeout) as db:
                _COMMANDS[options.command](db, options, out)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return endings.end(error, url)
    return 0


def _check_is_there(options: argparse.Namespace) -> None:
    """Raise where looking would make tables: the name may be misspelt, or another's file."""
    dialect = dialects.for_url(options.url)
    target = dialect.parse(options.url)
    if options.command != "upgrade" and not dialect.is_there(target):
        raise SchemaError(f"there are no tables in {target}; `statedb upgrade` makes them")


def _upgrade(db: Database, options: argparse.Namespace, out: Output) -> None:
    db.upgrade()
    version = statedb.__version__
    target = dialects.for_url(options.url).parse(options.url)
    out.said(f"{target} has the tables of statedb {version}", {"statedb": version})


_COMMANDS: Final[Mapping[str, _Command]] = {
    "upgrade": _upgrade,
    "objects": objects.objects,
    "states": objects.states,
    "get": objects.get,
    "set": objects.set_value,
    "delete": objects.delete,
    "masters": cluster.masters,
    "claims": cluster.claims,
    "expire": cluster.expire,
    "forget": cluster.forget,
    "dump": dumping.dump,
    "load": dumping.load,
}
