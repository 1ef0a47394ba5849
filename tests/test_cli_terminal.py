"""The command line in a process: under a terminal, into a pipe, with and without rich."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import arguments_of, terminal

import statedb

pytestmark = pytest.mark.once

ESCAPE = "\x1b["
CURSOR_SHOWN = "\x1b[?25h"
CURSOR_HIDDEN = "\x1b[?25l"
UP_A_LINE = "\x1b[1A"

each_way = pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database with an object, ``nightly:Scheduler``, whose names would do harm to a terminal."""
    url = f"sqlite:///{tmp_path / 'test.sqlite'}"
    monkeypatch.setenv("STATEDB_URL", url)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    # So that there is something left to write at a process's end.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with statedb.connect(url) as db:
        objectid = db.state.thdGetObjectId("nightly", "Scheduler")
        db.state.thdSetStates(objectid, {"k\x1b[2J": "v\x1b[2J[bold]ü", "long": "x" * 2_000})
        yield url


def run(*arguments: object, rich: bool = True, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments_of(*arguments, rich=rich),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        **settings,
    )


@each_way
def test_a_table_under_a_terminal_has_lines_where_there_is_rich(url: str, rich: bool) -> None:
    with terminal("states", 1, rich=rich) as shown:
        text = shown.read_all()
    assert shown.process.returncode == 0
    assert "k\\u001b[2J" in text
    assert "v\\u001b[2J[bold]ü" in text
    assert f"{ESCAPE}2J" not in text
    assert ("┃" in text) is rich
    assert (ESCAPE in text) is rich
    # Rich's cells are cut.
    assert (text.count("x") < 1_000) is rich


@each_way
def test_a_value_under_a_terminal_can_be_copied(url: str, rich: bool) -> None:
    with terminal("get", 1, "long", rich=rich) as shown:
        text = shown.read_all()
    assert "x" * 2_000 in text
    assert (ESCAPE in text) is rich


@each_way
def test_into_a_pipe_everything_is_plain(url: str, rich: bool) -> None:
    done = run("states", 1, rich=rich)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["name", "value"]
    assert "\x1b" not in done.stdout
    assert "x" * 2_000 in done.stdout


def test_json_under_a_terminal_is_plain(url: str) -> None:
    with terminal("--json", "objects") as shown:
        text = shown.read_all()
    assert json.loads(text) == {"id": 1, "class": "Scheduler", "name": "nightly"}
    assert "\x1b" not in text


def test_what_cannot_be_written_in_the_terminals_encoding_is_escaped(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run("get", 1, "k\x1b[2J")
    assert (done.returncode, done.stdout) == (0, '"v\\u001b[2J[bold]\\u00fc"\n')


@each_way
def test_a_failure_under_a_terminal_is_one_line(url: str, rich: bool) -> None:
    with terminal("get", 2, "k", rich=rich) as shown:
        text = shown.read_all()
    assert shown.process.returncode == 3
    assert text == "statedb: there is no object 2; `statedb objects` lists them\r\n"


# --- Watching ---


def test_a_watched_table_is_redrawn_until_an_interrupt_which_gives_back_the_terminal(
    url: str,
) -> None:
    with statedb.connect(url) as db, terminal("masters", "--watch", "--interval", 0.05) as shown:
        shown.read_until("holds")
        db.masters.thdFindMasterId("late\x1b[2J")
        text = shown.read_until("late\\u001b[2J")
        assert CURSOR_HIDDEN in text
        assert CURSOR_SHOWN not in text
        shown.process.send_signal(signal.SIGINT)
        text = shown.read_all()
        assert shown.process.wait(60) == 130
    assert CURSOR_SHOWN in text
    assert UP_A_LINE in text
    assert "Traceback" not in text


def test_without_rich_a_watched_table_is_a_block_a_round(url: str) -> None:
    with terminal("masters", "--watch", "--interval", 0.05, rich=False) as shown:
        shown.read_until("expires after", times=3)
        shown.process.send_signal(signal.SIGINT)
        text = shown.read_all()
        assert shown.process.wait(60) == 130
    assert "\x1b" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize("how", ["rich", "plain", "json"])
def test_who_watches_is_told_of_an_outage_and_looks_again(tmp_path: Path, how: str) -> None:
    path = tmp_path / "journal.sqlite"
    # A writer who is ending his transaction has a rollback journal's readers wait.
    url = f"sqlite:///{path}?journal_mode=delete"
    with statedb.connect(url) as db:
        db.masters.thdFindMasterId("before")
    arguments = ["--watch", "--interval", 0.05, "--timeout", 0.3, "--url", url]
    arguments += ["--json"] if how == "json" else []
    with terminal("masters", *arguments, rich=how == "rich") as shown:
        shown.read_until("before")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as own:
            own.execute("BEGIN EXCLUSIVE")
            shown.read_until("did not get")
            own.execute("UPDATE statedb_masters SET name = CAST('after' AS BLOB)")
            own.execute("COMMIT")
        shown.read_until("after")
        shown.process.send_signal(signal.SIGINT)
        shown.read_all()
        assert shown.process.wait(60) == 130


# --- Pipes and interrupts ---


def test_who_reads_no_further_ends_a_dump_and_a_list_with_141(url: str) -> None:
    with statedb.connect(url) as db:
        db.state.thdSetStates(1, {f"k{number}": "x" * 1_000 for number in range(500)})
    for arguments in (["dump"], ["states", "1"], ["states", "1", "--json"]):
        with subprocess.Popen(
            arguments_of(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert process.wait(60) == 141


def test_whoever_watches_for_nobody_ends_with_141(url: str) -> None:
    with subprocess.Popen(
        arguments_of("masters", "--watch", "--interval", 0.01),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("arguments", [["objects"], ["dump"], ["dump", "/dev/full"]])
def test_a_disk_that_is_full_is_one_line(url: str, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            arguments_of(*arguments),
            stdout=subprocess.PIPE if "/dev/full" in arguments else full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "statedb: [Errno 28] No space left on device\n"


def _dump(path: Path, values: int) -> None:
    """A dump whose last line never comes."""
    header = {"statedb": "dump", "format": 1, "dump": "0" * 32, "schema": 2}
    lines = [header, {"object": "loaded", "class": "B"}]
    lines += [{"key": f"k{number}", "value": number} for number in range(values)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")


@each_way
def test_progress_is_seen_under_a_terminal_where_there_is_rich(
    url: str, tmp_path: Path, rich: bool
) -> None:
    with statedb.connect(url) as db:
        db.state.thdSetStates(1, {f"k{number}": "x" * 1_000 for number in range(1_100)})
    file = tmp_path / "dump.jsonl"
    for command, what in (("dump", "dumping"), ("load", "loading")):
        with terminal(command, file, rich=rich) as shown:
            text = shown.read_all()
        assert shown.process.returncode == 0
        assert (what in text) is rich
        assert ("%" in text) is rich
        assert f"{what.replace('ing', 'ed')} 1 objects, 1102 values" in text
    unseen: list[list[object]] = [["dump"], ["dump", file, "--json"]]
    for arguments in unseen:
        with terminal(*arguments, rich=rich) as shown:
            assert "dumping" not in shown.read_all()
        assert shown.process.returncode == 0
    # Seen on stderr alone, while the dump goes into a pipe.
    with terminal("dump", rich=rich, stdout=subprocess.PIPE) as shown:
        assert shown.process.stdout is not None
        assert shown.process.stdout.read().count(b"\n") == 1_105
        assert ("dumping" in shown.read_all()) is rich


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_dump_leaves_the_file_that_was_there(
    url: str, tmp_path: Path, number: int, code: int
) -> None:
    with statedb.connect(url) as db:
        db.state.thdSetStates(1, {f"k{number}": "x" * 10_000 for number in range(3_000)})
    directory = tmp_path / "dumps"
    directory.mkdir()
    file = directory / "dump.jsonl"
    file.write_text("earlier", "utf-8")
    with subprocess.Popen(arguments_of("dump", file), stderr=subprocess.PIPE) as process:
        while len(list(directory.iterdir())) < 2:
            assert process.poll() is None
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == code
    assert file.read_text("utf-8") == "earlier"
    assert list(directory.iterdir()) == [file]


def test_who_is_not_to_hear_of_a_hangup_does_not(url: str) -> None:
    with subprocess.Popen(
        ["nohup", *arguments_of("masters", "--watch", "--json", "--interval", 0.01)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        for _ in range(20):
            assert process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(60) == 143


@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["whole", "resume"])
def test_an_interrupted_load_has_written_nothing_or_goes_on(
    url: str, tmp_path: Path, resume: list[str]
) -> None:
    file = tmp_path / "dump.jsonl"
    _dump(file, 9_000)
    with subprocess.Popen(
        arguments_of("load", *resume), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(file.read_bytes())
        process.stdin.flush()
        # It waits for the next line, in the midst of its work.
        with statedb.connect(f"{url}") as db:
            if resume:
                objectid = db.state.thdGetObjectId("loaded", "B")
                while len(db.state.thdGetStates(objectid)) < 7_000:
                    assert process.poll() is None
            else:
                _wait_until_it_writes(process, url)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == 130
    with statedb.connect(url) as db:
        names = [one.name for one in db.state.thdGetObjects()]
    assert ("loaded" in names) is bool(resume)
    with file.open("a", encoding="utf-8") as more:
        counts = {"objects": 1, "values": 9_000, "masters": 0, "claims": 0}
        more.write(json.dumps({"end": counts}))
    assert run("load", *resume, file).returncode == 0
    with statedb.connect(url) as db:
        objectid = db.state.thdGetObjectId("loaded", "B")
        assert len(db.state.thdGetStates(objectid)) == 9_000
        assert [one.class_name for one in db.state.thdGetObjects()] == ["Scheduler", "B"]


def _wait_until_it_writes(process: subprocess.Popen[bytes], url: str) -> None:
    """Until it has the one turn to write."""
    path = url.removeprefix("sqlite:///")
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as own,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        while process.poll() is None:
            own.execute("BEGIN IMMEDIATE")
            own.execute("ROLLBACK")
            time.sleep(0.01)
