"""The tables: created, checked, upgraded; and the statements that use them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, OwnServer

import statedb
from statedb import DatabaseError, SchemaError, schema, sqlfiles
from statedb.claims import claim
from statedb.connection import Connection, adapt
from statedb.place import take_place

TABLES = {
    "statedb_schema",
    "statedb_objects",
    "statedb_states",
    "statedb_masters",
    "statedb_claims",
}


@pytest.fixture
def empty(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    with engine.empty_database(tmp_path) as url:
        yield url


@pytest.fixture
def fresh(empty: str) -> str:
    """The URL of a database whose tables were made just now; in each of them there are two rows."""
    with statedb.connect(empty) as db:
        db.upgrade()
        for name in ("first", "second"):
            objectid = db.state.thdGetObjectId(name, "B")
            db.state.thdSetStates(objectid, {"k": 1, "l": 2})
            with db.transaction() as conn:
                place = take_place(conn, name, 600.0)
                claim(conn, place.masterid, "scheduler", name)
    return empty


@pytest.fixture
def own_of_fresh(engine: Engine, fresh: str) -> Iterator[Any]:
    """An application's own connection to it, in autocommit."""
    with contextlib.closing(engine.connect(fresh, autocommit=True)) as own:
        yield own


def _execute(engine: Engine, url: str, sql: str) -> Any:
    with contextlib.closing(engine.connect(url, autocommit=True)) as own:
        cursor = own.cursor()
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


def _version(engine: Engine, url: str) -> Any:
    return _execute(engine, url, "SELECT MAX(version) FROM statedb_schema")[0][0]


def test_missing_tables_are_an_error_that_says_what_to_do_and_sqlites_are_made(
    engine: Engine, empty: str
) -> None:
    with statedb.connect(empty) as db:
        if engine.name == "sqlite":
            assert db.state.thdGetObjectId("a", "B") == 1
            assert _version(engine, empty) == schema.VERSION
            return
        for call in (
            lambda: db.state.thdGetObjectId("a", "B"),
            lambda: db.state.getObjectId("a", "B").result(),
            db.transaction().__enter__,
        ):
            with pytest.raises(SchemaError, match=r"tables of statedb are missing.*upgrade --url"):
                call()
        db.upgrade()
        assert db.state.thdGetObjectId("a", "B") == 1


def test_tables_of_others_are_none_of_ours(engine: Engine, empty: str) -> None:
    _execute(engine, empty, "CREATE TABLE others (version INTEGER)")
    with statedb.connect(empty) as db:
        if engine.name != "sqlite":
            with pytest.raises(SchemaError, match="tables of statedb are missing"):
                db.state.thdGetObjects()
            db.upgrade()
        assert db.state.thdGetObjects() == []
    assert _version(engine, empty) == schema.VERSION


def test_upgrading_again_changes_nothing(engine: Engine, empty: str) -> None:
    with statedb.connect(empty) as db:
        db.upgrade()
        objectid = db.state.thdGetObjectId("a", "B")
        db.state.thdSetState(objectid, "k", "kept")
        db.upgrade()
        assert db.state.thdGetState(objectid, "k") == "kept"
    assert _execute(engine, empty, "SELECT version FROM statedb_schema") in (
        [(schema.VERSION,)],
        ((schema.VERSION,),),
    )


def _become_older(engine: Engine, url: str) -> None:
    """Have the tables call themselves those of version 1, which had no masters."""
    _execute(engine, url, "DELETE FROM statedb_schema")
    _execute(engine, url, "INSERT INTO statedb_schema (version) VALUES (1)")


def test_the_tables_of_version_1_get_those_of_the_masters_and_lose_nothing(
    engine: Engine, empty: str
) -> None:
    with statedb.connect(empty) as db:
        db.upgrade()
        objectid = db.state.thdGetObjectId("a", "B")
        db.state.thdSetState(objectid, "k", "kept")
    for table in ("statedb_masters", "statedb_claims"):
        _execute(engine, empty, f"DROP TABLE {table}")
    _become_older(engine, empty)
    with statedb.connect(empty) as db:
        with pytest.raises(SchemaError, match=r"of version 1.*db.upgrade"):
            db.masters.thdFindMasterId("host")
        db.upgrade()
        assert db.masters.thdFindMasterId("host") == 1
        assert db.state.thdGetState(objectid, "k") == "kept"
    assert _version(engine, empty) == schema.VERSION


def test_whoever_upgrades_older_tables_makes_all_masters_active_long_time_ago(
    engine: Engine, empty: str
) -> None:
    with statedb.connect(empty) as db:
        db.upgrade()
        active, inactive = (db.masters.thdFindMasterId(name) for name in ("one", "two"))
        db.masters.thdSetMasterState(active, True)
    _become_older(engine, empty)
    with ThreadPoolExecutor(20) as executor:
        list(executor.map(lambda _: _upgrade(empty), range(20)))
    with contextlib.closing(engine.connect(empty, autocommit=True)) as second:
        found = statedb.masters.get_masters(second)
        assert [one.id for one in found] == [active, inactive]
        assert all(one.active and one.last_active.timestamp() == 0 for one in found)
    # One made active before, and one change of all: no other process has done it again.
    rows = _execute(
        engine, empty, "SELECT incarnation, heartbeats FROM statedb_masters ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [(1, 2), (1, 1)]
    with statedb.connect(empty) as db:
        assert len(db.masters.thdExpireMasters()) == 2
        db.upgrade()
        assert not any(one.active for one in db.masters.thdGetMasters())


def _upgrade(url: str) -> None:
    with statedb.connect(url, timeout=60) as db:
        db.upgrade()


@pytest.mark.parametrize(("version", "advice"), [(0, "upgrade"), (999, "upgrade statedb")])
def test_tables_of_another_version_are_an_error(
    engine: Engine, empty: str, version: int, advice: str
) -> None:
    with statedb.connect(empty) as db:
        db.upgrade()
    _execute(engine, empty, f"UPDATE statedb_schema SET version = {version}")
    if version == 0 and engine.name == "sqlite":
        return  # a version that never was, and so the same as none: made complete
    with statedb.connect(empty) as db, pytest.raises(SchemaError, match=advice):
        db.state.thdGetObjectId("a", "B")
    if version == 999:
        with statedb.connect(empty) as db, pytest.raises(SchemaError, match="of version 999"):
            db.upgrade()
        assert _version(engine, empty) == 999


def test_tables_that_are_half_there_are_made_whole(engine: Engine, empty: str) -> None:
    with statedb.connect(empty) as db:
        db.upgrade()
    _execute(engine, empty, "DROP TABLE statedb_states")
    _execute(engine, empty, "DELETE FROM statedb_schema")
    with statedb.connect(empty) as db:
        if engine.name != "sqlite":
            with pytest.raises(SchemaError):
                db.state.thdGetObjectId("a", "B")
        db.upgrade()
        objectid = db.state.thdGetObjectId("a", "B")
        assert db.state.thdSetState(objectid, "k", 1) == 1


def _open_and_create(barrier: Any, queue: Any, url: str) -> None:
    try:
        barrier.wait(60)
        with statedb.connect(url, timeout=60) as db:
            db.upgrade()
            objectid = db.state.thdGetObjectId("new", "Object")
            value = db.state.thdAtomicCreateState(objectid, "k", os.getpid)
        queue.put((objectid, value))
    except BaseException as error:
        queue.put(repr(error))


def test_many_processes_that_create_the_tables_at_once_agree(engine: Engine, empty: str) -> None:
    context = multiprocessing.get_context("spawn")
    count = 10
    barrier, queue = context.Barrier(count), context.Queue()
    processes = [
        context.Process(target=_open_and_create, args=(barrier, queue, empty)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    results = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    queue.close()
    queue.join_thread()
    assert len(set(results)) == 1, results
    assert results[0][0] == 1


@contextlib.contextmanager
def _weak_role(engine: Engine, url: str) -> Iterator[str]:
    """A PostgreSQL URL by which no tables can be made."""
    role = f"weak_{os.getpid()}"
    _execute(engine, url, f"CREATE ROLE {role} LOGIN")
    try:
        yield url.replace("postgres@", f"{role}@")
    finally:
        _execute(engine, url, f"DROP ROLE {role}")


def test_without_the_right_to_create_tables_the_error_says_so(engine: Engine, empty: str) -> None:
    if not engine.name.startswith("postgresql"):
        pytest.skip("PostgreSQL only")
    with (
        _weak_role(engine, empty) as weak,
        statedb.connect(weak) as db,
        pytest.raises(DatabaseError, match="permission denied"),
    ):
        db.upgrade()


def test_an_upgrade_that_fails_on_an_applications_connection_keeps_no_lock(
    engine: Engine, empty: str
) -> None:
    if not engine.name.startswith(("mariadb", "mysql")):
        pytest.skip("elsewhere the lock ends with the transaction")
    account = f"'weak_{os.getpid()}'@'%'"
    _execute(engine, empty, f"CREATE USER {account}")
    try:
        name = empty.partition("?")[0].rpartition("/")[2]
        _execute(engine, empty, f"GRANT SELECT ON `{name}`.* TO {account}")
        weak = empty.replace("root@", f"weak_{os.getpid()}@")
        with contextlib.closing(engine.connect(weak, autocommit=True)) as own:
            with pytest.raises(own.OperationalError, match="CREATE command denied"):
                schema.upgrade(own)
            with statedb.connect(empty, timeout=5) as db:
                db.upgrade()
    finally:
        _execute(engine, empty, f"DROP USER {account}")


def test_an_upgrade_that_fails_in_an_applications_transaction_says_why_and_leaves_nothing(
    engine: Engine, empty: str
) -> None:
    if not engine.name.startswith("postgresql"):
        pytest.skip("PostgreSQL only: elsewhere a failure ends no transaction")
    with (
        _weak_role(engine, empty) as weak,
        contextlib.closing(engine.connect(weak)) as own,
    ):
        # Not that the transaction, in which a lock could be given back, has failed.
        with pytest.raises(own.ProgrammingError, match="permission denied"):
            schema.upgrade(own)
        own.rollback()
        with statedb.connect(empty, timeout=5) as db:
            db.upgrade()


def test_each_schema_of_a_database_has_tables_of_its_own(engine: Engine, fresh: str) -> None:
    if not engine.name.startswith("postgresql"):
        pytest.skip("PostgreSQL only")
    other = f"other_{os.getpid()}"
    _execute(engine, fresh, f"CREATE SCHEMA {other}")
    try:
        option = f"options=-c%20search_path%3D{other}"
        with statedb.connect(f"{fresh}{'&' if '?' in fresh else '?'}{option}") as db:
            with pytest.raises(SchemaError, match="upgrade"):
                db.state.thdGetObjects()
            db.upgrade()
            assert db.state.thdGetObjects() == []
            db.state.thdSetState(db.state.thdGetObjectId("third", "B"), "k", 1)
    finally:
        _execute(engine, fresh, f"DROP SCHEMA {other} CASCADE")
    with statedb.connect(fresh) as db:
        assert [one.name for one in db.state.thdGetObjects()] == ["first", "second"]


def test_the_command_line_upgrades(engine: Engine, empty: str) -> None:
    command = [sys.executable, "-m", "statedb", "upgrade"]
    for environment in ({}, {"STATEDB_URL": empty}):
        arguments = [] if environment else ["--url", empty]
        done = subprocess.run(
            command + arguments,
            capture_output=True,
            text=True,
            env=os.environ | environment,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert _version(engine, empty) == schema.VERSION


def test_the_tables_are_as_they_should_be(engine: Engine, fresh: str) -> None:
    if engine.name.startswith(("mariadb", "mysql")):
        found = _execute(
            engine,
            fresh,
            "SELECT table_name, engine FROM information_schema.tables"
            " WHERE table_schema = DATABASE() AND table_name LIKE 'statedb%'",
        )
        assert dict(found) == dict.fromkeys(TABLES, "InnoDB")
    elif engine.name.startswith("postgresql"):
        found = _execute(
            engine, fresh, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'statedb%'"
        )
        assert {row[0] for row in found} == TABLES
    else:
        found = _execute(
            engine,
            fresh,
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'statedb%'",
        )
        assert {row[0] for row in found} == TABLES


COLUMNS = {
    "statedb_schema": "version",
    "statedb_objects": "id identity_hash name class_name",
    "statedb_states": "objectid name_hash stamp name value",
    "statedb_masters": "id name_hash active incarnation heartbeats last_active name",
    "statedb_claims": "identity_hash token kind name",
}


def test_no_converter_of_an_applications_is_for_our_columns(engine: Engine, fresh: str) -> None:
    if engine.name != "sqlite":
        pytest.skip("sqlite3 only: it converts what a column's type has a converter for")
    for table in sorted(TABLES):
        for _, name, kind, *_ in _execute(engine, fresh, f"PRAGMA table_info({table})"):
            is_rowid = (table, name) == ("statedb_schema", "version") or name == "id"
            assert kind.startswith("STATEDB_") is not is_rowid, (table, name)


def test_nothing_that_a_row_must_have_can_be_absent(engine: Engine, fresh: str) -> None:
    for table, columns in COLUMNS.items():
        for column in columns.split():
            with pytest.raises(Exception, match=r"(?i)null|mismatch|default"):
                _execute(engine, fresh, f"UPDATE {table} SET {column} = NULL")


def test_no_two_rows_are_of_the_same_thing(engine: Engine, fresh: str) -> None:
    for table, column in (
        ("statedb_objects", "identity_hash"),
        ("statedb_states", "name_hash"),
        ("statedb_masters", "name_hash"),
        ("statedb_claims", "identity_hash"),
    ):
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            _execute(engine, fresh, f"UPDATE {table} SET {column} = '{'x' * 32}'")


def test_the_longest_names_and_the_largest_numbers_fit(engine: Engine, fresh: str) -> None:
    longest, largest = "x" * 65536, 2**62
    with statedb.connect(fresh) as db:
        objectid = db.state.thdGetObjectId(longest, longest)
        db.state.thdSetState(objectid, longest, longest * 50)
        masterid = db.masters.thdFindMasterId(longest)
        db.masters.thdSetMasterState(masterid, True)
        held = db.masters.thdClaim(masterid, longest, longest)
        assert db.state.thdGetObjects()[-1] == statedb.ObjectModel(objectid, longest, longest)
        assert db.state.thdGetStates(objectid) == {longest: longest * 50}
        assert db.masters.thdGetMasters()[-1].name == longest
        assert db.masters.thdGetClaims(masterid) == [held]
    for table, columns in (
        ("statedb_states", "stamp"),
        ("statedb_masters", "incarnation heartbeats last_active expire_after due expiry_stamp"),
        ("statedb_claims", "masterid token"),
    ):
        for column in columns.split():
            _execute(engine, fresh, f"UPDATE {table} SET {column} = {largest}")
            assert _execute(engine, fresh, f"SELECT MIN({column}) FROM {table}")[0][0] == largest


def test_ids_may_be_as_large_as_they_get(engine: Engine, fresh: str) -> None:
    last = 10_000_000_000
    for table in ("statedb_objects", "statedb_masters"):
        if engine.name == "sqlite":
            sql = f"UPDATE sqlite_sequence SET seq = {last} WHERE name = '{table}'"
        elif engine.name.startswith("postgresql"):
            sql = f"ALTER TABLE {table} ALTER COLUMN id RESTART WITH {last + 1}"
        else:
            sql = f"ALTER TABLE {table} AUTO_INCREMENT = {last + 1}"
        _execute(engine, fresh, sql)
    with statedb.connect(fresh, pool_size=1) as db:
        objectid = db.state.thdGetObjectId("third", "B")
        assert objectid > last
        assert db.state.thdSetStates(objectid, {"k": 1, "l": 2}) == {"k": 1, "l": 2}
        waiting = db.submit(lambda conn: time.sleep(0.1))  # so that the others travel together
        sets = [db.state.setState(objectid, name, 3) for name in "kl"]
        gets = [db.state.getState(objectid, name) for name in "kl"]
        assert [one.result(30) for one in (waiting, *sets, *gets)] == [None, 3, 3, 3, 3]
        with db.masters.join("third", interval=10) as member:
            assert member.id > last
            held = member.claim("scheduler", "third")
            assert db.masters.thdGetClaims(member.id) == [held]
            assert member.release(held) is True
        assert db.masters.thdForgetMaster(member.id) is True


def test_an_id_is_not_used_again_and_what_is_undone_is_undone(engine: Engine, fresh: str) -> None:
    with statedb.connect(fresh) as db:
        objectid = db.state.thdGetObjectId("third", "B")
        assert db.state.thdDeleteObject(objectid) is True
        assert db.state.thdGetObjectId("third", "B") > objectid
        masterid = db.masters.thdFindMasterId("third")
        assert db.masters.thdForgetMaster(masterid) is True
        assert db.masters.thdFindMasterId("third") > masterid
    with contextlib.closing(engine.connect(fresh)) as own:
        for table in sorted(TABLES - {"statedb_schema"}):
            own.cursor().execute(f"DELETE FROM {table}")
        own.rollback()
    for table in sorted(TABLES):
        assert _execute(engine, fresh, f"SELECT COUNT(*) FROM {table}")[0][0] > 0


def test_an_object_id_is_not_used_again_after_a_restart_of_the_server(
    server_engine: OwnServer, url: str
) -> None:
    assert server_engine.server is not None
    with statedb.connect(url) as db:
        first = db.state.thdGetObjectId("a", "B")
        db.state.thdDeleteObject(first)
        server_engine.server.restart()
        assert db.state.thdGetObjectId("a", "B") > first


def _parameters(text: str) -> dict[str, Any]:
    """Something for each parameter of a statement."""
    found = sqlfiles._PARAMETER.findall(text)
    # Arrays of whatever are marked as bytes are.
    numbers = {name for name, kind in found if kind == "s"}
    numbers |= {"objectid", "stamp", "token", "incarnation", "last_active", "expire_after"}
    texts = {"value", "session"}
    return {
        name: "1" if name in texts else 1 if name in numbers else b"\0" * 32 for name, _ in found
    }


def _for_one_row(conn: Connection, name: str, text: str) -> tuple[str, dict[str, Any]]:
    """A statement as it is sent about one row, with something for each parameter."""
    values = {
        key: conn.binary(value) if isinstance(value, bytes) else value
        for key, value in _parameters(text).items()
    }
    repeated = str(
        sqlfiles._EACH.findall(text) + re.findall(r"(?s)UNNEST\((.*?)\) (?:AS|WITH)", text)
    )
    rows = {key: [values.pop(key)] for key, _ in sqlfiles._PARAMETER.findall(repeated)}
    if not rows:
        return conn.sql[name], values
    sql, parameters = conn.sql.for_each(name, rows)
    return sql, values | parameters


def _explain(engine: Engine) -> str:
    """What asks for a plan as a table: MySQL 9 would draw a tree, which says it in other words."""
    if engine.name == "sqlite":
        return "EXPLAIN QUERY PLAN"
    return "EXPLAIN" if engine.name.startswith("postgresql") else "EXPLAIN FORMAT=TRADITIONAL"


def test_every_statement_is_understood_by_its_engine(
    engine: Engine, url: str, application: Callable[..., Any]
) -> None:
    own = application(autocommit=True)
    conn = adapt(own)
    source = sqlfiles.load(conn.dialect.sql)
    for name, text in source.items():
        if name.startswith("create_"):
            conn.execute(conn.sql[name])  # has no plan; safe to run again
            continue
        if name == "kill_session":
            continue  # nor has this: see test_who_tries_again_has_first_ended_what_was_lost
        sql, values = _for_one_row(conn, name, text)
        cursor = own.cursor()
        cursor.execute(f"EXPLAIN {sql}", values)
        assert cursor.fetchall(), name


def test_the_statements_of_the_hot_paths_use_an_index(
    engine: Engine, fresh: str, own_of_fresh: Any
) -> None:
    own = own_of_fresh
    conn = adapt(own)
    cursor = own.cursor()
    if engine.name.startswith("postgresql"):
        cursor.execute("SET enable_seqscan = off")
    source = sqlfiles.load(conn.dialect.sql)
    for name in (
        *("select_values_of_keys", "lock_values", "update_values"),
        *("select_value", "update_value", "select_object_id", "delete_value"),
        *("select_master", "select_master_id", "update_heartbeat", "select_overdue_masters"),
        *("select_claimant", "update_free_claim", "lock_claim", "select_claim_of_rival"),
        *("select_claim_counts", "lock_claims_of_masters", "update_claims_released"),
        *("select_page_of_values", "select_standings", "select_tokens"),
        *("lock_objects", "select_master_ids", "lock_object", "select_values", "delete_object"),
        *("lock_master", "lock_active_master", "delete_master", "select_values_named"),
    ):
        if name not in source:
            continue  # this engine has another way
        sql, values = _for_one_row(conn, name, source[name])
        cursor.execute(f"{_explain(engine)} {sql}", values)
        # What MySQL reads of its own results of a UNION is not a table.
        own_results = re.compile("<(union|derived)")
        steps = [str(step) for step in cursor.fetchall() if not own_results.search(str(step))]
        plan = " ".join(steps).lower()
        assert "seq scan" not in plan, name
        assert "scan statedb" not in plan, name
        if (engine.name, name) == ("sqlite", "select_overdue_masters"):
            assert "active=? and expire_after=? and last_active<?" in plan
        assert "'all'" not in plan, name


def test_a_page_of_masters_in_the_order_in_which_they_were_seen_needs_no_sorting(
    engine: Engine, own_of_fresh: Any
) -> None:
    conn = adapt(own_of_fresh)
    cursor = own_of_fresh.cursor()
    if engine.name.startswith("postgresql"):
        cursor.execute("SET enable_seqscan = off")
    sql = conn.sql.rewritten("select_masters", {"order": "last_active,", "page": "LIMIT 1"})
    cursor.execute(f"{_explain(engine)} {sql}")
    plan = str(cursor.fetchall()).lower()
    assert "statedb_masters_last_active" in plan
    assert "sort" not in plan
    assert "temp b-tree" not in plan


@pytest.mark.parametrize(
    ("index", "names"),
    [
        ("PRIMARY", "update_free_claim update_claim_released update_claim_of_token_released"),
        ("PRIMARY", "update_heartbeat update_master_left"),
        ("statedb_claims_masterid", "lock_claims_of_masters update_claims_released"),
    ],
)
def test_mysql_locks_rows_by_the_index_that_all_others_go_by(
    engine: Engine, fresh: str, index: str, names: str
) -> None:
    if not engine.name.startswith(("mariadb", "mysql")):
        pytest.skip("only MySQL locks all that it passes on its way to a row")
    with contextlib.closing(engine.connect(fresh, autocommit=True)) as own:
        conn = adapt(own)
        source = sqlfiles.load(conn.dialect.sql)
        cursor = own.cursor()
        # What is asked for is there, or the planner would know that there is nothing to find.
        cursor.execute("SELECT identity_hash, masterid FROM statedb_claims LIMIT 1")
        ((identity_hash, masterid),) = cursor.fetchall()
        for name in names.split():
            sql, values = _for_one_row(conn, name, source[name])
            values |= {
                key: conn.binary(identity_hash) if key == "identity_hash" else masterid
                for key in values
                if key in ("identity_hash", "masterid", "masterid_0")
            }
            cursor.execute(f"{_explain(engine)} {sql}", values)
            place = [column[0] for column in cursor.description].index("key")
            assert index in [step[place] for step in cursor.fetchall()], name
