"""Races, with real threads, processes and connections: who wins, and what the loser sees."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import ABSENT, Call
from engines import Engine
from interposed import interpose

import statedb
from statedb import Database
from statedb.masters import find_master_id
from statedb.state import (
    delete_object,
    get_object_id,
    get_state,
    set_state,
    set_states,
    update_state,
)

Stored = Callable[[int, str], Any]


def _together(work: Callable[[int], Any], threads: int) -> list[Any]:
    """What each of so many threads returns, all of them let go at once."""
    barrier = threading.Barrier(threads)

    def one(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(one, range(threads)))


def _in_processes(target: Callable[..., None], count: int, *arguments: Any) -> list[Any]:
    """What each of so many processes puts into its queue, all of them let go at once."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=target, args=(barrier, queue, *arguments)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    results = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    queue.close()
    queue.join_thread()
    return results


def _ask_for_an_id(barrier: Any, queue: Any, url: str) -> None:
    with statedb.connect(url) as db:
        barrier.wait()
        ids = _together(lambda _: db.state.thdGetObjectId("new", "Object"), 7)
        queue.put(ids)


def _create(barrier: Any, queue: Any, url: str, objectid: int) -> None:
    with statedb.connect(url) as db:
        barrier.wait()
        own = [f"{time.monotonic_ns()}-{number}" for number in range(7)]
        queue.put(
            _together(
                lambda number: db.state.thdAtomicCreateState(objectid, "k", lambda: own[number]), 7
            )
        )


def _increment(barrier: Any, queue: Any, url: str, objectid: int) -> None:
    def add(value: int) -> int:
        return value + 1

    with statedb.connect(url, timeout=120) as db:
        barrier.wait()

        def count(_: int) -> None:
            for _ in range(250):
                db.state.thdUpdateState(objectid, "counter", add, 0)

        _together(count, 4)
        queue.put("done")


def test_fifty_threads_and_eight_processes_get_one_new_id(url: str, db: Database) -> None:
    ids = _together(lambda _: db.state.thdGetObjectId("thread's", "Object"), 50)
    assert len(set(ids)) == 1
    found = _in_processes(_ask_for_an_id, 8, url)
    assert len({one for ids in found for one in ids}) == 1
    assert [one.name for one in db.state.thdGetObjects()] == ["thread's", "new"]


def test_fifty_threads_and_eight_processes_create_one_value(
    url: str, db: Database, objectid: int, stored: Stored
) -> None:
    returned = _together(
        lambda number: db.state.thdAtomicCreateState(objectid, "t", lambda: number), 50
    )
    assert set(returned) == {stored(objectid, "t")}
    found = _in_processes(_create, 8, url, objectid)
    assert {one for values in found for one in values} == {stored(objectid, "k")}


def test_a_null_is_created_once(db: Database, objectid: int, stored: Stored) -> None:
    assert (
        _together(lambda number: db.state.thdAtomicCreateState(objectid, "k", lambda: None), 20)
        == [None] * 20
    )
    assert db.state.thdAtomicCreateState(objectid, "k", lambda: "again") is None
    assert stored(objectid, "k") is None


def test_no_increment_of_eight_processes_is_lost(url: str, objectid: int, stored: Stored) -> None:
    _in_processes(_increment, 8, url, objectid)
    assert stored(objectid, "counter") == 8000


# --- A rival between the statements of one set_state ---


@pytest.fixture(params=["direct", "direct, in a transaction", "sync", "future"])
def set_beside_a_rival(
    request: pytest.FixtureRequest, engine: Engine, url: str
) -> Callable[..., Any]:
    """Sets a value while a rival does something just before our INSERT reaches the server."""
    kind: str = request.param

    def set_(objectid: int, name: str, value: Any, rival: Callable[[], None]) -> Any:
        with interpose("INSERT INTO statedb_states", rival):
            if kind in ("sync", "future"):
                with statedb.connect(url) as db:
                    if kind == "sync":
                        return db.state.thdSetState(objectid, name, value)
                    return db.state.setState(objectid, name, value).result(timeout=60)
            with contextlib.closing(engine.connect(url, autocommit=kind == "direct")) as own:
                returned = set_state(own, objectid, name, value)
                own.commit()
                return returned

    return set_


def test_a_rival_that_creates_the_name_meanwhile_wins(
    engine: Engine,
    url: str,
    objectid: int,
    set_beside_a_rival: Callable[..., Any],
    stored: Stored,
    request: pytest.FixtureRequest,
) -> None:
    if engine.name == "sqlite" and "transaction" in request.node.name:
        pytest.skip("SQLite's one writer is the application: no rival can write meanwhile")

    def rival() -> None:
        with contextlib.closing(engine.connect(url, autocommit=True)) as other:
            assert set_state(other, objectid, "k", "the rival's") == "the rival's"

    assert set_beside_a_rival(objectid, "k", "ours", rival) == "the rival's"
    assert stored(objectid, "k") == "the rival's"
    with contextlib.closing(engine.connect(url, autocommit=True)) as own:
        assert set_state(own, objectid, "k", "ours") == "ours"


def test_at_repeatable_read_the_rival_wins_too(
    engine: Engine, url: str, objectid: int, application: Callable[..., Any], stored: Stored
) -> None:
    if engine.name not in ("mariadb", "mysql"):
        pytest.skip("PostgreSQL ends such a transaction with 40001, and SQLite has no such level")
    own = application()
    own.cursor().execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    own.begin()
    # The snapshot is taken before the rival comes.
    assert get_state(own, objectid, "k", ABSENT) is ABSENT

    def rival() -> None:
        with contextlib.closing(engine.connect(url, autocommit=True)) as other:
            set_state(other, objectid, "k", "the rival's")

    with interpose("INSERT INTO statedb_states", rival):
        assert set_state(own, objectid, "k", "ours") == "the rival's"
    own.commit()
    assert stored(objectid, "k") == "the rival's"


def test_applications_that_set_new_values_do_not_wait_for_each_other(
    engine: Engine, objectid: int, application: Callable[..., Any], stored: Stored
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's one writer is the first application")
    first, second = application(), application()
    second.cursor().execute(
        "SET lock_timeout = 5000"
        if engine.name.startswith("postgresql")
        else "SET innodb_lock_wait_timeout = 5"
    )
    # By default MySQL is at REPEATABLE READ: an UPDATE that finds nothing locks where it would be.
    assert set_state(first, objectid, "a", 1) == 1
    assert set_state(second, objectid, "b", 2) == 2
    assert set_state(second, objectid, "b", 3) == 3
    first.commit()
    second.commit()
    assert [stored(objectid, name) for name in "ab"] == [1, 3]


def test_a_value_deleted_before_the_loser_could_read_it_is_written_anew(
    engine: Engine, url: str, objectid: int, stored: Stored
) -> None:
    with contextlib.closing(engine.connect(url, autocommit=True)) as other:

        def create() -> None:
            set_state(other, objectid, "k", "the rival's")

        def delete() -> None:
            statedb.state.delete_state(other, objectid, "k")

        # Nobody reads a value but the loser, who looks for the winner's.
        with (
            interpose("INSERT INTO statedb_states", create),
            interpose("SELECT value", delete),
            statedb.connect(url) as db,
        ):
            assert db.state.thdSetState(objectid, "k", "ours") == "ours"
    assert stored(objectid, "k") == "ours"


@pytest.mark.parametrize("kind", ["direct", "sync", "future"])
@pytest.mark.parametrize("commits", [True, False])
def test_a_pending_insert_is_waited_for(
    engine: Engine,
    url: str,
    db: Database,
    objectid: int,
    application: Callable[..., Any],
    stored: Stored,
    kind: str,
    commits: bool,
) -> None:
    rival = application()
    set_state(rival, objectid, "k", "the rival's")
    with ThreadPoolExecutor(1) as executor:

        def ours() -> Any:
            if kind == "sync":
                return db.state.thdSetState(objectid, "k", "ours")
            if kind == "future":
                return db.state.setState(objectid, "k", "ours").result(timeout=60)
            with contextlib.closing(engine.connect(url, autocommit=True)) as own:
                return set_state(own, objectid, "k", "ours")

        pending = executor.submit(ours)
        time.sleep(0.3)
        assert not pending.done()
        rival.commit() if commits else rival.rollback()
        returned = pending.result(timeout=60)
    expected = "the rival's" if commits and engine.name.startswith("postgresql") else "ours"
    assert returned == expected
    assert stored(objectid, "k") == expected


@pytest.mark.parametrize(
    ("table", "add"),
    [
        ("objects", lambda conn: get_object_id(conn, "nightly", "Rival")),
        ("masters", lambda conn: find_master_id(conn, "host:/rival")),
    ],
    ids=["an object", "a master"],
)
def test_who_finds_a_name_just_taken_goes_on_in_his_transaction(
    engine: Engine,
    application: Callable[..., Any],
    objectid: int,
    second: Any,
    stored: Stored,
    table: str,
    add: Callable[[Any], int],
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's one writer is the application: no rival can write meanwhile")
    own = application()
    rivals: list[int] = []
    with interpose(f"INSERT INTO statedb_{table}", lambda: rivals.append(add(second))):
        assert add(own) == rivals[0]
    set_state(own, objectid, "k", "goes on")
    own.commit()
    assert stored(objectid, "k") == "goes on"


# --- Other writers between reading and writing ---


def test_a_value_deleted_and_created_again_meanwhile_loses_nobodys_write(
    engine: Engine, url: str, db: Database, objectid: int, stored: Stored
) -> None:
    db.state.thdSetState(objectid, "k", [0])
    with contextlib.closing(engine.connect(url, autocommit=True)) as other:
        seen = []

        def append(value: list[int]) -> list[int]:
            seen.append(value)
            if len(seen) == 1:
                statedb.state.delete_state(other, objectid, "k")
                set_state(other, objectid, "k", [0])
                update_state(other, objectid, "k", lambda value: [*value, 1])
            return [*value, 2]

        assert db.state.thdUpdateState(objectid, "k", append) == [0, 1, 2]
    assert seen == [[0], [0, 1]]
    assert stored(objectid, "k") == [0, 1, 2]


@pytest.mark.parametrize("deletes", [False, True])
@pytest.mark.parametrize(
    "write",
    [
        set_state,
        lambda own, objectid, name, value: set_states(own, objectid, {name: value}),
        lambda own, objectid, name, value: update_state(own, objectid, name, lambda _: value, 0),
    ],
    ids=["set", "several", "update"],
)
def test_an_update_mistakes_no_value_for_an_earlier_one_however_they_were_written(
    db: Database,
    objectid: int,
    second: Any,
    stored: Stored,
    write: Callable[..., Any],
    deletes: bool,
) -> None:
    for value in ([], [0]):  # created, and overwritten
        write(second, objectid, "k", value)
        if deletes:
            statedb.state.delete_state(second, objectid, "k")
    write(second, objectid, "k", [0])
    seen = []

    def append(value: list[int]) -> list[int]:
        seen.append(value)
        if len(seen) == 1:
            if deletes:
                statedb.state.delete_state(second, objectid, "k")
            write(second, objectid, "k", [1])
        return [*value, 2]

    assert db.state.thdUpdateState(objectid, "k", append) == [1, 2]
    assert seen == [[0], [1]]
    assert stored(objectid, "k") == [1, 2]


def test_a_creation_that_failed_in_a_savepoint_leaves_its_value_to_no_other(
    url: str, objectid: int, stored: Stored
) -> None:
    def fail() -> None:
        raise ZeroDivisionError  # as a driver's error would

    with (
        interpose("INSERT INTO statedb_states", fail),
        statedb.connect(url) as db,
        db.transaction() as conn,
    ):
        with pytest.raises(statedb.DatabaseError), conn.transaction():
            db.state.thdAtomicCreateState(objectid, "k", lambda: 1)
        assert db.state.thdAtomicCreateState(objectid, "k", lambda: 2) == 2
    assert stored(objectid, "k") == 2


@pytest.mark.parametrize("several", [False, True])
def test_an_update_that_a_set_overtakes_builds_on_it(
    call: Call, objectid: int, second: Any, stored: Stored, several: bool
) -> None:
    set_state(second, objectid, "k", 1)
    seen = []

    def count(value: int) -> int:
        seen.append(value)
        if len(seen) == 1 and several:
            set_states(second, objectid, {"k": 10, "l": 0})
        elif len(seen) == 1:
            set_state(second, objectid, "k", 10)
        return value + 1

    assert call(update_state, objectid, "k", count) == 11
    assert seen == [1, 10]
    assert stored(objectid, "k") == 11


def test_an_update_that_the_engine_undid_builds_on_what_a_rival_has_written_meanwhile(
    engine: Engine, url: str, objectid: int, stored: Stored
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite has no deadlocks")
    error: Exception
    if engine.name.startswith("postgresql"):
        import psycopg

        error = psycopg.errors.DeadlockDetected("deadlock detected")
    else:
        import pymysql

        error = pymysql.err.OperationalError(1213, "Deadlock found")
    with contextlib.closing(engine.connect(url, autocommit=True)) as other:
        set_state(other, objectid, "k", 1)

        def rival() -> None:
            set_state(other, objectid, "k", 10)
            raise error  # as the engine does that has chosen this statement's transaction

        with interpose("SET value =", rival), statedb.connect(url) as db:
            assert db.state.thdUpdateState(objectid, "k", lambda value: value + 1) == 11
    assert stored(objectid, "k") == 11


def test_an_update_that_finds_its_value_created_meanwhile_builds_on_it(
    engine: Engine, url: str, objectid: int, stored: Stored
) -> None:
    with contextlib.closing(engine.connect(url, autocommit=True)) as other:

        def rival() -> None:
            set_state(other, objectid, "k", 10)

        with interpose("INSERT INTO statedb_states", rival), statedb.connect(url) as db:
            assert db.state.thdUpdateState(objectid, "k", lambda value: value + 1, 0) == 11
    assert stored(objectid, "k") == 11


def test_setting_several_overwrites_what_a_rival_creates_meanwhile(
    engine: Engine, url: str, objectid: int, stored: Stored
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's one writer is ours: no rival can write meanwhile")
    with contextlib.closing(engine.connect(url, autocommit=True)) as other:

        def rival() -> None:
            set_state(other, objectid, "b", "the rival's")

        with interpose("INSERT INTO statedb_states", rival), statedb.connect(url) as db:
            written = db.state.thdSetStates(objectid, {"a": 1, "b": 2})
    assert written == {"a": 1, "b": 2}
    assert [stored(objectid, name) for name in ("a", "b")] == [1, 2]


def test_callers_who_set_the_same_names_at_once_never_mix_and_never_fail(
    db: Database, objectid: int
) -> None:
    names = [f"k{number}" for number in range(12)]

    def work(number: int) -> None:
        for turn in range(25):
            value = f"{number}-{turn}"
            in_this_order = names if number % 2 else names[::-1]
            db.state.thdSetStates(objectid, dict.fromkeys(in_this_order, value))
            assert len(set(db.state.thdGetStates(objectid).values())) == 1

    _together(work, 8)


def test_an_object_deleted_while_its_values_are_written_leaves_none_behind(
    url: str, db: Database, application: Callable[..., Any]
) -> None:
    for _ in range(20):
        objectid = db.state.thdGetObjectId("short-lived", "Object")

        def work(number: int, objectid: int = objectid) -> None:
            if number == 0:
                db.state.thdDeleteObject(objectid)
                return
            with contextlib.suppress(KeyError):
                for turn in range(10):
                    db.state.thdSetState(objectid, f"{number}-{turn}", 1)
                    db.state.thdSetStates(objectid, {f"{number}-{turn}": 2, "shared": 3})

        _together(work, 4)
    cursor = application().cursor()
    cursor.execute("SELECT count(*) FROM statedb_states")
    assert cursor.fetchone() == (0,)


def test_an_object_that_is_deleted_at_repeatable_read_leaves_no_value_behind(
    engine: Engine, db: Database, objectid: int, second: Any, application: Callable[..., Any]
) -> None:
    if engine.name == "sqlite":
        pytest.skip("who has read there writes nothing once another was faster")
    own = application()
    level = "TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    postgresql = engine.name.startswith("postgresql")
    own.cursor().execute(f"SET SESSION {'CHARACTERISTICS AS ' if postgresql else ''}{level}")
    own.commit()
    assert get_state(own, objectid, "late", None) is None
    db.state.thdSetState(objectid, "late", 1)
    if postgresql:
        with pytest.raises(Exception, match="could not serialize"):
            delete_object(own, objectid)
        own.rollback()
    assert delete_object(own, objectid) is True
    own.commit()
    cursor = second.cursor()
    cursor.execute("SELECT count(*) FROM statedb_states")
    assert cursor.fetchone() == (0,)


def test_a_value_created_while_its_object_is_deleted_is_none(
    url: str, db: Database, objectid: int, application: Callable[..., Any]
) -> None:
    deleted = threading.Event()
    creating = []

    def create() -> None:
        with db.transaction():
            db.state.thdSetState(objectid, "new", 1)
            deleted.wait(30)

    with ThreadPoolExecutor() as threads:

        def rival() -> None:
            creating.append(threads.submit(create))
            time.sleep(0.3)  # it has begun, and waits for us

        with interpose("DELETE FROM statedb_states", rival), statedb.connect(url) as deleting:
            assert deleting.state.thdDeleteObject(objectid) is True
        deleted.set()
        with pytest.raises(statedb.NoSuchObjectError):
            creating[0].result(30)
    cursor = application().cursor()
    cursor.execute("SELECT count(*) FROM statedb_states")
    assert cursor.fetchone() == (0,)


def test_of_two_applications_that_update_a_value_in_transactions_one_waits_for_the_other(
    objectid: int, stored: Stored, application: Callable[..., Any]
) -> None:
    with ThreadPoolExecutor() as threads:
        updating = []

        def add() -> int:
            own = application()
            total: int = update_state(own, objectid, "k", lambda value: value + 1)
            own.commit()
            return total

        def rival() -> None:
            updating.append(threads.submit(add))
            time.sleep(0.3)  # it has begun, and waits for us

        own = application(autocommit=True)
        set_state(own, objectid, "k", 1)
        with interpose("SET value =", rival):
            first = add()
        # SQLite's file is nobody's before the first write: there the rival may have been faster.
        assert {first, updating[0].result(30)} == {2, 3}
    assert stored(objectid, "k") == 3


def test_a_direct_caller_and_a_connector_see_each_others_writes(
    db: Database, objectid: int, application: Callable[..., Any]
) -> None:
    own = application(autocommit=True)
    set_states(own, objectid, {"a": 1})
    assert db.state.thdGetState(objectid, "a") == 1
    db.state.setState(objectid, "a", 2).result()
    assert get_state(own, objectid, "a") == 2
