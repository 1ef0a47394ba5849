"""Copies by the engines' own programs, as docs/howto/backups.md tells to make and restore them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import documents
import pytest
from engines import Engine
from programs import require

import statedb
from statedb import Database

pytestmark = pytest.mark.once

PAGE = (documents.ROOT / "docs" / "howto" / "backups.md").read_text("utf-8")
#: What begins the block of an engine.
PROGRAMS = {"sqlite": "sqlite3", "postgresql": "pg_dump", "mariadb": "mariadb-dump"}
NAMES = ["plain", "ünïcode ☃ 𝄞", "\n\r\t\\'\"`;--%s?:x", "x" * 5000, "\x01\x1a\x7f"]
VALUES = {name: [number, name, None, {"😀": 0.1}] for number, name in enumerate(NAMES)}


@contextlib.contextmanager
def two_databases(engine: Engine, directory: Path) -> Iterator[tuple[str, str]]:
    """The URLs of one with tables, and of an empty one, into which a copy is to go."""
    if engine.name == "sqlite":
        yield f"sqlite:///{directory / 'state.sqlite'}", f"sqlite:///{directory / 'copy.sqlite'}"
    else:
        with engine.empty_database(directory) as url, engine.empty_database(directory) as other:
            yield url, other


def commands(engine: Engine) -> str:
    (block,) = [
        block
        for block in documents.blocks(PAGE, "sh")
        if block.startswith(f"{PROGRAMS[engine.name]} ")
    ]
    return block


def run(script: str, engine: Engine, url: str, directory: Path) -> None:
    """Run the page's lines, told by their usual ways which server it is."""
    parts = urllib.parse.urlsplit(url)
    environment = {**os.environ, "HOME": str(directory)}
    if engine.name == "sqlite":
        require("sqlite3")
    elif engine.name == "postgresql":
        environment |= {"PGHOST": f"{parts.hostname}", "PGPORT": f"{parts.port}"}
        environment |= {"PGUSER": f"{parts.username}"}
    else:
        (directory / ".my.cnf").write_text(
            f"[client]\nprotocol=tcp\nhost={parts.hostname}\nport={parts.port}\n"
            f"user={parts.username}\npassword={parts.password or ''}\n",
            "utf-8",
        )
    done = subprocess.run(
        ["sh", "-ec", script],
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def everything(db: Database) -> Any:
    objects = db.state.thdGetObjects()
    return (
        [(one, db.state.thdGetStates(one.id)) for one in objects],
        db.masters.thdGetMasters(),
        db.masters.thdGetClaims(),
    )


def test_a_copy_by_the_engines_own_program_holds_everything(engine: Engine, tmp_path: Path) -> None:
    if engine.name not in PROGRAMS:
        pytest.skip("the page's programs are PostgreSQL's, MariaDB's and SQLite's")
    script = commands(engine)
    with contextlib.ExitStack() as stack:
        url, other = stack.enter_context(two_databases(engine, tmp_path))
        db = stack.enter_context(statedb.connect(url))
        db.upgrade()
        for name in NAMES:
            objectid = db.state.thdGetObjectId(name, "Object")
            db.state.thdSetStates(objectid, VALUES)
        for master in ("gone", "there"):
            masterid = db.masters.thdFindMasterId(master)
            db.masters.thdSetMasterState(masterid, True)
            token = db.masters.thdClaim(masterid, "scheduler", NAMES[1]).token
            if master == "gone":
                db.masters.thdSetMasterState(masterid, False)
        before = everything(db)
        for name, given in (("state", url), ("other", other)):
            script = re.sub(rf" {name} ", f" {given.rpartition('/')[2]} ", script)
        # While the Database is open, as the page says.
        run(script, engine, url, tmp_path)
        copy = stack.enter_context(statedb.connect(other))
        copy.upgrade()
        assert everything(copy) == before
        # The counters from which ids and tokens are drawn go on.
        assert copy.state.thdGetObjectId("new", "Object") > objectid
        assert copy.masters.thdFindMasterId("new") > masterid
        (statements,) = documents.blocks(PAGE, "sql")
        with contextlib.closing(engine.connect(other, autocommit=True)) as own:
            for statement in statements.split(";")[:-1]:
                own.cursor().execute(statement)
        assert [one.name for one in copy.masters.thdGetMasters() if one.active] == []
        assert copy.masters.thdGetClaims() == []
        assert copy.masters.thdSetMasterState(masterid, True) is True
        assert copy.masters.thdClaim(masterid, "scheduler", NAMES[1]).token > token + 1_000_000
