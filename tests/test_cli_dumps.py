"""Dumps: what is dumped and loaded again is the same, and what is no dump changes nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Command
from conftest import LOCKED
from engines import Engine
from interposed import interpose
from onlooker import Onlooker
from proxy import Proxy

import statedb
from statedb import ClaimLostError, Database, cli
from statedb.cli import batch, pages, reader
from statedb.names import name_hash

DUMP = "0123456789abcdef" * 2
#: The statement alone: READ COMMITTED is in others.
COMMIT = re.compile("^COMMIT")
HEADER = {"statedb": "dump", "format": 1, "dump": DUMP, "schema": 2}


@pytest.fixture
def command(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs commands on the test's database."""
    monkeypatch.setenv("STATEDB_URL", url)
    return Command(capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dump.jsonl"


@pytest.fixture
def other(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """The URL of another database."""
    with engine.database(tmp_path) as url:
        yield url


def write(file: Path, *records: Any, end: bool = True, header: Any = HEADER) -> Path:
    """Write a dump of these records; bytes are lines as they are."""
    counted = {"objects": "object", "values": "key", "masters": "master", "claims": "claim"}
    of = [one for one in records if isinstance(one, dict)]
    counts = {name: sum(key in one for one in of) for name, key in counted.items()}
    whole = [header, *records, *([{"end": counts}] if end else [])]
    lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in whole]
    file.write_bytes(b"\n".join([*lines, b""]))
    return file


def object_(name: str, class_name: str = "B") -> dict[str, Any]:
    return {"object": name, "class": class_name}


def value(name: str, value: Any) -> dict[str, Any]:
    return {"key": name, "value": value}


def master(name: str, incarnation: int = 1) -> dict[str, Any]:
    return {
        "master": name,
        "active": True,
        "last_active": 1_700_000_000_000_000,
        "expire_after": 60_000_000,
        "incarnation": incarnation,
    }


def claim(name: str, token: int, kind: str = "scheduler") -> dict[str, Any]:
    return {"claim": name, "kind": kind, "token": token}


def contents(second: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """All objects with their values, as a second connection sees them."""
    return {
        (one.name, one.class_name): statedb.state.get_states(second, one.id)
        for one in statedb.state.get_objects(second)
    }


def records_of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


# --- There and back ---

LONG = "ü\"\\'%s\n" * 9_000
ODD_NAMES = ["a", "A", "a ", "ä", "a\u0308", "'; --", "\x1b[31m", "\U0001f600", "x" * 65_536]
ODD_VALUES = [None, True, 1.5e300, 10**40, "\ud800\0", [[], {}, {"b": 1, "a": [2]}], LONG, "\x7f"]


def test_what_is_dumped_is_loaded_into_another_database(
    engine: Engine,
    command: Command,
    db: Database,
    other: str,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "ROWS", 3)
    monkeypatch.setattr(batch, "MOST_LINES", 10)
    for name in ODD_NAMES:
        objectid = db.state.thdGetObjectId(name, "B")
        db.state.thdSetStates(objectid, dict(zip(ODD_NAMES, ODD_VALUES, strict=False)))
        masterid = db.masters.thdFindMasterId(name)
        for active in (True, False):
            db.masters.thdSetMasterState(masterid, active)
    db.state.thdGetObjectId("empty", "B")
    with db.masters.join("host1:/srv", interval=20, expire_after=90) as member:
        for name in ODD_NAMES:
            member.claim("scheduler", name)
        assert "10 objects, 72 values, 10 masters" in command.well("dump", file)
    db.masters.thdFindMasterId("never")
    text = file.read_text("utf-8")
    first, *rest, end = records_of(text)
    assert (first["format"], first["schema"], len(first["dump"])) == (1, 2, 32)
    assert end == {"end": {"objects": 10, "values": 72, "masters": 10, "claims": 9}}
    claimed = [(one["kind"], one["claim"]) for one in rest if "claim" in one]
    assert sorted(claimed) == sorted(("scheduler", name) for name in ODD_NAMES)
    standings = {one["master"]: one for one in rest if "master" in one}
    it = standings.pop("host1:/srv")
    assert (it["active"], it["expire_after"], it["incarnation"]) == (True, 90_000_000, 1)
    assert {(it["active"], it["expire_after"]) for it in standings.values()} == {(False, 0)}
    assert set(standings) == set(ODD_NAMES)
    assert "9 claims" in command.well("load", file, "--url", other)
    with contextlib.closing(engine.connect(other, autocommit=True)) as second:
        with contextlib.closing(engine.connect(os.environ["STATEDB_URL"], autocommit=True)) as own:
            assert contents(second) == contents(own)
        there = {it.name: it.active for it in statedb.masters.get_masters(second)}
        assert there == dict.fromkeys([*ODD_NAMES, "host1:/srv"], False)
        assert Onlooker(second).claims() == dict.fromkeys(ODD_NAMES, (None, 1))
    again = records_of(command.well("dump", "--url", other))

    def by_text(records: list[Any]) -> list[str]:
        return sorted(json.dumps({**one, "active": None}) for one in records)

    assert by_text(again[1:]) == by_text([*rest, end])
    assert again[0]["dump"] != first["dump"]


def test_a_dump_is_as_of_one_moment(
    command: Command, db: Database, objectid: int, second: Any, tmp_path: Path
) -> None:
    """What reads the dump reads its first bytes, and goes on once everything is changed."""
    before = {f"k{number}": "x" * 10_000 for number in range(100)}
    db.state.thdSetStates(objectid, before)
    db.masters.thdFindMasterId("before")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []

    def change() -> None:
        with fifo.open("rb") as dump:
            read.append(dump.read(1))
            db.state.thdSetStates(objectid, dict.fromkeys(before, "y"))
            db.state.thdDeleteState(objectid, "k7")
            db.state.thdSetState(db.state.thdGetObjectId("later", "B"), "k", 1)
            db.masters.thdFindMasterId("later")
            read.append(dump.read())

    changing = threading.Thread(target=change)
    changing.start()
    command.well("dump", fifo)
    changing.join()
    found = records_of(b"".join(read).decode())
    assert [one["object"] for one in found if "object" in one] == ["nightly"]
    assert {one["key"]: one["value"] for one in found if "key" in one} == before
    assert [one["master"] for one in found if "master" in one] == ["before"]
    assert set(statedb.state.get_states(second, objectid).values()) == {"y"}


def test_what_writes_is_refused_within_a_snapshot(db: Database, objectid: int, second: Any) -> None:
    writes: list[Callable[[statedb.connection.Connection], Any]] = [
        lambda conn: db.state.thdSetState(objectid, "k", 1),
        lambda conn: db.state.setStates(objectid, {"k": 1}).result(),
        lambda conn: db.state.thdAtomicCreateState(objectid, "k", lambda: 1),
        lambda conn: db.state.thdUpdateState(objectid, "k", lambda value: value, 1),
        lambda conn: db.state.thdGetObjectId("another", "B"),
        lambda conn: db.masters.thdFindMasterId("one"),
        lambda conn: db.masters.thdExpireMasters(),
        lambda conn: db.transaction().__enter__(),
        lambda conn: db.masters.thdHoldClaim(statedb.Claim("kind", "name", 1, 1)),
        lambda conn: db.run(statedb.state.set_state, objectid, "k", 1),
        lambda conn: statedb.state.set_state(conn, objectid, "k", 1),
        lambda conn: statedb.state.set_states(conn, objectid, {"k": 1}),
        lambda conn: conn.execute("DELETE FROM statedb_objects"),
        lambda conn: conn.execute_many("DELETE FROM statedb_objects", [()]),
    ]
    for write in writes:
        with db.snapshot() as conn:
            with pytest.raises(statedb.UnusableConnectionError, match="nothing can be written"):
                write(conn)
            assert db.state.thdGetStates(objectid) == {}
        with (
            pytest.raises(statedb.UnusableConnectionError, match="nothing can be written"),
            db.snapshot() as conn,
        ):
            write(conn)
    # What comes after a snapshot writes again, whatever the connection.
    assert [db.state.thdSetState(objectid, "k", number) for number in range(8)] == [*range(8)]
    with db.transaction():
        db.state.thdSetState(objectid, "l", 1)
    assert statedb.state.get_states(second, objectid) == {"k": 7, "l": 1}
    assert contents(second) == {("nightly", "Scheduler"): {"k": 7, "l": 1}}


def test_a_snapshot_begins_at_once_and_not_within_a_transaction(
    db: Database, objectid: int, second: Any
) -> None:
    with db.snapshot() as conn:
        statedb.state.set_state(second, objectid, "k", 1)
        assert db.state.thdGetStates(objectid) == {}
        with pytest.raises(statedb.UnusableConnectionError, match="within a transaction"):
            conn.snapshot()
        with pytest.raises(statedb.UnusableConnectionError, match="within a transaction"):
            db.snapshot().__enter__()
    assert db.state.thdGetStates(objectid) == {"k": 1}


def test_a_dump_that_loses_its_server_says_so_and_leaves_no_file(
    command: Command, far_url: str, proxy: Proxy, file: Path
) -> None:
    proxy.cut_before("FROM statedb_masters")
    line = command.badly(4, "dump", file, "--url", far_url)
    assert "failed" in line
    assert list(file.parent.glob("*.jsonl*")) == []


def test_a_file_appears_whole_and_for_its_owner_only(
    command: Command, objectid: int, file: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    for name in (file, link, file):
        command.well("dump", name)
        assert file.read_bytes().count(b"\n") == 3
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert json.loads(command.well("dump", "/dev/null", "--json"))["objects"] == 1
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("column", ["value", "name"])
def test_what_somebody_else_has_stored_and_no_load_would_take_is_not_dumped(
    engine: Engine,
    command: Command,
    db: Database,
    objectid: int,
    second: Any,
    file: Path,
    column: str,
) -> None:
    db.state.thdSetState(objectid, "k", 1)
    binary = "'\\xff'" if engine.name.startswith("postgresql") else "X'FF'"
    broken = {"value": "'{'", "name": binary}[column]
    second.cursor().execute(f"UPDATE statedb_states SET {column} = {broken}")
    line = command.badly(1, "dump", file)
    assert f"object {objectid}" in line
    assert not file.exists()


def test_json_that_somebody_else_has_stored_in_his_own_way_is_one_line(
    command: Command, db: Database, objectid: int, second: Any
) -> None:
    db.state.thdSetState(objectid, "k", 1)
    second.cursor().execute("UPDATE statedb_states SET value = '{\n\t\"a\": 1}'")
    assert records_of(command.well("dump"))[2] == value("k", {"a": 1})


def test_values_of_no_object_are_not_dumped(
    engine: Engine, command: Command, db: Database, objectid: int, second: Any
) -> None:
    if engine.name != "sqlite":
        pytest.skip("servers have a foreign key, or whoever wrote them past it")
    db.state.thdSetState(objectid, "k", 1)
    between = db.state.thdGetObjectId("between", "B")
    db.state.thdSetStates(between, {"k": 1, "l": 2})
    last = db.state.thdGetObjectId("last", "B")
    db.state.thdSetState(last, "k", 1)
    second.execute("DELETE FROM statedb_objects WHERE id = ?", [between])
    found = records_of(command.well("dump"))
    kept = [object_("nightly", "Scheduler"), value("k", 1), object_("last"), value("k", 1)]
    assert found[1:-1] == kept


# --- What a load changes ---


def test_a_load_overwrites_what_it_names_and_leaves_the_rest(
    command: Command, db: Database, second: Any, file: Path
) -> None:
    db.state.thdGetObjectId("first", "B")  # so that ids differ
    kept = db.state.thdGetObjectId("kept", "B")
    db.state.thdSetState(kept, "k", 1)
    there = db.state.thdGetObjectId("there", "B")
    db.state.thdSetStates(there, {"k": "old", "l": "kept"})
    write(file, object_("there"), value("k", "new"), value("m", 3), object_("new", "C"))
    assert "2 objects, 2 values" in command.well("load", file)
    assert contents(second) == {
        ("first", "B"): {},
        ("kept", "B"): {"k": 1},
        ("there", "B"): {"k": "new", "l": "kept", "m": 3},
        ("new", "C"): {},
    }
    assert statedb.state.get_states(second, there)["k"] == "new"


def test_what_has_the_longest_names_is_loaded(
    command: Command, db: Database, second: Any, file: Path
) -> None:
    names = [f"{number}".ljust(64 * 1024, "x") for number in range(140)]
    objects = [object_(name, name) for name in names]
    claims = [claim(name, 1, name) for name in names]
    write(file, *objects, *map(master, names), *claims)
    assert "140 objects" in command.well("load", file)
    found = statedb.state.get_objects(second)
    assert [one.name for one in found] == [one.class_name for one in found]
    assert {one.name for one in found} == set(names)
    assert {one.name for one in db.masters.thdGetMasters()} == set(names)
    assert {name: token for name, (_, token) in Onlooker(second).claims().items()} == dict.fromkeys(
        names, 1
    )


def test_an_object_may_be_named_twice_and_the_later_value_is_kept(
    command: Command, second: Any, file: Path
) -> None:
    write(file, object_("a"), value("k", 1), object_("b"), object_("a"), value("k", 2))
    command.well("load", file, "--json")
    assert contents(second) == {("a", "B"): {"k": 2}, ("b", "B"): {}}


def test_a_load_lets_no_token_go_backwards_and_nobody_hold_what_it_names(
    command: Command, db: Database, second: Any, file: Path
) -> None:
    with db.masters.join("host1:/srv", interval=20) as member:
        for _ in range(2):
            member.release(member.claim("scheduler", "newer"))
        claims = {name: member.claim("scheduler", name) for name in ("newer", "older", "other")}
        onlooker = Onlooker(second)
        write(file, claim("newer", 1), claim("older", 7), claim("new", 5))
        command.well("load", file)
        assert onlooker.claims() == {
            "newer": (None, 3),
            "older": (None, 7),
            "other": (member.id, 1),
            "new": (None, 5),
        }
        db.masters.thdGetMasters()
        for name in ("newer", "older"):
            with pytest.raises(ClaimLostError), db.transaction():
                db.masters.thdHoldClaim(claims[name])
        assert member.claim("scheduler", "newer").token == 4
        assert member.claim("scheduler", "older").token == 8
        assert member.claim("scheduler", "new").token == 6


def test_a_load_makes_the_masters_that_it_names_inactive(
    command: Command, db: Database, second: Any, file: Path
) -> None:
    there = db.masters.thdFindMasterId("there")
    db.masters.thdSetMasterState(there, True)
    db.masters.thdClaim(there, "scheduler", "nightly")
    other = db.masters.thdFindMasterId("other")
    db.masters.thdSetMasterState(other, True)
    new = {**master("new"), "expire_after": 0}
    write(file, master("there", incarnation=9), new, master("joined"))
    with db.masters.join("joined", interval=20, expire_after=90):
        assert "3 masters" in command.well("load", file)
        assert Onlooker(second).inactive_that_are_due() == 0
    standing = Onlooker(second).masters()
    assert (standing[there].active, standing[there].incarnation) == (False, 9)
    assert standing[other].active is True
    assert Onlooker(second).held_by(there) == set()
    found = {one.name: one for one in statedb.masters.get_masters(second)}
    assert (found["new"].active, found["new"].last_active.year) == (False, 2023)
    new = next(one for one in records_of(command.well("masters", "--json")) if one["name"] == "new")
    assert new["expire_after"] is None
    write(file, master("there", incarnation=3))
    command.well("load", file)
    assert Onlooker(second).masters()[there].incarnation == 9
    with db.masters.join("there", interval=20) as member:
        assert Onlooker(second).masters()[member.id].incarnation == 10


# --- What is no dump ---

A, K = object_("a"), value("k", 1)
END = {"end": {"objects": 1, "values": 1, "masters": 0, "claims": 0}}
AMISS: dict[str, tuple[int, list[Any], str]] = {
    "nothing": (1, [], "no header"),
    "blank": (1, [b""], "no JSON"),
    "bytes": (1, [b"\xff\xfe\0"], "UTF-8"),
    "no header": (1, [A, K, END], "no header"),
    "newer": (1, [{"statedb": "dump", "format": 2, "more": 1}], "newer statedb"),
    "no format": (1, [{"statedb": "dump"}], "format None"),
    "dump of another": (1, [{**HEADER, "dump": "x"}], "no header"),
    "another's": (1, [{**HEADER, "statedb": 1}], "no header"),
    "a second header": (2, [HEADER, HEADER], "does not come here"),
    "truncated": (4, [HEADER, A, K], "a part of it is missing"),
    "cut off": (3, [HEADER, A, b'{"key": "k", "val'], "no JSON"),
    "wrong counts": (4, [HEADER, A, K, {"end": {**END["end"], "values": 2}}], "it has"),
    "odd counts": (4, [HEADER, A, K, {"end": {"objects": 1}}], "how many"),
    "no counts": (4, [HEADER, A, K, {"end": 7}], "how many"),
    "negative": (4, [HEADER, A, K, {"end": {**END["end"], "values": -1}}], "whole number"),
    "more": (5, [HEADER, A, K, END, A], "after the counts"),
    "no object": (2, [HEADER, K], "before any object"),
    "a list": (2, [HEADER, [A]], "none of"),
    "a stranger": (2, [HEADER, {"what": 1}], "none of"),
    "a member more": (2, [HEADER, {**A, "id": 7}], "there is class"),
    "a member less": (3, [HEADER, A, {"key": "k"}], "there is value"),
    "NaN": (3, [HEADER, A, b'{"key": "k", "value": NaN}'], "NaN"),
    "infinite": (3, [HEADER, A, b'{"key": "k", "value": 1e999}'], "no JSON"),
    "deep": (3, [HEADER, A, b'{"key": "k", "value": ' + b"[" * 300 + b"]" * 300 + b"}"], "deep"),
    "too deep": (3, [HEADER, A, b'{"key": "k", "value": ' + b"[" * 10**6], "deeply"),
    "large": (3, [HEADER, A, value("k", "x" * 4_200_000)], "characters"),
    "huge": (3, [HEADER, A, b'"' + b"x" * 9_000_000], "bytes"),
    "twice in a value": (3, [HEADER, A, b'{"key": "k", "value": {"a": 1, "a": 2}}'], "twice"),
    "a key twice": (4, [HEADER, A, K, K], "second time"),
    "a master twice": (3, [HEADER, master("m"), master("m")], "second time"),
    "a claim twice": (3, [HEADER, claim("c", 1), claim("c", 2)], "second time"),
    "NUL": (2, [HEADER, object_("a\0")], "NUL"),
    "surrogate": (3, [HEADER, A, value("\ud800", 1)], "surrogate"),
    "no name": (2, [HEADER, object_("a", "")], "empty"),
    "long name": (2, [HEADER, object_("x" * 65_537)], "65536"),
    "a number's name": (2, [HEADER, {"object": 1, "class": "B"}], "is a str"),
    "active": (2, [HEADER, {**master("m"), "active": 1}], "true or false"),
    "token": (2, [HEADER, claim("c", 0)], "whole number"),
    "large token": (2, [HEADER, claim("c", 2**63)], "whole number"),
    "token's type": (2, [HEADER, claim("c", True)], "whole number"),
    "expire_after": (2, [HEADER, {**master("m"), "expire_after": 0.5}], "whole number"),
    "no date": (2, [HEADER, {**master("m"), "last_active": 2**62}], "whole number from"),
    "no date before": (2, [HEADER, {**master("m"), "last_active": -(2**62)}], "whole number from"),
    "an object later": (3, [HEADER, master("m"), A], "does not come here"),
    "a master later": (3, [HEADER, claim("c", 1), master("m")], "does not come here"),
    "the load's own": (2, [HEADER, object_(DUMP, "statedb.load")], "load's own"),
}


def test_what_is_no_dump_is_one_line_with_its_number_and_changes_nothing(
    command: Command, second: Any, file: Path
) -> None:
    """All of them in one test: a database for each would take longer than all else here."""
    for kind, (number, lines, part) in AMISS.items():
        file.write_bytes(b"")
        if lines:
            write(file, *lines[1:], header=lines[0], end=False)
        for how in ([], ["--resume"]):
            line = command.badly(1, "load", file, *how)
            assert line.startswith(f"statedb: line {number}: "), (kind, line)
            assert part in line, (kind, line)
            assert len(line) < 500, kind
        assert contents(second) == {}, kind
        assert Onlooker(second).masters() == {}, kind
        assert Onlooker(second).claims() == {}, kind


def test_names_are_to_be_in_order_once_there_are_more_than_are_remembered(
    command: Command, second: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "REMEMBERED", 3)
    names = sorted("abcdefg", key=lambda name: name_hash(name.encode()))
    for order, part in (
        (names, None),
        ([*names[:3][::-1]], None),
        ([names[1], names[0], *names[2:]], "in the order"),
        ([*names[:5], names[4]], "in the order"),
        ([*names[:5], names[0]], "second time"),
    ):
        write(file, A, *(value(name, 1) for name in order))
        if part is None:
            command.well("load", file)
        else:
            assert part in command.badly(1, "load", file)
    assert contents(second) == {("a", "B"): dict.fromkeys(names, 1)}


# --- Loads that are taken up again ---


@pytest.fixture
def half(command: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The records of a dump of which a load with --resume has written some, and met an error."""
    monkeypatch.setattr(batch, "MOST_LINES", 10)
    records = [
        one
        for name in "ab"
        for one in (object_(name), *(value(f"k{number}", number) for number in range(30)))
    ]
    write(file, *records[:47], b"amiss")
    line = command.badly(1, "load", file, "--resume")
    assert line.startswith("statedb: line 49: ")
    return [*records, master("m"), claim("c", 3)]


def _loaded(second: Any) -> dict[tuple[str, str], dict[str, Any]]:
    found = contents(second)
    found.pop((DUMP, "statedb.load"), None)
    return found


def test_a_load_that_was_interrupted_goes_on_and_writes_nothing_twice(
    command: Command, second: Any, file: Path, half: list[Any], db: Database
) -> None:
    before = _loaded(second)
    assert len(before["a", "B"]) == 30
    assert 0 < len(before["b", "B"]) < 30
    objectid = db.state.thdGetObjectId("a", "B")
    db.state.thdSetState(objectid, "k0", "changed since")
    write(file, *half)
    assert "60 values" in command.well("load", file, "--resume")
    whole = {f"k{number}": number for number in range(30)}
    assert contents(second) == {("a", "B"): {**whole, "k0": "changed since"}, ("b", "B"): whole}
    assert Onlooker(second).claims() == {"c": (None, 3)}
    assert [one.name for one in statedb.masters.get_masters(second)] == ["m"]


def test_a_load_that_is_half_done_is_refused_without_resume(
    command: Command, second: Any, file: Path, half: list[Any]
) -> None:
    before = contents(second)
    write(file, *half)
    line = command.badly(1, "load", file)
    assert f"--resume, or forget it with: statedb delete --object {DUMP}:statedb.load" in line
    assert contents(second) == before
    command.well("delete", "--object", f"{DUMP}:statedb.load")
    command.well("load", file)
    assert len(contents(second)["b", "B"]) == 30


def test_how_far_a_load_has_come_is_in_no_dump(command: Command, half: list[Any]) -> None:
    found = records_of(command.well("dump"))
    assert [one["object"] for one in found if "object" in one] == ["a", "b"]
    assert {one["key"] for one in found if "key" in one} <= {f"k{number}" for number in range(30)}


@pytest.mark.parametrize("change", ["earlier", "shorter"])
def test_another_file_of_the_same_dump_is_not_gone_on_with(
    command: Command, second: Any, file: Path, half: list[Any], change: str
) -> None:
    before = contents(second)
    write(file, *([object_("c"), *half[1:]] if change == "earlier" else half[:5]))
    line = command.badly(1, "load", file, "--resume")
    assert "this is not the file, or it was changed" in line
    assert contents(second) == before


def test_progress_that_is_none_is_refused(
    command: Command, second: Any, file: Path, half: list[Any]
) -> None:
    write(file, *half)
    for progress in ("7", '{"lines": "x"}'):
        command.well("set", f"{DUMP}:statedb.load", "progress", progress)
        assert "unreadable" in command.badly(1, "load", file, "--resume")
    command.well("set", f"{DUMP}:statedb.load", "progress", '{"lines": 3}')
    assert "not the file" in command.badly(1, "load", file, "--resume")
    command.well("delete", f"{DUMP}:statedb.load", "progress")
    command.well("load", file, "--resume")
    assert len(contents(second)["b", "B"]) == 30


def test_of_two_loads_that_go_on_at_once_one_is_refused(
    command: Command, second: Any, file: Path, half: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is done while one reads its second line."""
    write(file, *half)
    done: list[int] = []
    found: list[Any] = []

    class Slow(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            if self.tell() and not done:
                done.append(cli.main(["load", str(file), "--resume"]))
                found.append(contents(second))
            return super().readline(size)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Slow(file.read_bytes())))
    ended = command("load", "--resume")
    assert ended.code == 1
    assert "another load of this dump" in ended.err
    assert done == [0]
    assert [contents(second)] == found


def test_a_part_whose_answer_was_lost_is_found_and_not_written_twice(
    command: Command, far_url: str, proxy: Proxy, second: Any, file: Path
) -> None:
    write(file, A, K, claim("c", 1))
    proxy.cut_after(COMMIT, times=2)  # of the one part, and of the end
    assert "1 values" in command.well("load", file, "--resume", "--url", far_url)
    assert contents(second) == {("a", "B"): {"k": 1}}


def test_a_part_that_was_lost_is_written_when_it_goes_on(
    command: Command, far_url: str, proxy: Proxy, second: Any, file: Path
) -> None:
    write(file, A, K, claim("c", 1))
    proxy.cut_before(COMMIT)
    assert "unknown" in command.badly(4, "load", file, "--resume", "--url", far_url)
    assert contents(second) == {}
    command.well("load", file, "--resume", "--url", far_url)
    assert contents(second) == {("a", "B"): {"k": 1}}


def test_a_load_that_lost_its_server_at_its_very_end_ends_when_it_is_run_again(
    command: Command, far_url: str, proxy: Proxy, second: Any, file: Path, db: Database
) -> None:
    write(file, A, K)
    proxy.cut_before("DELETE FROM statedb_objects", times=1_000)
    command.badly(4, "load", file, "--resume", "--url", far_url, "--timeout", "1")
    objectid = db.state.thdGetObjectId("a", "B")
    db.state.thdSetState(objectid, "k", "changed since")
    command.well("load", file, "--resume")
    assert contents(second) == {("a", "B"): {"k": "changed since"}}


def test_a_whole_load_that_loses_its_server_has_written_nothing(
    command: Command, far_url: str, proxy: Proxy, second: Any, file: Path
) -> None:
    write(file, A, K, claim("c", 1))
    proxy.cut_before(COMMIT)
    assert "unknown" in command.badly(4, "load", file, "--url", far_url)
    proxy.cut_before("INTO statedb_claims")
    command.badly(4, "load", file, "--url", far_url)
    assert contents(second) == {}
    command.well("load", file, "--url", far_url)
    assert contents(second) == {("a", "B"): {"k": 1}}


def test_who_would_delete_an_object_waits_for_the_load_that_names_it(
    command: Command, db: Database, impatient: Any, second: Any, file: Path
) -> None:
    objectid = db.state.thdGetObjectId("a", "B")
    write(file, object_("a"), value("k", 1))

    def rival() -> None:
        with pytest.raises(Exception, match=LOCKED):
            statedb.state.delete_object(impatient, objectid)

    with interpose("INTO statedb_states", rival):
        command.well("load", file)
    assert contents(second) == {("a", "B"): {"k": 1}}
    assert statedb.state.delete_object(impatient, objectid) is True


def test_a_load_and_one_who_adds_the_same_objects_get_along(
    command: Command, db: Database, second: Any, file: Path
) -> None:
    objects = [object_(f"o{number}") for number in range(300)]
    write(file, *(one for it in objects for one in (it, value("k", 1))))
    stop = threading.Event()
    failed: list[Callable[[], None] | BaseException] = []

    def add() -> None:
        try:
            for number in range(300):
                if stop.is_set():
                    return
                db.state.thdGetObjectId(f"o{number}", "B")
        except BaseException as error:
            failed.append(error)

    adding = threading.Thread(target=add)
    adding.start()
    command.well("load", file)
    stop.set()
    adding.join()
    assert failed == []
    found = contents(second)
    assert len(found) == 300
    assert all(one == {"k": 1} for one in found.values())
