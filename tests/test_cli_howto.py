"""The how-tos about the command line: what they tell to type does what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import documents
import pytest
from programs import require

import statedb
from statedb import Database
from statedb.cli.manual import COMMANDS

pytestmark = pytest.mark.once

HOWTO = documents.ROOT / "docs" / "howto"
#: What does not end by itself, or copies by an engine's own programs, is run by other tests.
ELSEWHERE = re.compile(r"^pip |--watch|^sqlite3 |^pg_dump |^psql |^mariadb")


def commands(name: str) -> list[str]:
    """The lines of the how-to's blocks for a shell, those that are continued as one."""
    text = (HOWTO / name).read_text("utf-8")
    lines = "".join(documents.blocks(text, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if not ELSEWHERE.search(line)]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that knows ``statedb``, in a directory of its own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "statedb"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m statedb "$@"\n', "utf-8")
    program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "STATEDB_URL": "sqlite:///state.sqlite",
    }


def run(command: str, shell: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", command],
        env=shell,
        cwd=directory,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{command}: {done.stderr}"
    return done.stdout


def _database(directory: Path) -> Database:
    return statedb.connect(f"sqlite:///{directory / 'state.sqlite'}")


def test_what_the_command_line_is_told_to_do_it_does(shell: dict[str, str], tmp_path: Path) -> None:
    require("jq")
    told = commands("command-line.md")
    assert told.pop(0) == "export STATEDB_URL=postgresql://user:password@db.example.org/state"
    assert len(told) > 12
    compared = 0
    for command in told:
        if "forget" in command:
            with _database(tmp_path) as db:
                db.masters.thdFindMasterId("host1:/srv/master")
        line, _, said = command.partition(" # ")
        out = run(line, shell, tmp_path)
        if said.strip().startswith("{"):
            assert out == f"{said.strip()}\n"
            compared += 1
    assert compared == 1
    with _database(tmp_path) as db:
        assert db.state.thdGetObjects() == []
        assert db.masters.thdGetMasters() == []


def test_the_fields_of_json_are_those_that_are_told(shell: dict[str, str], tmp_path: Path) -> None:
    text = (HOWTO / "command-line.md").read_text("utf-8")
    rows = text.partition("| command | an object of |\n|---|---|\n")[2].partition("\n\n")[0]
    with _database(tmp_path) as db:
        db.state.thdSetState(db.state.thdGetObjectId("nightly", "Scheduler"), "k", 1)
        masterid = db.masters.thdFindMasterId("host1:/srv/master")
        db.masters.thdSetMasterState(masterid, True)
        db.masters.thdClaim(masterid, "scheduler", "nightly")
    for row in rows.splitlines():
        command, *told = re.findall(r"`(.*?)`", row)
        more = {"states": " 1", "masters --watch": " | head -1", "expire": " --after 0"}
        out = run(f"statedb {command} --json{more.get(command, '')}", shell, tmp_path)
        (found,) = map(json.loads, out.splitlines())
        fields = [*found, *found["holds"][0]] if "holds" in found else [*found]
        assert fields == told, command
    assert len(rows.splitlines()) == 6


def test_what_is_dumped_as_the_how_to_says_is_loaded_as_it_says(
    shell: dict[str, str], tmp_path: Path
) -> None:
    with _database(tmp_path) as db, statedb.connect(f"sqlite:///{tmp_path / 'other'}") as other:
        objectid = db.state.thdGetObjectId("nightly", "Scheduler")
        db.state.thdSetState(objectid, "k", 1)
        other.upgrade()
        told = commands("backups.md")
        assert len(told) == 4
        for command in told:
            where = "postgresql://user@other.example.org/state"
            run(command.replace(where, "sqlite:///other"), shell, tmp_path)
            if "gzip" in command:
                db.state.thdSetState(objectid, "k", "changed since")
        assert db.state.thdGetState(objectid, "k") == 1
        (found,) = other.state.thdGetObjects()
        assert other.state.thdGetStates(found.id) == {"k": 1}


def test_every_command_is_in_the_how_tos() -> None:
    text = "".join((HOWTO / name).read_text("utf-8") for name in ("command-line.md", "backups.md"))
    assert [name for name in COMMANDS if f"statedb {name}" not in text] == []
