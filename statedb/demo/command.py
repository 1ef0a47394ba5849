"""The command: what the demo's user asks for, gets, and is rid of afterwards."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
import urllib.parse
import uuid
from pathlib import Path

from statedb import dialects
from statedb.database import Database, connect
from statedb.demo.company import Company
from statedb.demo.facts import DidNotHappen
from statedb.demo.scene import forget
from statedb.demo.story import PATIENCE, Story
from statedb.errors import Error, InvalidURLError
from statedb.signals import ending_on_signals

HELP = "watch three processes share a database: one is killed, one stopped; within 20 seconds"
DESCRIPTION = """
Three processes join one database, agree on a cluster id, divide six schedulers among themselves,
and record what is new in a git repository, which the demo makes. One is killed; another is stopped
until it has expired, and continued: the others take over, and what was stopped writes nothing any
more. All of it is looked at through a connection of the demo's own; if anything does not happen,
it says what, and exits with 1. It needs git, and ends within 20 seconds.
"""
URL_HELP = """
the database, as for statedb.connect(); its tables are made, or brought up to date. At the end the
demo deletes its masters and objects; the rows of its claims stay, held by nobody, since tokens
never go backwards. While it runs, its masters are members like any other, and may be told that one
of another program's has expired. Without --url it is a file in a temporary directory: STATEDB_URL
is not looked at, so that nobody's database is touched unasked
"""

#: Seconds that making the tables may take.
_UPGRADE_PATIENCE = 8.0


def run(url: str | None) -> None:
    """Tell the story on standard output; raises DidNotHappen, or another Error, where it fails."""
    if not hasattr(signal, "SIGSTOP"):
        raise DidNotHappen("the demo stops a process with SIGSTOP, which this system does not have")
    started = time.monotonic()
    # In the names of all that is this run's, so that several may go on in one database.
    name = f"demo-{uuid.uuid4().hex[:12]}"
    with ending_on_signals(), tempfile.TemporaryDirectory(prefix="statedb-demo-") as temporary:
        directory = Path(temporary)
        database = url
        if database is None:
            database = f"sqlite:///{urllib.parse.quote(str(directory / 'demo.db'))}"
        dialect = dialects.for_url(database)
        if dialect.in_memory(dialect.parse(database)):
            raise InvalidURLError("three processes cannot share a database in one's memory")
        with connect(database, pool_size=1, timeout=_UPGRADE_PATIENCE) as db:
            db.upgrade()
        with connect(database, pool_size=2, timeout=PATIENCE) as db:
            company = Company(started)
            try:
                Story(company, db, database, name, directory / "repository").tell()
            except BaseException:
                company.end()
                if url is not None:
                    _forget_if_possible(db, name)
                raise
            company.end()
            if url is not None:
                db.run(forget, name)
            company.say(f"All of it happened, in {time.monotonic() - started:.1f} seconds.")


def _forget_if_possible(db: Database, name: str) -> None:
    try:
        db.run(forget, name)
    except Error as error:
        # What went wrong before is what the user is to see last.
        print(f"statedb: {name} stays in the database: {error}", file=sys.stderr)
