"""Futures that wait together: few statements, to each his own, and nobody harmed by another."""

from __future__ import annotations

import contextlib
import gc
import random
import re
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import documents
import pytest
from conftest import ABSENT
from engines import Engine
from interposed import interpose, watch
from proxy import Proxy

import statedb
from statedb import (
    CallTimeoutError,
    Connection,
    Database,
    DatabaseError,
    InvalidValueError,
    NoSuchObjectError,
    NoSuchStateError,
    OutcomeUnknownError,
    QueueFullError,
    StoredValueError,
    sharedcommit,
    states,
)
from statedb.batches import MAX_SHARED_VALUE
from statedb.names import name_hash
from statedb.state import get_state, set_state, set_states, update_state
from statedb.states import MAX_NAMES_IN_STATEMENT

Stored = Callable[[int, str], Any]
UNKNOWN = 987_654_321
COMMIT = re.compile(r"^COMMIT$")
#: Longer than what travels together, and than what any value may be.
LONG, TOO_LONG = "x" * (MAX_SHARED_VALUE + 1), "x" * (5 * 1024 * 1024)


@contextlib.contextmanager
def _waiting(db: Database, workers: int = 1) -> Iterator[None]:
    """Keep all workers of a Database busy, so that what is submitted within waits together."""
    inside = threading.Semaphore(0)
    release = threading.Event()

    def hold(conn: Connection) -> bool:
        inside.release()
        return release.wait(30)

    holders = [db.submit(hold) for _ in range(workers)]
    for _ in holders:
        assert inside.acquire(timeout=30)
    try:
        yield
    finally:
        release.set()
    assert all(holder.result(timeout=30) for holder in holders)


@pytest.fixture
def sent() -> Iterator[list[str]]:
    """All that statedb sends on connections that are opened from now on."""
    statements: list[str] = []
    with watch(statements.append):
        yield statements


@pytest.fixture
def narrow(sent: list[str], url: str) -> Iterator[Database]:
    """A Database of one connection and one worker, whose statements ``sent`` holds."""
    with statedb.connect(url, pool_size=1) as db:
        db.state.thdGetObjects()
        yield db


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a call returns; of what it raises the type and the text."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


def _outcomes(futures: Iterable[Future[Any]]) -> list[Any]:
    return [_outcome(future.result, timeout=60) for future in futures]


def _names(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


# --- Gets ---


def test_gets_that_wait_together_are_answered_by_few_statements(
    narrow: Database, sent: list[str], objectid: int, second: Any
) -> None:
    names = _names(300)
    set_states(second, objectid, {name: [name] for name in names})
    with _waiting(narrow):
        sent.clear()
        futures = [narrow.state.getState(objectid, name) for name in names]
    assert _outcomes(futures) == [[name] for name in names]
    assert len(sent) < 10


def test_each_of_the_gets_that_wait_together_gives_what_it_gives_alone(
    engine: Engine, narrow: Database, db: Database, objectid: int, second: Any
) -> None:
    other = db.state.thdGetObjectId("other", "Scheduler")
    values = {"k": 1, "null": None, "nested": {"é": [1, {"\0": 2}]}, "long": LONG, "nonsense": 0}
    set_states(second, objectid, values)
    set_states(second, other, {"k": "the other's"})
    update = "UPDATE statedb_states SET value = '{' WHERE value = '0'"
    second.cursor().execute(update)
    default, default_error = object(), KeyError("a value like any other")
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        *(((objectid, name), {}) for name in values),
        *(((objectid, name), {"default": default}) for name in values),
        ((objectid, "absent"), {}),
        ((objectid, "absent", default), {}),
        ((objectid, "absent", None), {}),
        ((objectid, "absent", default_error), {}),
        ((other, "k"), {}),
        ((other, "null"), {}),
        ((objectid,), {"name": "k"}),
        ((), {"name": "k", "objectid": objectid}),
        ((), {"default": default, "name": "absent", "objectid": objectid}),
        *(((objectid, "k"), {}) for _ in range(3)),
        *(((one, "k"), {}) for one in (UNKNOWN, 0, -1, 2**70, "7", None, True, 1.5, [7])),
        *(
            ((objectid, name), {})
            for name in ("", "a\0b", "\ud800", "x" * 70_000, 7, None, b"k", ["k"])
        ),
        ((objectid,), {}),
        ((objectid, "k", default, "one too many"), {}),
        ((objectid, "k"), {"unknown": 1}),
    ]
    alone = [_outcome(db.state.thdGetState, *args, **kwargs) for args, kwargs in asked]
    assert alone[:4] == [1, None, {"é": [1, {"\0": 2}]}, LONG]
    assert {outcome[0] for outcome in alone if isinstance(outcome, tuple)} >= {
        StoredValueError,
        NoSuchStateError,
        statedb.InvalidNameError,
        statedb.InvalidTypeError,
    }
    with _waiting(narrow):
        futures = [narrow.state.getState(*args, **kwargs) for args, kwargs in asked]
    assert _outcomes(futures) == alone
    assert futures[asked.index(((objectid, "absent", default), {}))].result() is default


def test_of_gets_that_wait_together_those_that_are_in_time_are_answered(
    url: str, objectid: int, second: Any
) -> None:
    set_states(second, objectid, {"k": 1, "l": 2})
    with statedb.connect(url, pool_size=1, timeout=2) as db:
        db.state.thdGetObjects()
        with _waiting(db):
            late = db.state.getState(objectid, "k")
            began = time.monotonic()
            time.sleep(1)
            timely = [db.state.getState(objectid, name) for name in ("k", "l")]
            _wait_until(lambda: time.monotonic() > began + 2)
        assert _outcomes(timely) == [1, 2]
        with pytest.raises(CallTimeoutError, match="waited 2 s in the queue, and was not begun"):
            late.result(timeout=30)


def test_gets_none_of_which_can_be_asked_send_nothing(
    narrow: Database, sent: list[str], objectid: int
) -> None:
    with _waiting(narrow):
        sent.clear()
        futures = [narrow.state.getState(objectid, name) for name in ("", "a\0b", "\ud800")]
    assert {type(future.exception(60)) for future in futures} == {statedb.InvalidNameError}
    assert sent == []


def test_a_long_value_travels_alone_and_the_others_together(
    narrow: Database, sent: list[str], objectid: int, second: Any
) -> None:
    longest = LONG[: MAX_SHARED_VALUE - 2]  # which its JSON has two quotation marks more than
    set_states(second, objectid, {"long": LONG, "longest": longest, **dict.fromkeys(_names(20), 1)})
    with _waiting(narrow):
        sent.clear()
        long = narrow.state.getState(objectid, "long")
        others = [narrow.state.getState(objectid, name) for name in ("longest", *_names(20))]
    assert long.result(timeout=30) == LONG
    assert _outcomes(others) == [longest] + [1] * 20
    assert len(sent) == 2


# --- Sets ---


def test_sets_that_wait_together_are_visible_when_their_futures_resolve(
    narrow: Database, objectid: int, second: Any, stored: Stored
) -> None:
    names = _names(150)
    set_states(second, objectid, dict.fromkeys(names[::2], "before"))
    seen: dict[str, Any] = {}

    def look(name: str) -> Callable[[Future[Any]], None]:
        # The one worker calls back, one at a time: so one connection will do.
        return lambda future: seen.__setitem__(name, get_state(second, objectid, name, ABSENT))

    with _waiting(narrow):
        futures = [narrow.state.setState(objectid, name, [name]) for name in names]
        for name, future in zip(names, futures, strict=True):
            future.add_done_callback(look(name))
    narrow.close()
    assert seen == {name: [name] for name in names}
    assert _outcomes(futures) == [[name] for name in names]
    assert [stored(objectid, name) for name in names] == [[name] for name in names]


def test_each_of_the_sets_that_wait_together_gives_what_it_gives_alone(
    narrow: Database, db: Database, objectid: int, second: Any, stored: Stored
) -> None:
    other = db.state.thdGetObjectId("other", "Scheduler")
    deleted = db.state.thdGetObjectId("deleted", "Scheduler")
    db.state.thdDeleteObject(deleted)
    set_states(second, objectid, dict.fromkeys(("old", "null", "keywords", "long"), "before"))
    refused: list[tuple[Any, ...]] = [
        *((objectid, "bad", value) for value in ({1}, float("nan"), {1: 1, "1": 2}, TOO_LONG)),
        *((one, "k", 1) for one in (UNKNOWN, deleted, 0, -1, 2**70, "7", None, True, [7])),
        *((objectid, name, 1) for name in ("", "a\0b", "\ud800", "x" * 70_000, 7, None, ["k"])),
        (objectid, "k"),
        (objectid, "k", 1, "one too many"),
    ]
    alone = [_outcome(db.state.thdSetState, *args) for args in refused]
    assert {outcome[0] for outcome in alone} >= {
        InvalidValueError,
        statedb.ValueTooLargeError,
        NoSuchObjectError,
        statedb.InvalidNameError,
        statedb.InvalidTypeError,
    }
    # What is given, and what is read back.
    written: dict[tuple[int, str], tuple[Any, Any]] = {
        (objectid, "old"): ((1, {2: 3}), [1, {"2": 3}]),
        (objectid, "null"): (None, None),
        (objectid, "long"): (LONG, LONG),
        (objectid, "created"): ("é\0", "é\0"),
        (objectid, "created long"): (LONG, LONG),
        (other, "old"): ({}, {}),
    }
    with _waiting(narrow):
        failing = [narrow.state.setState(*one) for one in refused[::2]]
        futures = [narrow.state.setState(*key, value) for key, (value, _) in written.items()]
        keywords = narrow.state.setState(value=5, name="keywords", objectid=objectid)
        failing += [narrow.state.setState(*one) for one in refused[1::2]]
    assert _outcomes(failing) == alone[::2] + alone[1::2]
    assert _outcomes(futures) == [value for _, value in written.values()]
    assert keywords.result() == 5
    assert stored(objectid, "keywords") == 5
    assert {key: stored(*key) for key in written} == {
        key: value for key, (_, value) in written.items()
    }
    assert [stored(objectid, name) for name in ("bad", "k")] == [ABSENT, ABSENT]


def test_sets_of_values_that_are_there_are_few_round_trips(
    engine: Engine, narrow: Database, sent: list[str], objectid: int, second: Any, stored: Stored
) -> None:
    names = _names(100)
    set_states(second, objectid, dict.fromkeys(names, "before"))
    with _waiting(narrow):
        sent.clear()
        futures = [narrow.state.setState(objectid, name, name) for name in names]
    assert _outcomes(futures) == names
    # SQLite makes no round trips, and so no haste: what costs there is to commit.
    assert len([sql for sql in sent if engine.name != "sqlite" or "UPDATE" not in sql]) < 10
    assert [stored(objectid, name) for name in names] == names


def test_sets_that_travel_together_are_those_of_their_object_and_seen_by_an_update(
    narrow: Database, db: Database, objectid: int, stored: Stored
) -> None:
    other = db.state.thdGetObjectId("other", "Scheduler")
    for one in (objectid, other):
        db.state.thdSetStates(one, dict.fromkeys(_names(9), 0))
    seen = []

    def set_together(value: int) -> None:
        with _waiting(narrow):
            futures = [narrow.state.setState(objectid, name, value) for name in _names(9)]
        assert _outcomes(futures) == [value] * 9

    def count(value: int) -> int:
        seen.append(value)
        if len(seen) == 1:
            set_together(10)
        return value + 1

    set_together(5)  # so that the one before was such a set, too

    assert db.state.thdUpdateState(objectid, "k4", count) == 11
    assert seen == [5, 10]
    assert [stored(objectid, name) for name in _names(9)] == [10] * 4 + [11] + [10] * 4
    assert [stored(other, name) for name in _names(9)] == [0] * 9


def test_a_value_that_is_not_there_is_created_beside_those_that_are(
    engine: Engine, narrow: Database, sent: list[str], objectid: int, second: Any, stored: Stored
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(50), "before"))
    with _waiting(narrow):
        sent.clear()
        futures = [narrow.state.setState(objectid, name, 1) for name in [*_names(50), "new"]]
    assert _outcomes(futures) == [1] * 51
    assert [stored(objectid, name) for name in ("k0", "k49", "new")] == [1, 1, 1]
    assert engine.name == "sqlite" or len(sent) < 10


def test_new_values_take_one_statement_each_and_a_few_for_all(
    engine: Engine, narrow: Database, sent: list[str], objectid: int, stored: Stored
) -> None:
    with _waiting(narrow):
        sent.clear()
        futures = [narrow.state.setState(objectid, name, name) for name in _names(50)]
    assert _outcomes(futures) == _names(50)
    assert engine.name == "sqlite" or len(sent) < 60
    assert [stored(objectid, name) for name in _names(50)] == _names(50)


def test_of_two_who_create_a_value_the_first_wins_and_the_other_is_told(
    engine: Engine, url: str, objectid: int, second: Any, stored: Stored
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's one lock is the file's")
    rival = partial(set_state, second, objectid, "k1", "the rival's")
    with interpose("INSERT INTO statedb_states", rival), statedb.connect(url, pool_size=1) as db:
        with _waiting(db):
            futures = [db.state.setState(objectid, name, "ours") for name in _names(3)]
        assert _outcomes(futures) == ["ours", "the rival's", "ours"]
    assert [stored(objectid, name) for name in _names(3)] == ["ours", "the rival's", "ours"]


def test_through_a_network_what_waits_together_is_few_round_trips(
    far_url: str, proxy: Proxy, objectid: int, second: Any
) -> None:
    names = _names(64)
    set_states(second, objectid, dict.fromkeys(names, 0))
    with statedb.connect(far_url, pool_size=1) as db:
        for turn in range(8):  # prepared statements come in on the way
            with _waiting(db):
                proxy.forget()
                futures = [db.state.getState(objectid, name) for name in names]
            assert _outcomes(futures) == [turn] * 64
            assert len(proxy.statements) == 1
            with _waiting(db):
                proxy.forget()
                futures = [db.state.setState(objectid, name, turn + 1) for name in names]
            assert _outcomes(futures) == [turn + 1] * 64
            assert len(proxy.statements) <= 4


# --- One commit for several, on SQLite ---


@pytest.fixture
def sqlite(engine: Engine) -> None:
    if engine.name != "sqlite":
        pytest.skip("each statement commits itself here, or those of one operation do")


@pytest.mark.usefixtures("sqlite")
def test_all_that_write_share_a_commit(
    narrow: Database, sent: list[str], objectid: int, second: Any, stored: Stored
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(15), "before"))
    with _waiting(narrow):
        sent.clear()
        sets = [narrow.state.setState(objectid, name, 1) for name in _names(30)]
        deletions = [narrow.state.deleteState(objectid, name) for name in ("k0", "absent")]
        several = [narrow.state.setStates(objectid, {"s": n, f"s{n}": n}) for n in range(10)]
        invalid = narrow.state.setStates(objectid, {"valid": 1, "invalid": {1}})
        unknown = narrow.state.setStates(UNKNOWN, {"s": 1})
    assert _outcomes(sets) == [1] * 30
    assert _outcomes(deletions) == [True, False]
    assert _outcomes(several) == [{"s": n, f"s{n}": n} for n in range(10)]
    assert isinstance(invalid.exception(timeout=30), InvalidValueError)
    assert isinstance(unknown.exception(timeout=30), NoSuchObjectError)
    # What touches the same comes one after the other, by turns.
    assert sent.count("COMMIT") <= 1 + 1 + 10
    assert [stored(objectid, name) for name in ("k0", "k1", "k29", "s", "s9", "valid")] == [
        *(ABSENT, 1, 1, 9, 9, ABSENT)
    ]


@pytest.mark.usefixtures("sqlite")
def test_what_takes_long_shares_its_commit_with_no_more(
    narrow: Database,
    sent: list[str],
    objectid: int,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharedcommit, "LONGEST", 0.0)
    with _waiting(narrow):
        sent.clear()
        futures = [narrow.state.setState(objectid, name, name) for name in _names(20)]
    assert _outcomes(futures) == _names(20)
    assert [stored(objectid, name) for name in _names(20)] == _names(20)
    assert len([sql for sql in sent if "INSERT" in sql or "UPDATE" in sql]) >= 20


@pytest.mark.usefixtures("sqlite")
def test_where_the_engine_has_ended_what_they_shared_none_is_done_by_half(
    narrow: Database, objectid: int, second: Any, stored: Stored
) -> None:
    times = iter([1])

    def refuse_once(conn: Connection) -> None:
        conn.raw.create_function("first", 0, lambda: next(times, 0))
        conn.execute(
            "CREATE TEMP TRIGGER once BEFORE INSERT ON main.statedb_states WHEN first()"
            " BEGIN SELECT RAISE(ROLLBACK, 'as where the disk is full'); END"
        )

    narrow.run(refuse_once)
    second.execute(
        "CREATE TRIGGER refusal BEFORE INSERT ON statedb_states"
        " WHEN NEW.name = CAST('refused' AS BLOB)"
        " BEGIN SELECT RAISE(ABORT, 'the application will not have it'); END"
    )
    with _waiting(narrow):
        first = narrow.state.setState(objectid, "k0", 1)
        half = narrow.state.setStates(objectid, {**dict.fromkeys(_names(9)[1:], 1), "refused": 1})
        last = narrow.state.setState(objectid, "k9", 1)
    with pytest.raises(DatabaseError, match="the application will not have it"):
        half.result(timeout=30)
    assert _outcomes([first, last]) == [1, 1]
    assert [stored(objectid, name) for name in _names(10)] == [1, *[ABSENT] * 8, 1]


@pytest.mark.usefixtures("sqlite")
@pytest.mark.parametrize("action", ["ABORT", "FAIL", "ROLLBACK"])
def test_one_that_the_engine_refuses_harms_no_other(
    narrow: Database, objectid: int, second: Any, stored: Stored, action: str
) -> None:
    second.execute(
        "CREATE TRIGGER refusal BEFORE INSERT ON statedb_states"
        " WHEN NEW.name = CAST('refused' AS BLOB)"
        f" BEGIN SELECT RAISE({action}, 'the application will not have it'); END"
    )
    with _waiting(narrow):
        before = [narrow.state.setState(objectid, name, "before") for name in _names(10)]
        refused = narrow.state.setState(objectid, "refused", 1)
        half = narrow.state.setStates(objectid, {"half": 1, "refused": 1})
        after = [narrow.state.setState(objectid, f"l{n}", "after") for n in range(10)]
    for future in (refused, half):
        with pytest.raises(DatabaseError, match="the application will not have it"):
            future.result(timeout=30)
    assert _outcomes(before + after) == ["before"] * 10 + ["after"] * 10
    assert [stored(objectid, name) for name in ("k0", "k9", "l0", "l9", "refused", "half")] == [
        *("before", "before", "after", "after", ABSENT, ABSENT)
    ]


@pytest.mark.usefixtures("sqlite")
def test_where_somebody_keeps_the_file_locked_each_fails_in_time_and_nothing_is_written(
    url: str, objectid: int, second: Any, stored: Stored
) -> None:
    with statedb.connect(url, pool_size=1, timeout=2) as db:
        second.execute("BEGIN IMMEDIATE")
        with _waiting(db):
            began = time.monotonic()
            futures = [db.state.setState(objectid, name, 1) for name in _names(20)]
            futures.append(db.state.deleteState(objectid, "absent"))
            reads = [db.state.getState(objectid, "absent", n) for n in range(5)]
        for future in futures:
            assert isinstance(future.exception(timeout=30), CallTimeoutError)
        assert time.monotonic() - began < 3.2
        # Those who read wait for no writer, but for this Database's one worker.
        assert all(read.done() for read in reads) or wait(reads, timeout=30).done
        second.execute("ROLLBACK")
        assert [stored(objectid, name) for name in _names(20)] == [ABSENT] * 20
        assert db.state.setState(objectid, "k0", 2).result(timeout=30) == 2


def test_nothing_resolves_before_its_commit(
    engine: Engine, url: str, objectid: int, second: Any, stored: Stored
) -> None:
    if engine.name.startswith("postgresql"):
        pytest.skip("here one statement does it, and commits itself")
    set_states(second, objectid, dict.fromkeys(_names(20), "before"))
    futures: list[Future[Any]] = []
    seen: list[Any] = []

    def look(sql: str) -> None:
        if sql == "COMMIT":
            seen.append((any(one.done() for one in futures), stored(objectid, "k7")))

    with watch(look), statedb.connect(url, pool_size=1) as db:
        with _waiting(db):
            seen.clear()
            futures += [db.state.setState(objectid, name, "after") for name in _names(20)]
        assert _outcomes(futures) == ["after"] * 20
    assert seen == [(False, "before")]
    assert stored(objectid, "k7") == "after"


# --- Somebody else's locks ---


@pytest.fixture
def has_row_locks(engine: Engine) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's one lock is the file's")


@pytest.mark.usefixtures("has_row_locks")
@pytest.mark.parametrize("pool_size", [1, 2])
@pytest.mark.parametrize("shared", [False, True], ids=["to write it", "to have it stay"])
def test_a_row_that_is_locked_delays_its_own_set_only(
    engine: Engine,
    url: str,
    objectid: int,
    second: Any,
    application: Callable[..., Any],
    stored: Stored,
    pool_size: int,
    shared: bool,
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(20), "before"))
    own = application()
    if shared:
        how = "FOR SHARE" if engine.name.startswith("postgresql") else "LOCK IN SHARE MODE"
        own.cursor().execute(
            f"SELECT value FROM statedb_states WHERE objectid = %s AND name_hash = %s {how}",
            (objectid, name_hash(b"k7")),
        )
    else:
        set_state(own, objectid, "k7", "the application's")
    with statedb.connect(url, pool_size=pool_size) as db:
        with _waiting(db, pool_size):
            futures = [db.state.setState(objectid, name, "ours") for name in _names(20)]
        locked = futures.pop(7)
        assert _outcomes(futures) == ["ours"] * 19
        assert not locked.done()
        own.commit()
        assert locked.result(timeout=30) == "ours"
    assert [stored(objectid, name) for name in _names(20)] == ["ours"] * 20


@pytest.mark.usefixtures("has_row_locks")
def test_a_set_that_waits_for_a_lock_holds_up_none_that_come_later(
    url: str, objectid: int, second: Any, application: Callable[..., Any], stored: Stored
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(20), "before"))
    own = application()
    set_state(own, objectid, "k0", "the application's")
    set_state(own, objectid, "new", "the application's")
    with statedb.connect(url, pool_size=4) as db:
        locked = []
        for name in ("k0", "new"):
            locked.append(db.state.setState(objectid, name, "ours"))
            _wait_until(locked[-1].running)
        others = [db.state.setState(objectid, name, "ours") for name in _names(20)[1:]]
        assert wait(others, timeout=10).not_done == set()
        assert not any(one.done() for one in locked)
        own.rollback()
        assert _outcomes(locked) == ["ours"] * 2
    assert [stored(objectid, name) for name in ("k0", "k1", "new")] == ["ours"] * 3


# --- Order ---


def _random_calls(chance: random.Random) -> list[tuple[str, tuple[Any, ...]]]:
    """Operations of one object's values, each by its name and what follows the objectid."""
    deletes_object = chance.randrange(10, 60)
    calls: list[tuple[str, tuple[Any, ...]]] = []
    for number in range(60):
        name, other = chance.sample("abc", 2)
        calls.append(
            ("deleteObject", ())
            if number == deletes_object
            else chance.choice(
                [
                    ("getState", (name,)),
                    ("getState", (name,)),
                    ("getState", (name, "default")),
                    ("setState", (name, number)),
                    ("setState", (name, number)),
                    ("setState", (name, {number})),
                    ("deleteState", (name,)),
                    ("setStates", ({name: number, other: -number},)),
                    ("getStates", ()),
                    ("getStates", ([name, other],)),
                    ("updateState", (name, lambda value: [value], number)),
                    ("atomicCreateState", (name, lambda number=number: number)),
                ]
            )
        )
    return calls


def test_futures_give_what_the_same_calls_give_one_by_one(
    url: str, db: Database, stored: Stored
) -> None:
    with statedb.connect(url, pool_size=4) as wide:
        for seed in range(8):
            calls = _random_calls(random.Random(seed))
            one, other = (db.state.thdGetObjectId(f"{seed}", kind) for kind in ("one", "other"))
            expected = [
                _outcome(getattr(db.state, f"thd{name[0].upper()}{name[1:]}"), one, *args)
                for name, args in calls
            ]
            futures = [getattr(wide.state, name)(other, *args) for name, args in calls]
            outcomes = [
                (outcome[0], outcome[1].replace(f"object {other}", f"object {one}"))
                if isinstance(outcome, tuple)
                else outcome
                for outcome in _outcomes(futures)
            ]
            for place, call in enumerate(calls):
                assert outcomes[place] == expected[place], (seed, place, call)
            assert [stored(other, name) for name in "abc"] == [stored(one, name) for name in "abc"]


# --- Faults ---


@pytest.fixture
def far(far_url: str, proxy: Proxy) -> Iterator[Database]:
    """A Database of one connection through the proxy, which soon gives up."""
    with statedb.connect(far_url, pool_size=1, timeout=20) as db:
        yield db


def _of_batch_of_sets(engine: Engine) -> list[str | re.Pattern[str]]:
    """What finds each of the statements that write together; the last commits."""
    if engine.name.startswith("postgresql"):
        return ["SKIP LOCKED"]
    return [re.compile("^BEGIN$"), "SKIP LOCKED", "STRAIGHT_JOIN", COMMIT]


@pytest.mark.parametrize("cut", ["cut_after", "cut_before"])
def test_what_waited_together_and_lost_its_answer_is_done_again(
    engine: Engine,
    far: Database,
    proxy: Proxy,
    objectid: int,
    second: Any,
    stored: Stored,
    cut: str,
) -> None:
    names = _names(10)
    set_states(second, objectid, dict.fromkeys(names, "before"))
    with _waiting(far):
        futures = [far.state.getState(objectid, name, "absent") for name in [*names, "new"]]
        getattr(proxy, cut)("CASE WHEN")
    assert _outcomes(futures) == ["before"] * 10 + ["absent"]
    for turn, statement in enumerate(_of_batch_of_sets(engine)):
        with _waiting(far):
            futures = [far.state.setState(objectid, name, turn) for name in [*names, f"new{turn}"]]
            invalid = far.state.setState(objectid, "invalid", {turn})
            getattr(proxy, cut)(statement)
        assert _outcomes(futures) == [turn] * 11
        assert isinstance(invalid.exception(timeout=30), InvalidValueError)
        assert [stored(objectid, name) for name in [*names, f"new{turn}"]] == [turn] * 11
    assert not proxy._rules


@pytest.mark.parametrize("how", ["is refused", "is silent"])
def test_sets_that_may_have_landed_when_the_time_is_up_are_unknown(
    engine: Engine, far_url: str, proxy: Proxy, objectid: int, second: Any, stored: Stored, how: str
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(10), "before"))
    with statedb.connect(far_url, pool_size=1, timeout=1) as far:
        held = proxy.hold_before(_of_batch_of_sets(engine)[-1])
        with _waiting(far):
            futures = [far.state.setState(objectid, name, "after") for name in _names(10)]
        assert held.arrived.wait(10)
        if how == "is refused":
            proxy.refuse()
        else:
            proxy.stall()
        for future in futures:
            assert isinstance(future.exception(timeout=30), OutcomeUnknownError)
        proxy.resume()
    assert [stored(objectid, name) for name in _names(10)] == ["before"] * 10


@pytest.mark.parametrize("when", ["before all", "before the commit"])
def test_sets_that_cannot_have_landed_when_the_time_is_up_are_no_mystery(
    engine: Engine,
    far_url: str,
    proxy: Proxy,
    objectid: int,
    second: Any,
    stored: Stored,
    when: str,
) -> None:
    statements = _of_batch_of_sets(engine)
    if when == "before the commit" and len(statements) == 1:
        pytest.skip("here one statement does it, and commits itself")
    set_states(second, objectid, dict.fromkeys(_names(10), "before"))
    with statedb.connect(far_url, pool_size=1, timeout=1) as far:
        with _waiting(far):
            futures = [far.state.setState(objectid, name, "after") for name in _names(10)]
            reads = [far.state.getState(objectid, name) for name in _names(10)]
            if when == "before all":
                proxy.refuse()
            else:
                held = proxy.hold_before(statements[-2])
        if when == "before the commit":
            assert held.arrived.wait(10)
            proxy.refuse()
        for future in futures + reads:
            error = future.exception(timeout=30)
            assert isinstance(error, DatabaseError)
            assert not isinstance(error, OutcomeUnknownError)
    assert [stored(objectid, name) for name in _names(10)] == ["before"] * 10


def test_what_waits_together_and_meets_a_silent_server_is_over_in_time(
    far_url: str, proxy: Proxy, objectid: int, second: Any
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(10), "before"))
    with statedb.connect(far_url, pool_size=1, timeout=1) as far:
        with _waiting(far):
            began = time.monotonic()
            futures = [far.state.getState(objectid, name) for name in _names(10)]
            proxy.stall()
        for future in futures:
            assert isinstance(future.exception(timeout=30), CallTimeoutError)
        assert time.monotonic() - began < 5
        proxy.resume()
        assert far.state.getState(objectid, "k0").result(timeout=30) == "before"


def test_gets_that_hang_hold_up_no_other(
    far_url: str, proxy: Proxy, objectid: int, second: Any
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(40), "before"))
    with statedb.connect(far_url, pool_size=4) as far:
        far.state.thdGetObjects()
        hanging = []
        for _ in range(3):
            held = proxy.hold_before("statedb_states")
            hanging.append((held, far.state.getState(objectid, "k0")))
            assert held.arrived.wait(10)
            # At once: none of those that come later has the workers look.
            futures = [far.state.getState(objectid, name) for name in _names(40)]
            assert _outcomes(futures) == ["before"] * 40
        for held, future in hanging:
            assert not future.done()
            held.release()
            assert future.result(timeout=30) == "before"


# --- Deadlocks ---


def _is_deadlock(error: BaseException) -> bool:
    while error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "sqlstate", None) == "40P01" or error.args[:1] == (1213,)


class _Application(threading.Thread):
    """An application's transactions: several rows in any order, locked and written in any way."""

    def __init__(self, own: Any, keys: list[tuple[int, str]]) -> None:
        super().__init__(name="application")
        self.own = own
        self.keys = keys
        self.chance = random.Random(7)
        self.stop = threading.Event()
        self.commits = 0
        self.deadlocks: list[BaseException] = []
        self.failures: list[BaseException] = []

    def run(self) -> None:
        while not self.stop.is_set():
            error = self.transact()
            if error is None:
                self.commits += 1
            else:
                self.own.rollback()
                (self.deadlocks if _is_deadlock(error) else self.failures).append(error)

    def transact(self) -> Exception | None:
        try:
            for key in self.chance.sample(self.keys, self.chance.randrange(2, 9)):
                self.chance.choice([self.lock, self.update, *3 * [self.call]])(*key)
                # As if it thought about each: so that others come in between.
                self.stop.wait(self.chance.random() * 0.002)
            self.own.commit()
        except Exception as error:
            return error
        return None

    def lock(self, objectid: int, name: str) -> None:
        self.own.cursor().execute(
            "SELECT value FROM statedb_states WHERE objectid = %s AND name_hash = %s FOR UPDATE",
            (objectid, name_hash(name.encode())),
        )

    def update(self, objectid: int, name: str) -> None:
        self.own.cursor().execute(
            "UPDATE statedb_states SET value = '1' WHERE objectid = %s AND name_hash = %s",
            (objectid, name_hash(name.encode())),
        )

    def call(self, objectid: int, name: str) -> None:
        how = self.chance.randrange(3)
        if how == 0:
            set_state(self.own, objectid, name, 2)
        elif how == 1:
            update_state(self.own, objectid, name, lambda value: 3)
        else:
            names = [other for one, other in self.chance.sample(self.keys, 9) if one == objectid]
            set_states(self.own, objectid, dict.fromkeys(names, 4))


@pytest.mark.once
@pytest.mark.usefixtures("has_row_locks")
def test_an_application_that_writes_the_same_rows_meets_no_deadlock(
    url: str, sent: list[str], second: Any, db: Database, application: Callable[..., Any]
) -> None:
    objectids = [db.state.thdGetObjectId(f"{number}", "Scheduler") for number in range(3)]
    keys = [(objectid, name) for objectid in objectids for name in _names(10)]
    for objectid in objectids:
        set_states(second, objectid, dict.fromkeys(_names(10), 0))
    rival = _Application(application(), keys)
    turn = sets = 0

    def met() -> int:
        return min(rival.commits, turn, sum("SKIP LOCKED" in sql for sql in sent))

    with statedb.connect(url, pool_size=4) as wide:
        rival.start()
        began = time.monotonic()
        # Three seconds of it, or as long as it takes until there was enough to meet.
        while (elapsed := time.monotonic() - began) < 3 or (met() <= 30 and elapsed < 60):
            turn += 1
            shuffled = random.Random(turn).sample(keys, len(keys))
            futures = [wide.state.setState(*key, turn) for key in shuffled]
            sets += _outcomes(futures).count(turn)
        rival.stop.set()
        rival.join()
    assert (rival.deadlocks, rival.failures) == ([], [])
    assert sets == turn * len(keys)
    # Else there was nothing to meet.
    assert met() > 30, (rival.commits, turn)


# --- Futures ---


def test_those_that_are_cancelled_while_they_wait_harm_no_other(
    narrow: Database, objectid: int, second: Any, stored: Stored
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(40), "before"))
    with _waiting(narrow):
        sets = [narrow.state.setState(objectid, name, "after") for name in _names(40)]
        gets = [narrow.state.getState(objectid, "absent", number) for number in range(40)]
        assert all(future.cancel() for future in sets[::3] + gets[::3])
        behind = [narrow.state.getState(objectid, name) for name in _names(40)]
    expected = ["before" if number % 3 == 0 else "after" for number in range(40)]
    assert _outcomes(behind) == expected
    assert [stored(objectid, name) for name in _names(40)] == expected
    for number, (one, other) in enumerate(zip(sets, gets, strict=True)):
        if number % 3:
            assert (one.result(timeout=30), other.result(timeout=30)) == ("after", number)
        else:
            for future in (one, other):
                with pytest.raises(CancelledError):
                    future.result(timeout=30)


@pytest.mark.parametrize("cancel_futures", [False, True])
def test_closing_with_many_that_wait_together_finishes_or_cancels_them(
    url: str, objectid: int, second: Any, stored: Stored, cancel_futures: bool
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(200)[::2], "before"))
    db = statedb.connect(url, pool_size=2)
    with _waiting(db, 2):
        sets = [db.state.setState(objectid, name, "after") for name in _names(200)]
        gets = [db.state.getState(objectid, "absent", number) for number in range(200)]
        closer = threading.Thread(target=db.close, kwargs={"cancel_futures": cancel_futures})
        closer.start()
        _wait_until(lambda: "closed" in repr(db))
        # close() says first that it is closed, and then what becomes of those that wait.
        _wait_until(lambda: db._executor._workers._cancelling is cancel_futures)
    closer.join(30)
    assert not closer.is_alive()
    assert all(future.done() for future in sets + gets)
    if cancel_futures:
        assert all(future.cancelled() for future in sets + gets)
        assert [stored(objectid, name) for name in ("k0", "k1")] == ["before", ABSENT]
    else:
        assert _outcomes(sets + gets) == ["after"] * 200 + list(range(200))
        assert [stored(objectid, name) for name in _names(200)] == ["after"] * 200


@pytest.mark.parametrize("asks", ["for one before", "for one behind", "anew"])
@pytest.mark.parametrize("name", ["getState", "setState"])
def test_a_done_callback_may_wait_for_another_that_travelled_with_it(
    url: str, objectid: int, second: Any, name: str, asks: str
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(20), "before"))
    arguments = ["after"] if name == "setState" else []
    seen: list[Any] = []
    with statedb.connect(url, pool_size=4) as db:
        submit = getattr(db.state, name)

        def ask(future: Future[Any]) -> None:
            if asks == "anew":
                other = submit(objectid, "k7", *arguments)
            else:
                other = futures[-1 if asks == "for one behind" else 0]
            seen.append(_outcome(other.result, timeout=5))

        with _waiting(db, 4):
            futures = [submit(objectid, each, *arguments) for each in _names(20)]
            futures[10].add_done_callback(ask)
        results = _outcomes(futures)
    assert results == ["after" if arguments else "before"] * 20
    assert seen == results[:1]


@pytest.mark.parametrize("other", ["that waited with it", "that comes after it"])
def test_closing_hangs_by_no_done_callback_that_waits_for_another(
    url: str, objectid: int, other: str
) -> None:
    db = statedb.connect(url, pool_size=2)
    with _waiting(db, 2):
        first = db.state.setState(objectid, "k0", 1)
        second = db.state.setState(objectid, "k1" if "with" in other else "k0", 2)
        seen: list[bool] = []
        first.add_done_callback(lambda _: seen.append(bool(wait([second], timeout=10).done)))
        closer = threading.Thread(target=db.close, kwargs={"cancel_futures": True})
        closer.start()
        _wait_until(lambda: db._executor._workers._cancelling)
    closer.join(30)
    assert seen == [True]
    assert first.cancelled()
    assert second.cancelled()


def test_who_is_interrupted_while_he_submits_leaves_nothing_that_hangs(
    url: str, objectid: int, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    db = statedb.connect(url)
    db.state.thdGetObjects()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            db.state.setState(objectid, "k", 1)
    assert db.state.getState(objectid, "k", "nothing").result(timeout=30) == "nothing"
    db.close()
    assert stored(objectid, "k") is ABSENT


@pytest.fixture
def interrupt_submitting(db: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Submits a call, and is interrupted when that is in line; before it, does something."""
    lanes = db._executor._workers._lanes

    def interrupt(submit: Callable[[], object], act: Callable[[], object] = lambda: None) -> None:
        admit = lanes.admit

        def interrupted(*args: Any) -> bool:
            admit(*args)
            act()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(lanes, "admit", interrupted)
            submit()

    return interrupt


def test_who_is_interrupted_behind_another_lets_those_follow_who_come_behind_him(
    db: Database, objectid: int, stored: Stored, interrupt_submitting: Callable[..., None]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(found: object) -> int:
        begun.set()
        return int(go_on.wait(30))

    first = db.state.updateState(objectid, "k", hold, None)
    assert begun.wait(30)
    for _ in range(2):
        interrupt_submitting(lambda: db.state.setState(objectid, "k", 2))
    last = db.state.updateState(objectid, "k", lambda found: found + 2)
    assert not wait([last], timeout=0.1).done
    assert not last.running()
    assert db.stats().pending == 2
    go_on.set()
    assert (first.result(timeout=30), last.result(timeout=30)) == (1, 3)
    assert stored(objectid, "k") == 3
    _wait_until(lambda: db.stats().pending == 0)


def test_who_is_interrupted_while_it_is_closed_keeps_nobody_from_ending(
    db: Database, objectid: int, interrupt_submitting: Callable[..., None]
) -> None:
    db.state.setState(objectid, "k", 1).result(timeout=30)
    workers = db._executor._workers
    # As where a Database is collected just then.
    interrupt_submitting(
        lambda: db.state.setState(objectid, "k", 2), lambda: db._executor.close(wait=False)
    )
    _wait_until(lambda: not workers._threads)
    db.close()


def test_who_is_interrupted_between_waking_and_noting_it_has_the_next_one_woken(
    db: Database, objectid: int
) -> None:
    db.state.setState(objectid, "k", 1).result(timeout=30)
    workers = db._executor._workers
    _wait_until(lambda: bool(workers._sleepers))
    # What he leaves among those that sleep.
    workers._sleepers.append(threading.Lock())
    assert db.state.setState(objectid, "k", 2).result(timeout=30) == 2


#: Submits, and is interrupted anywhere in that, again and again.
INTERRUPTED = """
import random, signal, sys, time
import statedb

def interrupt(*_):
    raise KeyboardInterrupt

random.seed(1)
signal.signal(signal.SIGALRM, interrupt)
with statedb.connect(sys.argv[1], max_pending=100) as db:
    objectid = db.state.thdGetObjectId("nightly", "Scheduler")
    interrupts = 0
    end = time.monotonic() + 4
    while interrupts <= 50 or time.monotonic() < end:
        key = str(interrupts % 50)
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.002))
            while True:
                try:
                    db.state.setState(objectid, key, 1)
                except statedb.QueueFullError:
                    time.sleep(0.001)
        except KeyboardInterrupt:
            interrupts += 1
        while db.stats().pending == 100:
            time.sleep(0.001)
        assert db.state.getState(objectid, key, 1).result(30) == 1
    db.close()
    print(interrupts, db.stats().pending)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timers")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="interrupts come between any two operations")
def test_who_is_interrupted_anywhere_in_submitting_blocks_nobody(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where coverage is measured an interrupt may fall into what measures it.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    (line,) = documents.run(INTERRUPTED, tmp_path, url)
    interrupts, pending = map(int, line.split())
    assert interrupts > 50
    assert pending == 0


def test_done_callbacks_are_called_once_and_in_their_order(db: Database, objectid: int) -> None:
    called: list[tuple[int, int]] = []

    def call(number: int, which: int, future: Future[Any]) -> None:
        called.append((number, which))

    with _waiting(db, 4):
        futures = [db.state.setState(objectid, name, 1) for name in _names(20)]
        for number, future in enumerate(futures):
            for which in range(2):
                future.add_done_callback(partial(call, number, which))
        assert futures[19].cancel()
        # Who cancels calls back, at once.
        assert called == [(19, 0), (19, 1)]
    wait(futures, timeout=30)
    # On what is done, whoever adds a callback calls it at once.
    late: list[Future[Any]] = []
    for future in futures:
        future.add_done_callback(late.append)
    assert late == futures
    db.close()
    assert sorted(called) == [(number, which) for number in range(20) for which in range(2)]
    for number in range(20):
        assert called.index((number, 0)) < called.index((number, 1))


def test_what_travelled_together_is_pending_no_more(
    narrow: Database, url: str, objectid: int
) -> None:
    with statedb.connect(url, pool_size=2, max_pending=100) as db:
        for turn in range(3):
            with _waiting(db, 2):
                futures = [db.state.setState(objectid, name, turn) for name in _names(49)]
                futures += [db.state.getState(objectid, "absent", turn) for _ in range(49)]
                assert futures[0].cancel()
                with pytest.raises(QueueFullError, match="100 futures are pending"):
                    db.state.setState(objectid, "k", 1)
            assert _outcomes(futures[1:]) == [turn] * 97
            # A Future that was cancelled counts until its turn has come.
            _wait_until(lambda: db._executor._workers._pending == 0)


class _Exits(dict[str, Any]):
    """A value that is no good in a way that not even an Exception tells."""

    def values(self) -> Any:
        raise SystemExit("a value's own")


def test_a_value_that_ends_threads_ends_no_worker_and_harms_no_other(
    narrow: Database, objectid: int, second: Any, stored: Stored
) -> None:
    set_states(second, objectid, dict.fromkeys(_names(10), "before"))
    with _waiting(narrow):
        futures = [narrow.state.setState(objectid, name, "after") for name in _names(10)]
        futures.insert(5, narrow.state.setState(objectid, "k", _Exits(k=1)))
    with pytest.raises(SystemExit, match="a value's own"):
        futures.pop(5).result(timeout=10)
    assert _outcomes(futures) == ["after"] * 10
    assert [stored(objectid, name) for name in ("k0", "k9", "k")] == ["after", "after", ABSENT]


class _Value(dict[str, Any]):
    """A legal value that can be watched."""


def test_nothing_of_what_is_finished_is_kept(narrow: Database, objectid: int) -> None:
    kept: list[weakref.ref[Any]] = []

    def value() -> _Value:
        made = _Value(k=1)
        kept.append(weakref.ref(made))
        return made

    with _waiting(narrow):
        futures = [narrow.state.setState(objectid, name, value()) for name in _names(20)]
        futures += [narrow.state.setStates(objectid, value()) for _ in range(3)]
        futures += [narrow.state.getState(objectid, "absent", value()) for _ in range(20)]
        futures += [narrow.state.getState(objectid, "absent") for _ in range(3)]
        futures += [narrow.state.setState(objectid, "invalid", {1: value(), "1": 2})]
    wait(futures, timeout=60)
    assert sum(future.exception() is not None for future in futures) == 4
    kept += [weakref.ref(future) for future in futures]
    kept += [weakref.ref(future.exception()) for future in futures if future.exception()]
    futures.clear()
    # The worker that has resolved the last one is about to let go of it.
    _wait_until(lambda: gc.collect() >= 0 and not any(one() for one in kept))


# --- Of one call ---


@pytest.mark.parametrize(
    ("lengths", "statements"),
    [
        ([1, 1, 1], 1),
        ([1, 1, 1, 1], 2),
        ([5, 5], 1),
        ([5, 6], 2),
        ([4, 4, 4], 2),
        ([6, 6, 6], 3),
        ([11], 1),
        ([11, 11], 2),
    ],
)
def test_values_set_at_once_are_no_more_to_a_statement_than_a_server_takes(
    engine: Engine,
    sent: list[str],
    url: str,
    objectid: int,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
    lengths: list[int],
    statements: int,
) -> None:
    monkeypatch.setattr(states, "MAX_ROWS_IN_STATEMENT", 3)
    values = {f"k{number}": 10 ** (length - 1) for number, length in enumerate(lengths)}
    with statedb.connect(url) as own:
        own.state.thdGetObjects()
        sent.clear()
        # Of two, ten for the values, and the rest for the names, as they are sent.
        name = own.run(lambda conn: conn.binary(b"k0"))
        monkeypatch.setattr(states, "MAX_CHARACTERS", 10 + 2 * len(name))
        assert own.state.thdSetStates(objectid, values) == values
    written = [one for one in sent if one.startswith("INSERT INTO statedb_states")]
    # SQLite takes them one by one, as executemany() gives them.
    assert len(written) == (1 if engine.name == "sqlite" else statements)
    assert {name: stored(objectid, name) for name in values} == values


def test_of_few_names_the_values_are_looked_up_and_of_many_all_are_read(
    narrow: Database, sent: list[str], objectid: int
) -> None:
    every = statedb.dialects.statements(narrow._executor._dialect)["select_values"]
    for count in (1, MAX_NAMES_IN_STATEMENT):
        narrow.state.thdGetStates(objectid, _names(count))
        assert sent[-1] != every
    narrow.state.thdGetStates(objectid, _names(MAX_NAMES_IN_STATEMENT + 1))
    assert sent[-1] == every
