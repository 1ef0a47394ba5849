"""The commands that look at a database and change it, each through a second connection."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
import urllib.parse
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import Command, arguments_of
from engines import Engine, OwnServer
from onlooker import Onlooker
from proxy import Proxy

import statedb
from statedb import Database
from statedb.cli import pages, watch
from statedb.cli.output import JSONOutput
from statedb.cli.text import compact_json, lasting, visible, visible_json

MARK = "h1dden"


@pytest.fixture
def command(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs commands on the test's database."""
    monkeypatch.setenv("STATEDB_URL", url)
    return Command(capsys)


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# --- Objects and values ---


def test_upgrade_creates_the_tables_and_says_so(
    engine: Engine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = Command(capsys)
    with engine.empty_database(tmp_path) as empty:
        monkeypatch.setenv("STATEDB_URL", empty)
        assert "statedb upgrade" in command.badly(1, "objects")
        assert "has the tables" in command.well("upgrade")
        assert json.loads(command.well("upgrade", "--json")) == {"statedb": statedb.__version__}
        assert command.well("objects", "--json") == ""


def test_a_sqlite_file_that_is_not_there_is_made_by_upgrade_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "typo.sqlite"
    for arguments in (["objects"], ["set", "--create", "a:B", "k", "1"], ["load"]):
        line = Command(capsys).badly(1, *arguments, "--url", f"sqlite:///{path}")
        assert f"there are no tables in sqlite:///{path}; `statedb upgrade` makes them" in line
    assert not path.exists()


def test_another_programs_sqlite_file_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "its own#?%.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as own:
        own.execute("CREATE TABLE own (name TEXT)")
    before = path.read_bytes()
    url = f"sqlite:///{urllib.parse.quote(str(path))}"
    for arguments in (["objects"], ["set", "--create", "a:B", "k", "1"], ["load"]):
        assert "there are no tables" in Command(capsys).badly(1, *arguments, "--url", url)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    command = Command(capsys)
    said = command.well("upgrade", "--url", url)
    assert said == f"sqlite:///{path} has the tables of statedb {statedb.__version__}\n"
    assert command.well("set", "--create", "a:B", "k", "1", "--url", url) == "1\n"


@pytest.mark.parametrize("command", [["set", "a:B", "k", "-"], ["load"], ["load", "-"]])
def test_a_closed_standard_input_is_one_line(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "statedb", *command, "--url", "sqlite://"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.close(0),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "statedb: standard input is closed\n"


def test_a_closed_standard_output_is_one_line() -> None:
    for command in (["objects"], ["get", "a:B", "k"], ["dump"], ["upgrade"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "statedb", *command, "--url", "sqlite://"],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            preexec_fn=lambda: os.close(1),
        )
        assert (done.returncode, done.stderr) == (1, "statedb: standard output is closed\n")


def test_objects_lists_those_that_are_asked_for_page_by_page(
    command: Command, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "ROWS", 2)
    names = ["nightly", "weekly", "nights", "daily"]
    ids = [db.state.thdGetObjectId(name, "Scheduler") for name in names]
    other = db.state.thdGetObjectId("nightly", "Poller")
    listed = lines(command.well("objects", "--json"))
    assert [one["id"] for one in listed] == [*ids, other]
    assert listed[0] == {"id": ids[0], "class": "Scheduler", "name": "nightly"}
    found = lines(command.well("objects", "--json", "--name", "night", "--class", "Scheduler"))
    assert [one["id"] for one in found] == [ids[0], ids[2]]
    headings, first, *_ = words(command.well("objects"))
    assert headings == ["id", "class", "name"]
    assert first == [str(ids[0]), "Scheduler", "nightly"]


def test_states_lists_the_values_of_one_object(
    command: Command, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "ROWS", 3)
    monkeypatch.setattr(pages, "LONGEST", 20)
    values = {f"k{number}": [number, "x" * number * 10] for number in range(7)}
    for name in ("before", "nightly", "empty", "after"):
        of = {} if name == "empty" else {**values, "of": name}
        db.state.thdSetStates(db.state.thdGetObjectId(name, "B"), of)
    for name in ("nightly", "after"):
        found = lines(command.well("states", "--json", f"{name}:B"))
        assert {one["name"]: one["value"] for one in found} == {**values, "of": name}
        assert len(found) == 8
    objectid = db.state.thdGetObjectId("nightly", "B")
    assert ["of", '"nightly"'] in words(command.well("states", objectid))
    assert command.well("states", "empty:B") == ""
    assert "no object 999999" in command.badly(3, "states", 999999)
    assert "no object a:B" in command.badly(3, "states", "a:B")
    assert "NAME:CLASS" in command.badly(2, "states", "nightly")


def test_an_object_is_split_at_the_last_colon(command: Command, db: Database) -> None:
    db.state.thdSetState(db.state.thdGetObjectId("host:/srv", "B"), "k", 1)
    assert command.well("get", "host:/srv:B", "k") == "1\n"


def test_get_prints_the_value_or_the_default(command: Command, objectid: int, db: Database) -> None:
    db.state.thdSetState(objectid, "k", {"a": [1, "ü"]})
    assert json.loads(command.well("get", objectid, "k")) == {"a": [1, "ü"]}
    assert command.well("get", objectid, "k", "--json") == '{"a": [1, "\\u00fc"]}\n'
    assert command.well("get", objectid, "x", "--default", "null") == "null\n"
    assert command.well("get", "no:Such", "x", "--default", '"d"') == '"d"\n'
    assert "no value named 'x'" in command.badly(3, "get", objectid, "x")
    assert "no object no:Such" in command.badly(3, "get", "no:Such", "k")
    assert "needs its quotes" in command.badly(2, "get", objectid, "k", "--default", "green")


def test_set_writes_what_a_second_connection_reads(
    command: Command,
    objectid: int,
    stored: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command.well("set", objectid, "k", '{"a": "ü"}', "--json") == '{"a": "\\u00fc"}\n'
    assert stored(objectid, "k") == {"a": "ü"}
    monkeypatch.setattr(sys, "stdin", io.StringIO("[1,\n 2]"))
    assert command.well("set", "nightly:Scheduler", "k", "-") == "[1, 2]\n"
    assert stored(objectid, "k") == [1, 2]


@pytest.mark.parametrize("value", ["green", "", "NaN", "[" * 100_000, '"' * 3])
def test_set_refuses_what_is_no_json_and_says_that_a_text_needs_its_quotes(
    command: Command, objectid: int, stored: Callable[..., Any], value: str
) -> None:
    line = command.badly(2, "set", objectid, "k", value)
    assert "needs its quotes" in line
    assert repr(stored(objectid, "k")) == "ABSENT"


def test_set_adds_no_object_unless_told_to(command: Command, second: Any) -> None:
    assert "no object new:B" in command.badly(3, "set", "new:B", "k", "1")
    assert statedb.state.get_objects(second) == []
    assert command.well("set", "new:B", "k", "1", "--create") == "1\n"
    assert command.well("set", "new:B", "k", "2", "--create") == "2\n"
    ((objectid, *names),) = (
        (one.id, one.name, one.class_name) for one in statedb.state.get_objects(second)
    )
    assert names == ["new", "B"]
    assert statedb.state.get_states(second, objectid) == {"k": 2}
    assert "no object 99" in command.badly(3, "set", "99", "k", "1", "--create")


def test_delete_takes_a_value_or_a_whole_object(
    command: Command, objectid: int, db: Database, second: Any
) -> None:
    db.state.thdSetStates(objectid, {"k": 1, "l": 2})
    assert "deleted 'k'" in command.well("delete", objectid, "k")
    assert statedb.state.get_states(second, objectid) == {"l": 2}
    assert "no 'k'" in command.badly(3, "delete", objectid, "k")
    assert "takes a KEY" in command.badly(2, "delete", objectid)
    assert "takes a KEY" in command.badly(2, "delete", objectid, "l", "--object")
    assert command.well("delete", "--object", "nightly:Scheduler", "--json") == "true\n"
    assert statedb.state.get_objects(second) == []
    assert statedb.state.get_states(second, objectid) == {}
    assert "no object" in command.badly(3, "delete", objectid, "l")


# --- Masters ---


def test_masters_tells_who_is_active_and_what_each_holds(command: Command, db: Database) -> None:
    with db.masters.join("host1:/srv", interval=20, expire_after=90) as member:
        member.claim("scheduler", "nightly")
        member.claim("poller", "git")
        away = db.masters.thdFindMasterId("host2:/srv")
        found, other = sorted(lines(command.well("masters", "--json")), key=lambda one: one["id"])
        last = found.pop("last_active")
        assert 0 <= found.pop("silent_for") < 60
        assert last.endswith("+00:00")
        assert found == {
            "id": member.id,
            "name": "host1:/srv",
            "active": True,
            "expire_after": 90.0,
            "holds": [
                {"kind": "poller", "name": "git", "token": 1},
                {"kind": "scheduler", "name": "nightly", "token": 1},
            ],
        }
        assert (other["id"], other["active"], other["holds"]) == (away, False, [])
        (active,) = lines(command.well("masters", "--active", "--json"))
        assert active["name"] == "host1:/srv"
        text = command.well("masters")
        assert "poller git, scheduler nightly" in text
        assert "90 s" not in text.splitlines()[0]
        assert " s ago" in text


def test_claims_lists_what_is_held_by_whom(command: Command, db: Database) -> None:
    with (
        db.masters.join("1234567", interval=20) as ten,
        db.masters.join("host2:/srv", interval=20) as other,
    ):
        ten.claim("scheduler", "nightly")
        other.claim("poller", "git")
        first, last = lines(command.well("claims", "--json"))
        assert first == {"kind": "poller", "name": "git", "masterid": other.id, "token": 1}
        assert last["name"] == "nightly"
        (found,) = lines(command.well("claims", "--json", "--master", "host2:/srv"))
        assert found == first
        (found,) = lines(command.well("claims", "--json", "--master", str(ten.id)))
        assert found == last
        (found,) = lines(command.well("claims", "--json", "--kind", "scheduler"))
        assert found == last
        # No id of ours: the name.
        (found,) = lines(command.well("claims", "--json", "--master", "1234567"))
        assert found == last
        assert "no master nobody" in command.badly(3, "claims", "--master", "nobody")
        assert words(command.well("claims"))[1] == ["poller", "git", str(other.id), "1"]


def test_expire_tells_whom_it_has_expired(command: Command, db: Database, second: Any) -> None:
    silent = db.masters.thdFindMasterId("silent")
    db.masters.thdSetMasterState(silent, True)
    db.masters.thdClaim(silent, "scheduler", "nightly")
    assert command.well("expire", "--json") == ""
    assert Onlooker(second).masters()[silent].active is True
    Onlooker(second).silence(silent)
    (found,) = lines(command.well("expire", "--json", "--after", "60"))
    assert (found["id"], found["name"]) == (silent, "silent")
    assert Onlooker(second).masters()[silent].active is False
    assert Onlooker(second).held_by(silent) == set()
    assert command.well("expire") == "id  name  seen\n"


def test_forget_deletes_an_inactive_master(command: Command, db: Database, second: Any) -> None:
    masterid = db.masters.thdFindMasterId("host1:/srv")
    db.masters.thdSetMasterState(masterid, True)
    assert "is active" in command.badly(1, "forget", "host1:/srv")
    assert set(Onlooker(second).masters()) == {masterid}
    db.masters.thdSetMasterState(masterid, False)
    assert f"forgot master {masterid}, 'host1:/srv'" in command.well("forget", masterid)
    assert Onlooker(second).masters() == {}
    assert "no master host1:/srv" in command.badly(3, "forget", "host1:/srv")


# --- How it is called ---


def test_options_may_stand_before_the_command_or_after_it(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, db: Database
) -> None:
    monkeypatch.delenv("STATEDB_URL", raising=False)
    command = Command(capsys)
    db.state.thdGetObjectId("a", "B")
    there = ["--url", url, "--json", "--timeout", "20"]
    assert command.well(*there, "objects") == command.well("objects", *there) != ""
    monkeypatch.setenv("STATEDB_URL", "sqlite:////no/such/file")
    assert command.well(*there, "objects") == command.well("objects", *there) != ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["objects"],
        ["nonsense"],
        ["get", "a:B"],
        ["--url"],
        ["masters", "--interval", "0"],
        ["expire", "--after", "nan"],
        ["--timeout", "soon", "objects"],
        [f"postgresql://u:{MARK} x@host/d", "objects"],
        ["objects", f"mysql://u:{MARK}@host/d"],
        ["objects", "--after", f"mysql://u:{MARK}@host/d"],
        [f"postgresql:/u:{MARK}@host/d", "objects"],
        [f"u:{MARK}@host/d"],
    ],
)
def test_what_is_not_understood_ends_with_2_and_shows_no_password(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATEDB_URL", raising=False)
    done = Command(capsys)(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("statedb")
    assert MARK not in done.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["objects", "--url", f"oracle://u:{MARK}@host/d"], 2),
        (["objects", "--url", f"mysql://u:{MARK}@host"], 2),
        (["objects", "--url", f"postgresql://u:{MARK}@127.0.0.1:1/d", "--timeout", "0.3"], 4),
        (["masters", "--url", f"mysql://u:{MARK}@127.0.0.1:1/d", "--timeout", "0.3"], 4),
        (["states", f"postgresql://u:{MARK}@host/d:B", "--url", "sqlite://"], 3),
        (["forget", f"postgresql://host/d?password={MARK}", "--url", "sqlite://"], 3),
        (["forget", f"a://u:{MARK}@\n\x1b[2J", "--url", "sqlite://"], 3),
        (["get", "a:", "k", "--url", "sqlite://"], 2),
        (["forget", "\udc80", "--url", "sqlite://"], 2),
        (["objects", "--name", "\udc80", "--url", "sqlite://"], 2),
        (["load", "/no/such/file", "--url", "sqlite://"], 1),
        (["dump", "/no/such/directory/file", "--url", "sqlite://"], 1),
    ],
)
def test_a_failure_is_one_line_without_a_password(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Command(capsys).badly(code, *arguments)
    assert MARK not in line
    assert line.isprintable()


def test_an_account_that_is_refused_is_no_outage_and_its_password_is_not_shown(
    server_engine: OwnServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert server_engine.server is not None
    url = server_engine.server.url("no_such_database")
    scheme, _, rest = url.partition("://")
    place = rest.rpartition("@")[2]
    line = Command(capsys).badly(1, "objects", "--url", f"{scheme}://nobody:{MARK}@{place}")
    assert MARK not in line


def test_a_server_that_does_not_answer_ends_it_with_4(
    far_url: str, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command(capsys)
    assert command.well("objects", "--url", far_url, "--json") == ""
    proxy.stall()
    line = command.badly(4, "objects", "--url", far_url, "--timeout", "0.5")
    assert "0.5 s" in line


def test_help_says_of_each_command_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = Command(capsys).well("--help")
    assert "exit code: 0" in text
    assert "STATEDB_URL is not" in text
    for name in ("upgrade", "states", "set", "masters", "dump", "load"):
        assert f"\n    {name} " in text
        own = Command(capsys).well(name, "--help")
        assert "prints: " in own
        assert f"\n  statedb {name}" in own
    assert Command(capsys).well("--version") == f"statedb {statedb.__version__}\n"


def test_no_process_listing_shows_the_password_of_statedb_url(
    server_engine: OwnServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server_engine.name != "postgresql":
        pytest.skip("it takes a server that asks for no password, and any will do")
    with_password = url.replace("@", f":{MARK}@", 1)
    assert MARK in with_password
    for arguments, environment, shown in (
        ([], with_password, False),
        (["--url", with_password], "", True),
    ):
        monkeypatch.setenv("STATEDB_URL", environment)
        watching = arguments_of("masters", "--watch", "--json", *arguments)
        with subprocess.Popen(watching, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b'{"masters": []}\n'
            assert (MARK in _listing()) is shown
            process.terminate()
            out, err = process.communicate(timeout=60)
            assert (process.returncode, MARK.encode() in out + err) == (143, False)


def _listing() -> str:
    """The command lines of all processes."""
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            texts.append(path.read_bytes().decode(errors="replace"))
    return "\n".join(texts)


# --- How things are shown ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("ünïcödé", "ünïcödé"),
        ("\x1b[31m\x7f\n", "\\u001b[31m\\u007f\\u000a"),
        ("\u202e\u200b\x85", "\\u202e\\u200b\\u0085"),
        ("\U000e0001\ud800", "\\udb40\\udc01\\ud800"),
    ],
)
def test_what_a_terminal_would_act_upon_is_written_out(text: str, shown: str) -> None:
    assert visible(text, "utf-8") == shown
    assert json.loads(visible_json(text, "utf-8")) == text
    assert json.loads(visible_json(text, "ascii")) == text
    assert visible_json(text, "ascii").isascii()
    assert json.loads(compact_json(text)) == text
    assert compact_json(text).isascii()
    assert compact_json(text).isprintable()


def test_a_length_of_time_is_told_in_its_unit() -> None:
    told = [lasting(seconds) for seconds in (-1, 0.25, 1.5, 3, 600, 7200, 86_400 * 3)]
    assert told == ["0.0 s", "0.2 s", "1.5 s", "3 s", "10 min", "2 h", "3 d"]


def test_an_error_that_is_nobodys_fault_but_ours_is_not_hidden(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("ours")

    monkeypatch.setattr(statedb.StateConnector, "thdGetObjects", fail)
    with pytest.raises(AssertionError, match="ours"):
        command("states", "1")


def test_masters_are_watched_round_by_round_into_a_pipe(
    command: Command, db: Database, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the three looks by ``wait``, which adds one, and the last of which is interrupted."""
    joined: list[int] = []

    class Never(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if len(joined) == 2:
                raise KeyboardInterrupt
            joined.append(db.masters.thdFindMasterId(f"host{len(joined)}"))
            return False

    monkeypatch.setattr(watch, "threading", SimpleNamespace(Event=Never))
    done = command("masters", "--watch", "--json", "--interval", "0.01")
    assert (done.code, done.err) == (130, "")
    assert [len(one["masters"]) for one in lines(done.out)] == [0, 1, 2]
    done = command("masters", "--watch")
    assert (done.code, done.err) == (130, "")
    assert done.out.count("host0") == done.out.count("expires after") == 1


def test_who_watches_stops_where_looking_again_mends_nothing() -> None:
    seen: list[Any] = [[], statedb.SchemaError("no table")]

    def look() -> list[Any]:
        one = seen.pop(0)
        if isinstance(one, Exception):
            raise one
        return list(one)

    options = Namespace(interval=0.001, url="sqlite://")
    with pytest.raises(statedb.SchemaError, match="no table"):
        watch.watch({}, look, JSONOutput(), options)
    assert seen == []
