"""PostgreSQL through PgBouncer: nothing fails, no setting is missing or left, nothing is late."""

from __future__ import annotations

import configparser
import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import documents
import psycopg
import pytest
from conftest import ABSENT, ENGINES
from engines import OwnServer
from onlooker import Onlooker
from poolers import Mode, PgBouncer
from proxy import Proxy

import statedb
from statedb import (
    CallTimeoutError,
    Connection,
    Database,
    DatabaseError,
    OutcomeUnknownError,
)

pytestmark = [
    pytest.mark.once,
    pytest.mark.parametrize(
        "engine",
        [one for one in ENGINES if one.name == "postgresql"],
        indirect=True,
        ids=lambda one: str(one.name),
    ),
]

MODES = ("transaction", "session")
in_each_mode = pytest.mark.parametrize("mode", MODES)
#: What a call may take beyond its timeout, on a machine that is slow.
GRACE = 2.0


@pytest.fixture
def port(server_engine: OwnServer) -> int:
    assert server_engine.server is not None
    return server_engine.server.port


@pytest.fixture
def name(url: str) -> str:
    """The test's database, which is empty but for the tables."""
    return url.rpartition("/")[2]


@contextlib.contextmanager
def pooled(pooler: PgBouncer, name: str, mode: str, **settings: Any) -> Iterator[Database]:
    """The database through the pooler, with the option for its mode."""
    with statedb.connect(f"{pooler.url(name)}?pooler={mode}", **settings) as db:
        yield db


def await_(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


# --- Many callers ---

HOWTO = (documents.ROOT / "docs/howto/pgbouncer.md").read_text("utf-8")
THREADS, ROUNDS = 8, 10
KINDS = 5


def as_in_the_howto(port: int, **settings: str) -> PgBouncer:
    """The pooler of the how-to's ini file, but for where it listens and who may log in."""
    (text,) = documents.blocks(HOWTO, "ini")
    told = configparser.ConfigParser()
    told.read_string(text)
    ini = dict(told["pgbouncer"])
    for setting in ("listen_addr", "listen_port", "auth_type", "auth_file"):
        del ini[setting]
    assert ini.pop("pool_mode") == "transaction"
    return PgBouncer(port, "transaction", **(ini | settings))


def test_the_how_tos_program_prints_what_is_said_beside_it(
    port: int, name: str, tmp_path: Path
) -> None:
    (program,) = documents.blocks(HOWTO, "python")
    place = "postgresql://app:password@127.0.0.1:6432/app"
    assert f'"{place}?pooler=transaction"' in program
    with as_in_the_howto(port) as pooler:
        printed = documents.run(program.replace(place, pooler.url(name)), tmp_path)
    assert printed == documents.said(program)


def test_four_hundred_operations_from_eight_threads_share_three_sessions(
    port: int, name: str, second: Any
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    with as_in_the_howto(port, default_pool_size="3") as pooler:
        together = threading.Barrier(THREADS)

        def work(db: Database, number: int) -> int:
            together.wait(60)
            done = 0
            for turn in range(ROUNDS):
                db.state.thdUpdateState(objectid, "count", lambda value: value + 1, 0)
                db.state.thdSetStates(objectid, {f"{number} a": turn, f"{number} b": turn})
                assert db.state.thdGetState(objectid, f"{number} b") == turn
                chosen = db.state.thdAtomicCreateState(objectid, f"first {turn}", lambda: number)
                assert 0 <= chosen < THREADS
                with db.transaction():
                    db.state.thdSetState(objectid, f"{number} c", turn)
                    assert db.state.thdGetState(objectid, f"{number} c") == turn
                done += KINDS
            return done

        with (
            pooled(pooler, name, "transaction", pool_size=THREADS) as db,
            ThreadPoolExecutor(THREADS) as threads,
        ):
            calls = [threads.submit(work, db, number) for number in range(THREADS)]
            assert sum(call.result(120) for call in calls) == THREADS * ROUNDS * KINDS == 400
            clients = pooler.ask("SHOW CLIENTS")
            servers = pooler.ask("SHOW SERVERS")
        assert sum(row["database"] == name for row in clients) == THREADS
        assert 0 < sum(row["database"] == name for row in servers) <= 3
        (stats,) = (row for row in pooler.ask("SHOW STATS") if row["database"] == name)
        assert stats["total_xact_count"] >= 400
    stored = statedb.state.get_states(second, objectid)
    assert stored["count"] == THREADS * ROUNDS
    assert {stored[f"{number} {key}"] for number in range(THREADS) for key in "abc"} == {ROUNDS - 1}
    assert len(stored) == 1 + 3 * THREADS + ROUNDS


@in_each_mode
def test_members_keep_their_places_and_claims_and_are_expired(
    mode: Mode, port: int, name: str, second: Any
) -> None:
    with (
        PgBouncer(port, mode, default_pool_size="20") as pooler,
        pooled(pooler, name, mode) as db,
        db.masters.join("here:/base", interval=0.2, expire_after=30) as member,
    ):
        silent = db.masters.thdFindMasterId("there:/base")
        db.masters.thdSetMasterState(silent, True)
        db.masters.thdClaim(silent, "scheduler", "nightly")
        Onlooker(second).silence(silent)
        assert [one.id for one in db.masters.thdExpireMasters()] == [silent]
        claim = member.claim("scheduler", "nightly")
        with db.transaction():
            db.masters.thdHoldClaim(claim)
        beats = Onlooker(second).masters()[member.id].heartbeats
        await_(lambda: Onlooker(second).masters()[member.id].heartbeats > beats + 2, "check-ins")
        assert not member.in_doubt.is_set()
        assert Onlooker(second).held_by(member.id) == {"nightly"}


def test_tables_are_made_through_a_pooler(
    server_engine: OwnServer, port: int, tmp_path: Any
) -> None:
    with server_engine.empty_database(tmp_path) as empty, PgBouncer(port, "transaction") as pooler:
        with pooled(pooler, empty.rpartition("/")[2], "transaction") as db:
            db.upgrade()
            assert db.state.thdGetObjectId("a", "B") == 1
        pooler.stop()
        with contextlib.closing(psycopg.connect(empty)) as own:
            assert statedb.state.get_object_id(own, "a", "B") == 1


# --- Settings ---

ASKED = ("transaction_isolation", "TimeZone", "lock_timeout", "application_name")


def _settings(conn: Connection) -> list[str]:
    return [conn.fetch_all(f"SHOW {setting}")[0][0] for setting in ASKED]


@in_each_mode
def test_what_is_written_has_its_settings_whatever_the_databases_are(
    mode: Mode, port: int, name: str, second: Any
) -> None:
    second.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    second.execute(f"ALTER DATABASE {name} SET TimeZone = 'Asia/Tokyo'")
    try:
        with PgBouncer(port, mode) as pooler, pooled(pooler, name, mode, timeout=5.0) as db:
            with db.transaction() as conn:
                isolation, zone, lock_timeout, session = _settings(conn)
                written = conn.fetch_all(
                    "WITH one AS (SELECT current_setting('application_name')) TABLE one"
                )
            assert (isolation, zone) == ("read committed", "UTC")
            assert 3000 < int(lock_timeout.removesuffix("ms")) < 5000
            assert session.startswith("statedb ")
            assert written == [(session,)]
            alone = db.run(lambda conn: conn.fetch_all("WITH one AS (SELECT 1) TABLE one"))
            assert alone == [(1,)]
    finally:
        second.execute(f"ALTER DATABASE {name} RESET ALL")


def test_no_setting_is_left_to_the_session_for_whoever_comes_next(
    port: int, name: str, second: Any
) -> None:
    shown = "SELECT current_setting('lock_timeout'), current_setting('TimeZone'), pg_backend_pid()"
    (before,) = second.execute(shown).fetchall()
    with PgBouncer(port, "transaction", default_pool_size="1") as pooler:
        with pooled(pooler, name, "transaction") as db:
            pid = db.run(lambda conn: conn.fetch_all("SELECT pg_backend_pid()"))[0][0]
            for number in range(10):
                db.state.thdSetState(db.state.thdGetObjectId("a", "B"), "x", number)
        with contextlib.closing(psycopg.connect(pooler.url(name), prepare_threshold=None)) as own:
            (after,) = own.execute(shown).fetchall()
            prepared = own.execute("SELECT COUNT(*) FROM pg_prepared_statements").fetchall()
    assert after == (*before[:2], pid)
    assert prepared == [(0,)]


def test_many_rows_are_written_all_or_none(port: int, name: str, second: Any) -> None:
    statement = (
        "INSERT INTO statedb_objects (identity_hash, name, class_name) VALUES (%s, 'n', 'c')"
    )
    rows = [[b"1"], [b"2"], [b"1"]]
    with PgBouncer(port, "transaction") as pooler, pooled(pooler, name, "transaction") as db:

        def write(conn: Connection, count: int) -> None:
            conn.execute_many(statement, rows[:count])

        with pytest.raises(DatabaseError, match="duplicate key"):
            db.run(write, 3)
        assert second.execute("SELECT COUNT(*) FROM statedb_objects").fetchall() == [(0,)]
        with db.transaction() as conn:
            write(conn, 1)
        db.run(lambda conn: conn.execute_many(statement, rows[1:2]))
    assert second.execute("SELECT COUNT(*) FROM statedb_objects").fetchall() == [(2,)]


def test_a_snapshot_is_of_one_moment(port: int, name: str, second: Any) -> None:
    with PgBouncer(port, "transaction") as pooler, pooled(pooler, name, "transaction") as db:
        objectid = db.state.thdGetObjectId("nightly", "Scheduler")
        db.state.thdSetState(objectid, "k", 1)
        with db.snapshot() as conn:
            statedb.state.set_state(second, objectid, "k", 2)
            assert db.state.thdGetState(objectid, "k") == 1
            assert conn.fetch_one("SHOW transaction_read_only") == ("on",)
        assert db.state.thdGetState(objectid, "k") == 2


def test_a_statement_that_cannot_be_encoded_leaves_no_transaction_behind(
    port: int, name: str, second: Any
) -> None:
    second.execute("CREATE TABLE own (word TEXT)")

    def write(conn: Connection) -> int:
        with pytest.raises(UnicodeEncodeError):
            conn.execute("INSERT INTO own VALUES (%s)", ["\ud800"])
        return conn.execute("INSERT INTO own VALUES (%s)", ["good"])

    with PgBouncer(port, "transaction") as pooler, pooled(pooler, name, "transaction") as db:
        assert db.run(write) == 1
    assert second.execute("SELECT word FROM own").fetchall() == [("good",)]


# --- Time ---


@in_each_mode
def test_a_wait_for_a_lock_is_ended_by_the_server(
    mode: Mode, port: int, name: str, second: Any, application: Callable[..., Any]
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    statedb.state.set_state(second, objectid, "x", "before")
    other = application()
    statedb.state.set_state(other, objectid, "x", "other's")
    with PgBouncer(port, mode) as pooler, pooled(pooler, name, mode, timeout=1.0) as db:
        began = time.monotonic()
        with pytest.raises(CallTimeoutError, match="lock timeout"):
            db.state.thdSetState(objectid, "x", "late")
        assert time.monotonic() - began < 1 + GRACE
        # What stays for longer between two calls has another bound.
        other.commit()
        assert db.state.thdSetState(objectid, "y", 1) == 1
    assert statedb.state.get_states(second, objectid) == {"x": "other's", "y": 1}


def test_a_wait_for_a_lock_is_no_longer_than_what_a_call_has_left(
    port: int, name: str, second: Any, application: Callable[..., Any]
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    statedb.state.set_state(second, objectid, "x", "before")
    other = application()
    statedb.state.set_state(other, objectid, "x", "other's")
    with (
        PgBouncer(port, "transaction") as pooler,
        pooled(pooler, name, "transaction", timeout=8.0, pool_size=1) as db,
    ):
        db.state.thdGetState(objectid, "x")
        began = time.monotonic()
        with db.transaction(), ThreadPoolExecutor(1) as thread:
            late = thread.submit(db.state.setState, objectid, "x", "late").result()
            # With the only connection; of what is left then a tenth is for the server's answer.
            time.sleep(4)
        with pytest.raises(CallTimeoutError, match="lock timeout"):
            late.result(timeout=30)
        assert time.monotonic() - began < 8 + GRACE


def test_what_still_waits_in_the_pooler_when_its_time_is_up_is_never_done(
    port: int, name: str, second: Any
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    with (
        PgBouncer(port, "transaction", default_pool_size="1") as pooler,
        contextlib.closing(psycopg.connect(pooler.url(name), prepare_threshold=None)) as own,
    ):
        with pooled(pooler, name, "transaction", timeout=1.0) as db:
            db.state.thdSetState(objectid, "x", "before")
            own.execute("SELECT 1")  # its transaction has the only session
            began = time.monotonic()
            calls = [db.state.setState(objectid, "x", "late"), db.state.deleteState(objectid, "x")]
            for call in calls:
                # Not unknown: it was never begun.
                assert isinstance(call.exception(30), CallTimeoutError)
            assert time.monotonic() - began < 1 + GRACE
        own.commit()
        # By the same session, and after all that has been waiting for it.
        statedb.state.set_state(own, objectid, "z", 1)
        own.commit()
    assert statedb.state.get_states(second, objectid) == {"x": "before", "z": 1}


# --- Cuts ---


class Line:
    """A database through a pooler with a proxy on either side of it."""

    def __init__(self, near: Proxy, far: Proxy, pooler: PgBouncer, name: str, mode: str) -> None:
        self.near, self.far, self.pooler = near, far, pooler
        self.url = pooler.url(name, near.port) + f"?pooler={mode}"


@pytest.fixture
def line(request: pytest.FixtureRequest, port: int, name: str) -> Iterator[Line]:
    asked = "mode" in request.fixturenames
    mode: Mode = request.getfixturevalue("mode") if asked else "transaction"
    with (
        Proxy(port, "postgresql") as far,
        PgBouncer(far.port, mode) as pooler,
        Proxy(pooler.port, "postgresql") as near,
    ):
        yield Line(near, far, pooler, name, mode)
        near.refuse()


@in_each_mode
@pytest.mark.parametrize("side", ["near", "far"])
def test_each_update_is_made_once_wherever_and_whenever_it_is_cut(
    mode: Mode, side: str, line: Line, second: Any
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    statedb.state.set_state(second, objectid, "count", 0)
    proxy: Proxy = getattr(line, side)
    moments = [(proxy.cut_before, "UPDATE"), (proxy.cut_after, "UPDATE")]
    if mode == "transaction":
        moments += [(cut, word) for word in ("^BEGIN", "^COMMIT") for cut, _ in moments[:2]]
    with statedb.connect(line.url) as db:
        for number, (cut, word) in enumerate(moments, start=1):
            db.state.thdGetState(objectid, "count")
            cut(re.compile(word))
            began = len(proxy.statements)
            assert db.state.thdUpdateState(objectid, "count", lambda value: value + 1) == number
            assert any(re.search(word, one) for one in proxy.statements[began:]), word
            assert statedb.state.get_state(second, objectid, "count") == number


@pytest.mark.parametrize("side", ["near", "far"])
def test_what_cannot_be_repeated_is_unknown_only_where_it_may_have_been_committed(
    side: str, line: Line, second: Any
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    proxy: Proxy = getattr(line, side)
    with statedb.connect(line.url) as db:
        for cut in (proxy.cut_before, proxy.cut_after):
            statedb.state.set_state(second, objectid, "x", 1)
            cut("DELETE")
            assert db.state.thdDeleteState(objectid, "x") is True
            assert statedb.state.get_state(second, objectid, "x", ABSENT) is ABSENT
        for cut, left in ((proxy.cut_before, True), (proxy.cut_after, False)):
            statedb.state.set_state(second, objectid, "x", 1)
            cut(re.compile("^COMMIT"))
            with pytest.raises(OutcomeUnknownError):
                db.state.thdDeleteState(objectid, "x")
            assert (statedb.state.get_state(second, objectid, "x", ABSENT) is not ABSENT) == left


@in_each_mode
def test_a_lost_commit_that_is_still_on_its_way_is_ended_before_the_write_is_done_again(
    mode: Mode, line: Line, second: Any
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    statedb.state.set_state(second, objectid, "x", 0)
    last = re.compile("^COMMIT" if mode == "transaction" else "UPDATE")
    with statedb.connect(line.url) as db:
        db.state.thdSetState(objectid, "x", 1)
        # The pooler does not learn that its client has gone, and the server waits for the rest.
        held = line.far.hold_before(last)
        line.near.end_answers_before(last)
        lost = len(line.far.statements)
        assert db.state.thdSetState(objectid, "x", 2) == 2
        assert held.arrived.is_set()
        assert any("pg_terminate_backend" in one for one in line.far.statements[lost:])
        statedb.state.set_state(second, objectid, "x", "another's")
        held.release()
        assert db.state.thdGetState(objectid, "x") == "another's"
        left = "SELECT COUNT(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"
        await_(lambda: second.execute(left).fetchone() == (0,), "transactions are left open")
    assert statedb.state.get_state(second, objectid, "x") == "another's"


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        ("transaction", "^BEGIN"),
        ("transaction", "^UPDATE"),
        ("transaction", "^COMMIT"),
        ("session", "^UPDATE"),
    ],
)
def test_what_arrives_at_the_pooler_when_it_has_been_done_again_changes_nothing(
    mode: Mode, word: str, line: Line, second: Any
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    with statedb.connect(line.url) as db:
        db.state.thdSetState(objectid, "x", 1)
        held = line.near.hold_before(re.compile(word))
        call = db.state.setState(objectid, "x", 2)
        assert held.arrived.wait(20)
        # The client sees its connection end. The pooler does not, and gets the message later.
        line.near.end_all("answers")
        assert call.result(30) == 2
        statedb.state.set_state(second, objectid, "x", "another's")
        held.release()
        began = len(line.far.statements)
        assert db.state.thdGetState(objectid, "x") == "another's"
    left = (
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND state <> 'idle'"
    )
    await_(lambda: second.execute(left).fetchone() == (0,), "transactions are left open")
    await_(lambda: len(line.far.statements) > began, "nothing more arrived")
    assert statedb.state.get_state(second, objectid, "x") == "another's"


@in_each_mode
def test_calls_outlast_a_pooler_that_is_killed_and_one_whose_sessions_are_ended(
    mode: Mode, line: Line, second: Any
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    stop = threading.Event()
    with statedb.connect(line.url) as db, ThreadPoolExecutor(1) as thread:

        def write() -> int:
            number = 0
            while not stop.is_set():
                number += 1
                assert db.state.thdSetState(objectid, "x", number) == number
            return number

        def await_more() -> None:
            now = statedb.state.get_state(second, objectid, "x", 0)
            await_(lambda: statedb.state.get_state(second, objectid, "x", 0) > now + 3, "writes")

        call = thread.submit(write)
        try:
            await_more()
            line.pooler.kill()
            line.pooler.start()
            await_more()
            second.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
            await_more()
        finally:
            stop.set()
        assert call.result(60) == statedb.state.get_state(second, objectid, "x")


def test_a_connection_that_is_lost_while_its_write_is_undone_makes_the_write_be_tried_again(
    line: Line, second: Any
) -> None:
    objectid = statedb.state.get_object_id(second, "nightly", "Scheduler")
    with statedb.connect(line.url) as db:
        line.near.cut_before("ROLLBACK")

        def write(conn: Connection) -> int:
            done.append(1)
            return conn.execute(f"SELECT 1 / {len(done) - 1}")

        done: list[int] = []
        assert db.run(write) == 1
        assert len(done) == 2
        assert db.state.thdSetState(objectid, "x", 1) == 1


@in_each_mode
@pytest.mark.parametrize("side", ["near", "far"])
def test_a_connection_that_is_lost_while_it_is_greeted_is_made_anew(
    mode: Mode, side: str, line: Line, second: Any
) -> None:
    proxy: Proxy = getattr(line, side)
    proxy.cut_before("SHOW transaction_read_only")
    with statedb.connect(line.url) as db:
        objectid = db.state.thdGetObjectId("nightly", "Scheduler")
    assert sum("SHOW transaction_read_only" in one for one in proxy.statements) > 1
    assert statedb.state.get_object_id(second, "nightly", "Scheduler") == objectid


# --- Several poolers, and wrong ones ---


@in_each_mode
def test_of_several_poolers_the_one_whose_server_takes_writes_now_is_used(
    mode: Mode, port: int, name: str, second: Any
) -> None:
    second.execute("CREATE ROLE statedb_reader SUPERUSER LOGIN")
    try:
        second.execute("ALTER ROLE statedb_reader SET default_transaction_read_only = on")
        with (
            PgBouncer(port, mode, database="user=statedb_reader") as one,
            PgBouncer(port, mode) as other,
        ):
            hosts = f"postgresql://postgres@127.0.0.1:{one.port},127.0.0.1:{other.port}/{name}"
            with statedb.connect(f"{hosts}?pooler={mode}") as db:
                objectid = db.state.thdGetObjectId("a", "B")
            assert statedb.state.get_object_id(second, "a", "B") == objectid
            for poolers, wanted, error in (
                (hosts, "read-only", "read-only transaction"),
                (one.url(name), "any", "read-only transaction"),
                (one.url(name), "standby", "the session is not standby"),
            ):
                asked = f"{poolers}?pooler={mode}&target_session_attrs={wanted}"
                with (
                    statedb.connect(asked, timeout=1.5) as db,
                    pytest.raises(CallTimeoutError, match=error),
                ):
                    db.state.thdSetState(objectid, "x", 1)
    finally:
        second.execute("DROP ROLE statedb_reader")


def test_what_suits_a_transaction_pooler_suits_any_and_none(
    url: str, port: int, name: str, second: Any
) -> None:
    with PgBouncer(port, "session") as pooler:
        for number, place in enumerate((pooler.url(name), url)):
            with statedb.connect(f"{place}?pooler=transaction") as db:
                objectid = db.state.thdGetObjectId("a", "B")
                assert db.state.thdUpdateState(objectid, "x", lambda x: x + 1, 0) == number + 1
    assert statedb.state.get_state(second, objectid, "x") == 2


@pytest.mark.parametrize("settings", [{}, {"ignore_startup_parameters": "options"}])
@in_each_mode
def test_a_pooler_that_the_url_does_not_tell_of_is_an_error_at_once(
    mode: Mode, settings: dict[str, str], port: int, name: str
) -> None:
    with PgBouncer(port, mode, **settings) as pooler, statedb.connect(pooler.url(name)) as db:
        began = time.monotonic()
        with pytest.raises(DatabaseError, match="pooler=transaction or pooler=session") as raised:
            db.state.thdGetObjectId("a", "B")
        assert time.monotonic() - began < 10
    assert not isinstance(raised.value, CallTimeoutError)
    assert "\n" not in str(raised.value)


def test_a_pooler_that_takes_no_transactions_is_an_error_at_once(port: int, name: str) -> None:
    with PgBouncer(port, "statement") as pooler, pooled(pooler, name, "transaction") as db:
        began = time.monotonic()
        for call in (lambda: db.state.thdGetObjectId("a", "B"), lambda: _in_transaction(db)):
            with pytest.raises(DatabaseError, match="mode be transaction or session") as raised:
                call()
            assert not isinstance(raised.value, CallTimeoutError)
        assert time.monotonic() - began < 10


def _in_transaction(db: Database) -> None:
    with db.transaction():
        pass


def test_a_session_is_found_though_its_name_was_to_hold_what_no_name_does(
    url: str, second: Any
) -> None:
    with statedb.connect(url + "?application_name=a%0Ab%C3%A9%27%5C") as db:
        objectid = db.state.thdGetObjectId("a", "B")
        db.state.thdSetState(objectid, "x", 1)
        names = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = %s"
        session = db.run(lambda conn: conn.session)
        assert second.execute(names, [session]).fetchone() == (1,)
