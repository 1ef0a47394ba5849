"""Random and hostile URLs, names, values and queries, and what others may have stored.

Each is the contract's error or a success: no other exception, no injection, no password shown. So
it is with dump files on the command line.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from engines import Engine

import statedb
from faults import extent, selection
from faults.bench import CALLERS, Bench, bench_of
from faults.hostile import MARK, STORED_JSON, STORED_OTHERWISE, Hostile, dump_file
from faults.legality import of_name
from faults.model import MASTER_FIELDS, OBJECT_FIELDS
from statedb import (
    Claim,
    DatabaseError,
    Error,
    InvalidNameError,
    InvalidResultSpecError,
    InvalidTypeError,
    InvalidURLError,
    InvalidValueError,
    ObjectModel,
    StoredValueError,
    ValueTooLargeError,
    cli,
    masters,
    state,
)
from statedb.names import name_hash

pytestmark = [pytest.mark.once, pytest.mark.timeout(extent(300, 1_800))]


@pytest.fixture
def hostile() -> Hostile:
    """The short form is the same each time; a thorough one says by which number to repeat it."""
    drawn = extent(5, random.SystemRandom().getrandbits(32))
    number = int(os.environ.get("STATEDB_TEST_SEED") or drawn)
    print(f"STATEDB_TEST_SEED={number}")
    return Hostile(number)


@pytest.fixture
def bench(engine: Engine, url: str) -> Iterator[Bench]:
    with bench_of(engine, url) as made:
        yield made


# --- URLs ---


def test_any_url_is_taken_or_refused_and_its_password_is_shown_nowhere(hostile: Hostile) -> None:
    taken = refused = 0
    for _ in range(extent(1_000, 10_000)):
        url = hostile.url()
        try:
            with statedb.connect(url) as db:
                assert MARK not in f"{db} {db!r}", ascii(url)
                taken += 1
        except InvalidURLError as error:
            _assert_hidden(error, url)
            refused += 1
        except Exception as error:
            raise AssertionError(ascii(url)) from error
    print(f"{taken} taken, {refused} refused")
    assert min(taken, refused) > (taken + refused) / 10


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
@pytest.mark.parametrize("password", ["?@@%s", "?@%s", "x?y@@%s", "%s?@", "@?%s", "?/%s"])
def test_a_question_mark_before_it_does_not_have_a_password_shown(
    scheme: str, password: str
) -> None:
    url = f"{scheme}://u:{password % MARK}@h1,h2/"
    with pytest.raises(InvalidURLError) as raised:
        statedb.connect(url)
    _assert_hidden(raised.value, url)


@pytest.mark.parametrize("url", [f"{one}://u:{MARK}@%s/d" for one in ("postgresql", "mysql")])
@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:1", "no.such.host.invalid", "a%20b"]
)
def test_no_password_is_shown_where_there_is_no_server(url: str, host: str) -> None:
    with statedb.connect(url % host, timeout=0.2) as db:
        with pytest.raises(DatabaseError) as raised:
            db.state.thdGetObjects()
        _assert_hidden(raised.value, url % host)
        with pytest.raises(DatabaseError) as raised:
            db.state.getObjects().result(timeout=60)
        _assert_hidden(raised.value, url % host)


def _assert_hidden(error: BaseException | None, url: str) -> None:
    """Neither the error nor any behind it shows the password, though it is not to be told."""
    while error is not None:
        shown = [str(error), repr(error), *traceback.format_exception_only(error)]
        # A driver's own errors may hold their connection.
        shown += [repr(vars(error))] if isinstance(error, Error) else []
        assert not any(MARK in text for text in shown), f"{url!a}: {error!r}"
        error = error.__cause__ or error.__context__


# --- Names ---


def test_any_name_is_the_same_when_it_is_read_or_refused(bench: Bench, hostile: Hostile) -> None:
    taken = refused = 0
    before = bench.look()
    for _ in range(extent(150, 10_000)):
        name = hostile.name()
        caller = hostile.choice(CALLERS)
        try:
            if of_name(name):
                _refuse_name(bench, caller, name)
                refused += 1
            else:
                _use_name(bench, caller, name)
                taken += 1
        except Exception as error:
            raise AssertionError(f"{type(name)}: {_characters(name)}, {caller}") from error
        assert bench.look() == before | {"claims": {}}
    print(f"{taken} taken, {refused} refused")
    assert min(taken, refused) > (taken + refused) / 10


def _characters(name: Any) -> str:
    return ascii(str.__str__(name)[:500]) if isinstance(name, str) else str(type(name))


def _use_name(bench: Bench, caller: str, name: str) -> None:
    text = str.__str__(name)

    def ask(operation: Callable[..., Any], *arguments: Any) -> Any:
        return bench.call(caller, operation, *arguments)

    by_name = ask(state.get_object_id, name, "class")
    by_class = ask(state.get_object_id, "name", name)
    assert [ask(state.get_object_id, *pair) for pair in ((name, "class"), ("name", name))] == [
        by_name,
        by_class,
    ]
    assert ask(state.set_state, by_name, name, [1]) == [1]
    assert ask(state.get_state, by_name, name) == [1]
    assert ask(state.update_state, by_name, name, lambda value: [*value, 2]) == [1, 2]
    assert ask(state.atomic_create_state, by_name, name, list) == [1, 2]
    assert ask(state.get_states, by_name, [name]) == {text: [1, 2]}
    if type(name).__hash__ is not None:
        assert list(ask(state.set_states, by_class, {name: 3}).values()) == [3]
        assert ask(state.get_states, by_class) == {text: 3}
        assert ask(state.delete_state, by_class, name) is True
    masterid = ask(masters.find_master_id, name)
    assert ask(masters.find_master_id, name) == masterid
    ask(masters.set_master_state, masterid, True)
    claim = ask(masters.claim, masterid, name, name)
    assert ask(masters.get_claims, masterid, name) == [Claim(text, text, masterid, 1)]
    ask(masters.claim, masterid, "kind", text)
    found = bench.look()
    assert found["objects"] == {by_name: (text, "class"), by_class: ("name", text)}
    assert found["values"] == {(by_name, text): "[1, 2]"}
    assert [row[0] for row in found["masters"].values()] == [text]
    assert found["claims"] == {(text, text): (masterid, 1), ("kind", text): (masterid, 1)}
    assert claim.token == 1
    assert ask(masters.release, masterid, name, name) is True
    ask(masters.set_master_state, masterid, False)
    assert ask(masters.forget_master, masterid) is True
    assert ask(state.delete_state, by_name, name) is True
    assert [ask(state.delete_object, one) for one in (by_name, by_class)] == [True, True]
    bench.second.cursor().execute("DELETE FROM statedb_claims")


def _refuse_name(bench: Bench, caller: str, name: Any) -> None:
    attempts: list[tuple[Any, ...]] = [
        (state.get_object_id, name, "class"),
        (state.get_object_id, "name", name),
        (state.get_state, 1, name),
        (state.get_state, 1, name, None),
        (state.set_state, 1, name, 1),
        (state.atomic_create_state, 1, name, list),
        (state.update_state, 1, name, list, 1),
        (state.delete_state, 1, name),
        (state.get_states, 1, [name]),
        (masters.find_master_id, name),
        (masters.claim, 1, name, "name"),
        (masters.claim, 1, "kind", name),
        (masters.release, 1, name, "name"),
        (masters.release, 1, "kind", name),
    ]
    if type(name).__hash__ is not None:
        attempts.append((state.set_states, 1, {name: 1}))
    if name is not None:
        attempts.append((masters.get_claims, None, name))
    for operation, *arguments in attempts:
        with pytest.raises((InvalidNameError, InvalidTypeError)) as raised:
            bench.call(caller, operation, *arguments)
        assert len(str(raised.value)) < 500
    with pytest.raises((InvalidNameError, InvalidTypeError)):
        bench.db.masters.join(name)


# --- Values ---


def test_any_value_comes_back_as_json_gives_it_or_is_refused(
    bench: Bench, hostile: Hostile
) -> None:
    objectid = bench.db.state.thdGetObjectId("name", "class")
    bench.db.state.thdSetState(objectid, "old", "old")
    taken = refused = 0
    for _ in range(extent(200, 10_000)):
        value = hostile.value()
        caller = hostile.choice(CALLERS)
        operation, name, arguments = hostile.choice(_writes(value))
        expected = {"old": "old"}
        try:
            found = bench.call(caller, operation, objectid, *arguments)
        except (InvalidValueError, ValueTooLargeError) as error:
            refused += 1
            _assert_refusable(_may_be_refused(value), error)
        except Exception as error:
            raise AssertionError(f"{operation.__name__}, {caller}, {_kinds(value)}") from error
        else:
            taken += 1
            expected |= found if operation is state.set_states else {name: found}
            assert _is_as_json_gives_it(value, expected[name])
        assert repr(_stored(bench, objectid)) == repr(dict(sorted(expected.items())))
        bench.db.state.thdSetState(objectid, "old", "old")
        bench.db.state.thdDeleteState(objectid, "new")
    print(f"{taken} taken, {refused} refused")
    assert min(taken, refused) > (taken + refused) / 10


def _writes(value: Any) -> list[tuple[Callable[..., Any], str, tuple[Any, ...]]]:
    """The operations that write a value, under which name, and what they are given."""
    return [
        (state.set_state, "old", ("old", value)),
        (state.set_states, "old", ({"new": 1, "old": value},)),
        (state.update_state, "old", ("old", lambda _: value)),
        (state.atomic_create_state, "new", ("new", lambda: value)),
    ]


def _assert_refusable(may_be_refused: bool, error: Exception) -> None:
    assert may_be_refused, f"refused for no reason: {error}"
    assert len(str(error)) < 1_000


def _stored(bench: Bench, objectid: int) -> dict[str, Any]:
    found = bench.look()["values"]
    assert {one for one, _ in found} == {objectid}
    return {name: json.loads(text) for (_, name), text in sorted(found.items())}


def _is_as_json_gives_it(value: Any, found: Any) -> bool:
    try:
        return repr(json.loads(json.dumps(value))) == repr(found)
    except Exception:
        return False


def _may_be_refused(value: Any) -> bool:
    """Whether there is a reason: no JSON, too long, too deep, or keys that are the same."""
    if _is_a_bomb(value):
        return True
    try:
        text = json.dumps(value, allow_nan=False)
    except Exception:
        return True
    found: list[Any] = []
    json.loads(text, object_pairs_hook=found.append)
    collide = any(len(dict(pairs)) < len(pairs) for pairs in found)
    # What resists being read is refused for that.
    return collide or len(text) > 4 * 1024 * 1024 or _depth(text) > 200 or "Odd" in _kinds(value)


def _is_a_bomb(value: Any) -> bool:
    """Whether it is of so many values, though of few objects, that encoding it takes too long."""
    count = 0
    level = [value]
    while level and count < 4 * 1024 * 1024:
        level = [inner for one in level[:1000] if type(one) is list for inner in one]
        count += len(level) * (1000 if len(level) > 1000 else 1)
    return bool(level)


def _depth(text: str) -> int:
    deepest = depth = 0
    is_quoted = is_escaped = False
    for one in text:
        if is_quoted:
            is_quoted = one != '"' or is_escaped
            is_escaped = one == "\\" and not is_escaped
        elif one == '"':
            is_quoted = True
        elif one in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif one in "]}":
            depth -= 1
    return deepest


def _kinds(value: Any) -> str:
    """The names of all types in a value."""
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = [*dict.keys(value), *dict.values(value)]
    elif isinstance(value, (list, tuple)):
        inner = [value[index] for index in range(len(value))]
    return " ".join([type(value).__name__, *map(_kinds, inner)])


# --- Queries ---


def test_any_query_finds_what_it_asks_for_or_is_refused(bench: Bench, hostile: Hostile) -> None:
    names = ["a", "A", "%", "'; --", "\u00e9", "\\", "x" * 300]
    found_objects = [
        ObjectModel(bench.db.state.thdGetObjectId(one, "c"), one, "c") for one in names
    ]
    for name in names:
        masterid = bench.db.masters.thdFindMasterId(name)
        bench.db.masters.thdSetMasterState(masterid, hostile.random() < 0.5)
    found_masters = bench.db.masters.thdGetMasters()
    before = bench.look()
    taken = refused = 0
    for _ in range(extent(500, 10_000)):
        of_masters = hostile.random() < 0.5
        rows: list[Any] = found_masters if of_masters else found_objects
        fields = MASTER_FIELDS if of_masters else OBJECT_FIELDS
        spec = hostile.spec(list(fields))
        try:
            wanted = selection.select(rows, fields, spec)
        except Exception:
            wanted = None  # what is wrong with it is nobody's promise
        operation = masters.get_masters if of_masters else state.get_objects
        try:
            found = bench.call(hostile.choice(CALLERS), operation, spec)
        except (InvalidResultSpecError, InvalidTypeError) as error:
            refused += 1
            _assert_refusable(wanted is None, error)
        except Exception as error:
            raise AssertionError(_shown(spec)) from error
        else:
            taken += 1
            assert found == wanted, _shown(spec)
    assert bench.look() == before
    print(f"{taken} taken, {refused} refused")
    assert min(taken, refused) > (taken + refused) / 10


def _shown(spec: Any) -> str:
    try:
        return ascii(spec)
    except Exception:
        return ascii([getattr(one, "operator", None) for one in spec.filters])


# --- Ids, and whatever else a call may be given ---


def test_any_other_argument_is_refused_and_changes_nothing(bench: Bench, hostile: Hostile) -> None:
    bench.db.state.thdSetState(bench.db.state.thdGetObjectId("name", "class"), "name", 1)
    bench.db.masters.thdFindMasterId("name")
    before = bench.look()
    operations = [
        getattr(module, name)
        for module in (state, masters)
        for name in module.__all__
        if name.islower() and name != "set_all_masters_active_long_time_ago"
    ]
    count = extent(300, 10_000)
    refused = 0
    for _ in range(count):
        operation = hostile.choice(operations)
        arguments = [_argument(hostile, operation, one) for one in _parameters(operation)]
        caller = hostile.choice(CALLERS)
        try:
            bench.call(caller, operation, *arguments)
        except DatabaseError as error:
            raise AssertionError(f"{operation.__name__}, {caller}") from error
        except (Error, TypeError):
            # Of what cannot be called, or has no items, Python itself says that it is no good.
            refused += 1
        except Exception as error:
            # What a caller's own mapping or iterator raises is the caller's.
            if error.args != ("asked",):
                raise AssertionError(f"{operation.__name__}, {caller}") from error
    assert bench.look() == before
    print(f"{refused} refused of {count}")
    assert refused > count / 2


def _parameters(operation: Callable[..., Any]) -> tuple[str, ...]:
    code = operation.__code__
    return code.co_varnames[1 : code.co_argcount]


def _argument(hostile: Hostile, operation: Callable[..., Any], parameter: str) -> Any:
    """Anything but an id that is there, a name that would make an object, or a callback."""
    makes = operation in (state.get_object_id, masters.find_master_id)
    given = hostile.value()
    if callable(given) or isinstance(given, int) or (makes and isinstance(given, str)):
        return -1
    return given


# --- What somebody else has stored ---


def test_what_others_stored_is_a_value_or_a_type_error_and_harms_no_other(
    bench: Bench, hostile: Hostile
) -> None:
    objectid = bench.db.state.thdGetObjectId("name", "class")
    for _ in range(extent(1, 20)):
        texts = [*STORED_JSON, *STORED_OTHERWISE]
        texts += [hostile.text() for _ in range(20)]
        texts = [one for one in texts if one.isascii() and "\0" not in one]
        hostile.shuffle(texts)
        names = [f"k{number}" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            _store(bench, objectid, name, text)
        for caller in CALLERS:
            for name, text in zip(names, texts, strict=True):
                read = partial(bench.call, caller)
                _assert_read(text, partial(read, state.get_state, objectid, name))
                several = partial(read, state.get_states, objectid, [name])
                _assert_read(text, partial(_only_value, several))
        together = [bench.db.state.getState(objectid, name) for name in names]
        wait(together, timeout=60)
        for text, future in zip(texts, together, strict=True):
            _assert_read(text, future.result)
        written = [bench.db.state.setState(objectid, name, name) for name in names]
        assert [future.result(timeout=60) for future in written] == names
        assert _stored(bench, objectid) == {name: name for name in sorted(names)}
        bench.second.cursor().execute("DELETE FROM statedb_states")


def test_what_is_no_text_in_a_sqlite_file_keeps_nobody_from_reading_the_others(
    tmp_path: Path,
) -> None:
    with (
        statedb.connect(f"sqlite:///{tmp_path}/test.sqlite", pool_size=1) as db,
        contextlib.closing(sqlite3.connect(tmp_path / "test.sqlite", isolation_level=None)) as own,
    ):
        names = [f"k{number}" for number in range(20)]
        objectid = db.state.thdGetObjectId("name", "class")
        db.state.thdSetStates(objectid, dict.fromkeys(names, 1))
        for name, stored in (
            ("k3", "X'312c'"),
            ("k4", "X'ff'"),
            ("k5", "CAST(X'22ff22' AS TEXT)"),
            ("k6", "X'5b325d'"),
        ):
            own.execute(
                f"UPDATE statedb_states SET value = {stored} WHERE name = CAST('{name}' AS BLOB)"
            )
        futures = {name: db.state.getState(objectid, name) for name in names}
        for name, future in futures.items():
            # SQLite keeps what is no text as text; that its driver cannot read it is its failure.
            error = {"k3": StoredValueError, "k4": StoredValueError, "k5": DatabaseError}.get(name)
            if error is None:
                assert future.result(timeout=60) == ([2] if name == "k6" else 1)
            else:
                with pytest.raises(error):
                    future.result(timeout=60)
                with pytest.raises(error):
                    db.state.thdGetState(objectid, name)
        for name in ("k3", "k4", "k5"):
            assert db.state.thdSetState(objectid, name, name) == name
        assert len(db.state.thdGetStates(objectid)) == 20


def _store(bench: Bench, objectid: int, name: str, text: str) -> None:
    """As somebody else's SQL would."""
    cursor = bench.second.cursor()
    mark = "?" if type(cursor).__module__ == "sqlite3" else "%s"
    cursor.execute(
        "INSERT INTO statedb_states (objectid, name_hash, stamp, name, value)"
        f" VALUES ({mark}, {mark}, {mark}, {mark}, {mark})",
        (objectid, name_hash(name.encode()), 1, name.encode(), text),
    )


def _only_value(read: Callable[[], dict[str, Any]]) -> Any:
    (value,) = read().values()
    return value


def _assert_read(text: str, read: Callable[[], Any]) -> None:
    try:
        wanted = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        with pytest.raises(StoredValueError) as raised:
            read()
        assert isinstance(raised.value, TypeError)
        assert len(str(raised.value)) < 1_000
    else:
        assert repr(read()) == repr(wanted)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def test_a_name_that_is_no_text_keeps_nobody_from_reading_the_others(bench: Bench) -> None:
    objectid = bench.db.state.thdGetObjectId("name", "class")
    bench.db.state.thdSetState(objectid, "name", 1)
    masterid = bench.db.masters.thdFindMasterId("name")
    bench.db.masters.thdSetMasterState(masterid, True)
    bench.db.masters.thdClaim(masterid, "kind", "name")
    ill = r"X'ff27'" if type(bench.second).__module__ != "psycopg" else r"'\xff27'"
    for table, columns in (
        ("statedb_objects", ("class_name",)),
        ("statedb_states", ("name",)),
        ("statedb_masters", ("name",)),
        ("statedb_claims", ("kind", "name")),
    ):
        for column in columns:
            bench.second.cursor().execute(f"UPDATE {table} SET {column} = {ill}")
    ill_name = b"\xff'".decode(errors="surrogateescape")
    other = bench.db.state.thdGetObjectId("other", "class")
    for caller in CALLERS:
        found = bench.call(caller, state.get_objects)
        assert [one.class_name for one in found] == [ill_name, "class"]
        assert [one.id for one in found] == [objectid, other]
        assert bench.call(caller, state.get_states, objectid) == {ill_name: 1}
        assert bench.call(caller, masters.get_master, masterid).name == ill_name
        (claim,) = bench.call(caller, masters.get_claims)
        assert (claim.kind, claim.name, claim.masterid) == (ill_name, ill_name, masterid)
    # Who takes a place must not fail by what another's row holds, once it is expired.
    assert [one.name for one in bench.db.masters.thdExpireMasters(0)] == [ill_name]


# --- Dump files ---


def test_any_dump_file_is_loaded_or_refused_in_one_line(
    bench: Bench,
    engine: Engine,
    url: str,
    hostile: Hostile,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("STATEDB_URL", url)
    file = tmp_path / "dump.jsonl"
    taken = refused = 0
    before = bench.look()
    # Most of what can be wrong with one is found out before any server is asked.
    for _ in range(extent(150, 10_000 if engine.name == "sqlite" else 3_000)):
        text = dump_file(hostile)
        file.write_bytes(text)
        code = cli.main(["load", str(file)])
        said = capsys.readouterr()
        where = ascii(text[:2_000])
        if code == 0:
            assert (said.out[:6], said.err) == ("loaded", ""), where
            taken += 1
            before = bench.look()
        else:
            (line,) = said.err.splitlines()
            assert (code, said.out) == (1, ""), where
            assert line.startswith("statedb: line "), where
            assert line.isprintable(), where
            # What it names is there or not, as it was.
            assert bench.look() == before, where
            refused += 1
    print(f"{taken} taken, {refused} refused")
    assert min(taken, refused) > (taken + refused) / 10
