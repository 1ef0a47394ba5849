"""SQLite's files: who writes when, how they are kept, and how long the log gets."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ABSENT, ENGINES

import statedb
from statedb import CallTimeoutError, Connection, Database, InvalidURLError
from statedb.dialects import Failure, sqlite_errors
from statedb.dialects.sqlite_connection import PatientConnection
from statedb.dialects.sqlite_errors import failure, is_unique_violation
from statedb.dialects.sqlite_log import LIMIT, LONG, Log, has_reset_race
from statedb.dialects.turns import Turns, Writer

pytestmark = pytest.mark.skipif(
    not any(engine.name == "sqlite" for engine in ENGINES), reason="SQLite only"
)
MODES = ("wal", "delete", "truncate")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


@contextlib.contextmanager
def _another_process(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            try:
                process.wait(30)
            finally:
                process.kill()


def _read(path: Path, objectid: int, name: str) -> object:
    with contextlib.closing(sqlite3.connect(path)) as second:
        return statedb.state.get_state(second, objectid, name, ABSENT)


# --- Turns ---


def test_turns_are_had_in_the_order_in_which_they_were_asked_for() -> None:
    turns, first = Turns(), Writer()
    assert turns.take(first, 0)
    had: list[int] = []

    def write(number: int) -> None:
        writer = Writer()
        assert turns.take(writer, 30)
        had.append(number)
        turns.leave(writer)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=write, args=(number,)))
        threads[-1].start()
        while len(turns._waiting) <= number:
            time.sleep(0.001)
    turns.leave(first)
    for thread in threads:
        thread.join()
    assert had == [0, 1, 2, 3, 4]


def test_who_has_waited_in_vain_is_out_of_the_queue() -> None:
    turns, first, second, third = Turns(), Writer(), Writer(), Writer()
    assert turns.take(first, 0)
    assert not turns.take(second, 0.01)
    turns.leave(first)
    assert turns.take(third, 0)


def test_a_turn_that_comes_with_an_interrupt_goes_to_the_next() -> None:
    class Interrupted(Writer):
        def rest(self, seconds: float) -> bool:
            turns.leave(first)
            raise KeyboardInterrupt

    turns, first, second = Turns(), Writer(), Interrupted()
    assert turns.take(first, 0)
    with pytest.raises(KeyboardInterrupt):
        turns.take(second, 30)
    turns.leave(second)
    assert turns.take(first, 0)


def test_who_is_interrupted_as_it_queues_is_out_of_the_queue() -> None:
    class Interrupting(deque[Writer]):
        def append(self, writer: Writer) -> None:
            super().append(writer)
            raise KeyboardInterrupt

    turns, first, second, third = Turns(), Writer(), Writer(), Writer()
    assert turns.take(first, 0)
    turns._waiting = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        turns.take(second, 30)
    turns.leave(second)
    turns.leave(first)
    assert turns.take(third, 0)


@pytest.mark.parametrize("mode", MODES)
def test_nobody_is_starved_by_who_writes_all_the_time(path: Path, mode: str) -> None:
    with statedb.connect(f"sqlite:///{path}?journal_mode={mode}") as db:
        objectid = db.state.thdGetObjectId("a", "B")
        done, reached, ready = threading.Event(), threading.Semaphore(0), threading.Barrier(3)
        counts = [0] * 3

        def write(number: int) -> None:
            db.run(lambda conn: ready.wait(30))  # as many connections are open then
            while not done.is_set():
                counts[number] += 1
                db.state.thdSetState(objectid, f"k{number}", counts[number])
                if counts[number] == 20:
                    reached.release()

        with ThreadPoolExecutor(3) as threads:
            ends = [threads.submit(write, number) for number in range(3)]
            for _ in range(3):
                assert reached.acquire(timeout=30)
            done.set()
            for end in ends:
                end.result()
    # First come, first served: all are served as often, but for how they began and ended.
    assert max(counts) - min(counts) < 20
    assert [_read(path, objectid, f"k{number}") for number in range(3)] == counts


def test_two_databases_of_one_file_in_one_thread_do_not_hang(path: Path) -> None:
    with (
        statedb.connect(f"sqlite:///{path}") as one,
        statedb.connect(f"sqlite:///{path}", timeout=0.5) as other,
    ):
        objectid = one.state.thdGetObjectId("a", "B")
        with one.transaction():
            one.state.thdSetState(objectid, "k", 1)
            assert other.state.thdGetState(objectid, "k", None) is None
            with pytest.raises(CallTimeoutError, match="database is locked"):
                other.state.thdSetState(objectid, "k", 2)
        assert other.state.thdSetState(objectid, "l", 3) == 3
    assert [_read(path, objectid, name) for name in "kl"] == [1, 3]


def test_a_turn_is_given_back_by_a_transaction_however_it_ends(path: Path) -> None:
    with statedb.connect(f"sqlite:///{path}", timeout=2.0) as db:
        objectid = db.state.thdGetObjectId("a", "B")

        def lose(conn: Connection) -> None:
            conn.execute("BEGIN IMMEDIATE")  # and it is never ended

        def close(conn: Connection) -> None:
            conn.execute("BEGIN IMMEDIATE")
            conn.raw.close()

        def interrupt(conn: Connection) -> None:
            with conn.transaction():
                raise KeyboardInterrupt

        for leave in (lose, close):
            db.run(leave)
            assert db.state.thdSetState(objectid, "k", leave.__name__) == leave.__name__
        with pytest.raises(KeyboardInterrupt):
            db.run(interrupt)
        with pytest.raises(statedb.DatabaseError, match="no_such_table"), db.transaction() as conn:
            conn.execute("INSERT INTO no_such_table VALUES (1)")
        assert db.state.thdSetState(objectid, "k", 4) == 4
    assert _read(path, objectid, "k") == 4


def _commit_in_block(conn: Connection) -> None:
    with conn.raw:
        pass


def _raise_in_block(conn: Connection) -> None:
    with contextlib.suppress(ZeroDivisionError), conn.raw:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("end", "remains"),
    [
        (lambda conn: conn.raw.commit(), 1),
        (lambda conn: conn.raw.rollback(), 0),
        (_commit_in_block, 1),
        (_raise_in_block, 0),
        (lambda conn: conn.raw.executescript("INSERT INTO it VALUES (';'); SELECT 1 -- ;"), 2),
        (lambda conn: conn.raw.cursor().executescript("BEGIN; END"), 1),
        *[
            (lambda conn, sql=sql: conn.execute(sql), 1)
            for sql in ("-- done\nCOMMIT", "/* ; */ commit", " ;COMMIT", "\ufeffCOMMIT", "End")
        ],
    ],
)
def test_a_turn_is_given_back_however_the_driver_ends_the_transaction(
    path: Path, end: Callable[[Connection], None], remains: int
) -> None:
    def write(conn: Connection) -> bool:
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("INSERT INTO it VALUES (1)")
        end(conn)
        return bool(conn.raw.in_transaction)

    with statedb.connect(f"sqlite:///{path}", timeout=5.0) as db:
        db.run(lambda conn: conn.execute("CREATE TABLE it (number INTEGER)"))
        assert not db.run(write)
        # Another's connection: who has kept the turn would have it wait in vain.
        with statedb.connect(f"sqlite:///{path}", timeout=2.0) as other:
            other.state.thdGetObjectId("a", "B")
    with contextlib.closing(sqlite3.connect(path)) as second:
        assert second.execute("SELECT COUNT(*) FROM it").fetchone() == (remains,)


def test_a_block_of_the_drivers_own_whose_commit_fails_is_undone(path: Path) -> None:
    def write(conn: Connection) -> None:
        conn.execute("CREATE TABLE it (number INTEGER PRIMARY KEY)")
        conn.execute(
            "CREATE TABLE part (it INTEGER REFERENCES it (number) DEFERRABLE INITIALLY DEFERRED)"
        )
        conn.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError), conn.raw:
            conn.raw.execute("BEGIN IMMEDIATE")
            conn.raw.execute("INSERT INTO part VALUES (1)")
        conn.raw.rollback()  # of nothing, which is none of its business

    with statedb.connect(f"sqlite:///{path}", timeout=5.0) as db:
        db.run(write)
        with statedb.connect(f"sqlite:///{path}", timeout=2.0) as other:
            other.state.thdGetObjectId("a", "B")
    with contextlib.closing(sqlite3.connect(path)) as second:
        assert second.execute("SELECT COUNT(*) FROM part").fetchone() == (0,)


_RUNS_OUT_OF_MEMORY = """
import sqlite3, sys, statedb
from statedb.dialects.sqlite_connection import PatientConnection
with statedb.connect(sys.argv[1], timeout=5.0) as db, statedb.connect(sys.argv[1]) as other:
    objectid = other.state.thdGetObjectId("a", "B")
    def fill(conn):
        with conn.transaction():
            db.state.thdSetState(objectid, "k", 1)
            heap = sqlite3.connect(":memory:")
            heap.execute(f"PRAGMA hard_heap_limit = {sys.argv[2]}")
            conn.fetch_all("SELECT hex(zeroblob(50000000))")
    try:
        db.run(fill)
    except statedb.DatabaseError as error:
        print(type(error.__cause__).__name__)
    other.state.thdSetState(objectid, "other", 2)
"""


def test_a_turn_is_given_back_where_memory_ends_within_a_transaction(path: Path) -> None:
    program = [sys.executable, "-c", _RUNS_OUT_OF_MEMORY, f"sqlite:///{path}", str(20_000_000)]
    began = time.monotonic()
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("MemoryError\n", "")
    # Whoever kept the turn would have the other wait for as long as a call may take.
    assert time.monotonic() - began < 20


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_connection_that_is_forgotten_in_a_transaction_has_no_turn_any_more(path: Path) -> None:
    forgotten = PatientConnection(str(path), 0.0)
    forgotten.execute("BEGIN IMMEDIATE")
    with contextlib.closing(PatientConnection(str(path), 5.0)) as next_one:
        del forgotten
        gc.collect()
        next_one.execute("CREATE TABLE it (number INTEGER)")


@pytest.mark.parametrize(
    "write",
    [
        lambda raw: raw.execute("INSERT INTO it VALUES (1)"),
        lambda raw: raw.executemany("INSERT INTO it VALUES (?)", [(1,)]),
        lambda raw: raw.cursor().executemany("INSERT INTO it VALUES (?)", iter([(1,)])),
        lambda raw: raw.executescript("INSERT INTO it VALUES (1)"),
        lambda raw: raw.cursor().executescript("BEGIN; INSERT INTO it VALUES (1); COMMIT;"),
    ],
)
def test_the_drivers_own_connection_waits_as_well(
    path: Path, write: Callable[[sqlite3.Connection], object]
) -> None:
    with statedb.connect(f"sqlite:///{path}") as db:
        db.run(lambda conn: conn.execute("CREATE TABLE it (number INTEGER)"))
        with contextlib.closing(
            sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        ) as own:
            own.execute("BEGIN IMMEDIATE")
            timer = threading.Timer(0.2, own.execute, ("COMMIT",))
            timer.start()
            db.run(lambda conn: write(conn.raw))
            timer.join()
            assert own.execute("SELECT COUNT(*) FROM it").fetchone() == (1,)


def test_a_statement_of_a_transaction_that_began_late_waits_as_long_as_any(path: Path) -> None:
    url = f"sqlite:///{path}?journal_mode=delete"
    with statedb.connect(url, timeout=2.0, pool_size=1) as db:
        objectid = db.state.thdGetObjectId("a", "B")
        held = threading.Event()

        def hold(conn: Connection) -> None:
            held.set()
            time.sleep(1.2)

        holder = db.submit(hold)
        assert held.wait(10)
        with contextlib.closing(
            sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        ) as own:
            with db.transaction():
                db.state.thdSetState(objectid, "k", 1)
                own.execute("BEGIN")
                own.execute("SELECT COUNT(*) FROM statedb_states").fetchall()
                timer = threading.Timer(1.2, own.execute, ("COMMIT",))
                timer.start()
            timer.join()
        holder.result()
    assert _read(path, objectid, "k") == 1


def test_a_reader_for_long_keeps_no_writer_waiting_nor_is_kept(path: Path) -> None:
    with statedb.connect(f"sqlite:///{path}", timeout=5.0) as db:
        objectid = db.state.thdGetObjectId("a", "B")

        def read(conn: Connection) -> None:
            conn.execute("BEGIN")
            assert conn.fetch_one("SELECT COUNT(*) FROM statedb_states") == (0,)
            writer = threading.Thread(target=db.state.thdSetState, args=(objectid, "l", 2))
            writer.start()
            writer.join(20)
            conn.execute("COMMIT")

        db.run(read)
        with db.transaction(), ThreadPoolExecutor(1) as thread:
            db.state.thdSetState(objectid, "k", 3)
            begun = thread.submit(db.run, lambda conn: conn.execute("SAVEPOINT it"))
            begun.result(20)
    assert _read(path, objectid, "k") == 3


def test_rows_before_one_that_is_refused_are_not_written_twice(path: Path) -> None:
    with statedb.connect(f"sqlite:///{path}") as db:
        db.run(lambda conn: conn.execute("CREATE TABLE it (number INTEGER)"))
        with contextlib.closing(
            sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        ) as own:

            def rows() -> Iterator[tuple[int]]:
                yield (1,)
                own.execute("BEGIN IMMEDIATE")
                timer = threading.Timer(0.1, own.execute, ("COMMIT",))
                timer.start()
                yield (2,)
                timer.join()

            several = rows()
            db.run(lambda conn: conn.execute_many("INSERT INTO it VALUES (?)", several))  # type: ignore[arg-type]
            found = own.execute("SELECT number FROM it ORDER BY rowid").fetchall()
    assert found == [(1,), (2,)]


_HOLDER = """
import sys, statedb
with statedb.connect(sys.argv[1]) as db, db.transaction():
    db.state.thdSetState(int(sys.argv[2]), "k", "the holder's")
    print("has it", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no processes")
def test_a_process_that_is_stopped_in_a_transaction_is_waited_for_within_the_timeout(
    path: Path,
) -> None:
    url = f"sqlite:///{path}"
    with statedb.connect(url, timeout=0.5) as db:
        objectid = db.state.thdGetObjectId("a", "B")
        with _another_process(_HOLDER, url, objectid) as holder:
            assert holder.stdout is not None
            assert holder.stdin is not None
            assert holder.stdout.readline() == "has it\n"
            holder.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            with pytest.raises(CallTimeoutError):
                db.state.thdSetState(objectid, "k", 1)
            assert time.monotonic() - begun < 10
            assert db.state.thdGetState(objectid, "k", None) is None
            holder.kill()
            holder.wait()
            assert db.state.thdSetState(objectid, "k", 2) == 2
    assert _read(path, objectid, "k") == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_another_file_is_written_does_not_inherit_the_turn(
    tmp_path: Path,
) -> None:
    # The same file could not be opened by the child at all.
    url, link = f"sqlite:///{tmp_path}/one.sqlite", f"sqlite:///{tmp_path}/other.sqlite"
    with statedb.connect(url, timeout=20) as db, statedb.connect(link, timeout=5) as other:
        objectid = other.state.thdGetObjectId("a", "B")
        db.state.thdGetObjectId("a", "B")
        with db.transaction():
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = int(other.state.thdSetState(objectid, "k", 0))
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _read(tmp_path / "other.sqlite", objectid, "k") == 0


# --- How a file is kept ---


def _settings(db: Database) -> tuple[object, object]:
    return db.run(
        lambda conn: (
            (conn.fetch_one("PRAGMA journal_mode") or [None])[0],
            (conn.fetch_one("PRAGMA synchronous") or [None])[0],
        )
    )


@pytest.mark.parametrize(
    ("query", "settings", "shown"),
    [
        ("", ("wal", 2), ""),
        ("?journal_mode=wal&synchronous=full", ("wal", 2), ""),
        ("?synchronous=normal", ("wal", 1), "?synchronous=normal"),
        ("?journal_mode=delete", ("delete", 2), "?journal_mode=delete"),
        (
            "?synchronous=extra&journal_mode=truncate",
            ("truncate", 3),
            "?journal_mode=truncate&synchronous=extra",
        ),
    ],
)
def test_a_url_says_how_a_file_is_kept(
    path: Path, query: str, settings: tuple[object, object], shown: str
) -> None:
    with statedb.connect(f"sqlite:///{path}{query}") as db:
        assert _settings(db) == settings
        assert repr(db) == f"<statedb.Database sqlite:///{path}{shown}>"


@pytest.mark.parametrize(
    "query",
    [
        "?",
        "?journal_mode",
        "?journal_mode=",
        "?journal_mode=off",
        "?journal_mode=WAL",
        "?journal_mode=memory",
        "?synchronous=off",
        "?synchronous=full&synchronous=full",
        "?journal_mode=wal&",
        "?journal_mode=wal;synchronous=full",
        "?timeout=5",
    ],
)
def test_what_a_url_cannot_ask_for_is_answered_with_what_it_can(path: Path, query: str) -> None:
    legal = r"journal_mode=wal\|delete\|truncate and synchronous=full\|normal\|extra"
    with pytest.raises(InvalidURLError, match=legal):
        statedb.connect(f"sqlite:///{path}{query}")


@pytest.mark.parametrize("url", ["sqlite://?journal_mode=wal", "sqlite:///:memory:?"])
def test_a_database_in_memory_takes_no_parameters(url: str) -> None:
    with pytest.raises(InvalidURLError, match="in memory takes no parameters"):
        statedb.connect(url)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("was", MODES)
def test_a_file_is_put_into_the_mode_of_whoever_opens_it_alone(
    path: Path, was: str, mode: str
) -> None:
    with statedb.connect(f"sqlite:///{path}?journal_mode={was}") as db:
        objectid = db.state.thdGetObjectId("a", "B")
        db.state.thdSetState(objectid, "k", 1)
    with statedb.connect(f"sqlite:///{path}?journal_mode={mode}") as db:
        assert _settings(db)[0] == mode
        assert db.state.thdGetState(objectid, "k") == 1
        assert db.state.thdSetState(objectid, "k", 2) == 2
    assert _read(path, objectid, "k") == 2


def test_a_file_that_others_have_open_keeps_its_log_until_they_close_it(path: Path) -> None:
    url = f"sqlite:///{path}"
    with statedb.connect(f"{url}?journal_mode=delete", timeout=0.5) as later:
        with statedb.connect(url) as db:
            objectid = db.state.thdGetObjectId("a", "B")
            with pytest.raises(CallTimeoutError, match=r"cannot open .* database is locked"):
                later.state.thdGetState(objectid, "k", None)
        assert later.state.thdSetState(objectid, "k", 1) == 1
        # The other way it goes at once, and who has it open goes along.
        with statedb.connect(url) as db:
            assert db.state.thdGetState(objectid, "k") == 1
            assert later.state.thdSetState(objectid, "k", 2) == 2
            assert _settings(later)[0] == "wal"
    assert _read(path, objectid, "k") == 2


@pytest.mark.parametrize("mode", ["delete", "truncate"])
def test_readers_and_writers_of_a_rollback_journal_wait_for_each_other(
    path: Path, mode: str
) -> None:
    url = f"sqlite:///{path}?journal_mode={mode}"
    with statedb.connect(url, pool_size=6) as db:
        objectid = db.state.thdGetObjectId("a", "B")
        db.state.thdSetState(objectid, "k", 0)
        done = threading.Event()

        def read() -> int:
            last = 0
            while not done.is_set():
                now = db.state.thdGetState(objectid, "k")
                assert now >= last
                last = now
            return last

        with ThreadPoolExecutor(3) as threads:
            readers = [threads.submit(read) for _ in range(3)]
            try:
                for number in range(1, 60):
                    db.state.thdSetState(objectid, "k", number)
            finally:
                done.set()
            assert all(reader.result() <= 59 for reader in readers)
        # A COMMIT that meets a reader is waited for, too.
        with contextlib.closing(
            sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        ) as own:
            own.execute("BEGIN")
            own.execute("SELECT COUNT(*) FROM statedb_states").fetchall()
            timer = threading.Timer(0.2, own.execute, ("COMMIT",))
            timer.start()
            with db.transaction():
                db.state.thdSetState(objectid, "k", 60)
            timer.join()
    assert _read(path, objectid, "k") == 60


# --- The log ---


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_which_versions_have_the_reset_race(version: tuple[int, ...], has_it: bool) -> None:
    assert has_reset_race(version) is has_it


def test_sqlites_own_checkpoints_are_off_only_where_they_may_lose_commits(path: Path) -> None:
    with statedb.connect(f"sqlite:///{path}") as db:
        pages = db.run(lambda conn: conn.fetch_one("PRAGMA wal_autocheckpoint"))
    assert pages == ((0,) if has_reset_race(sqlite3.sqlite_version_info) else (1000,))


def test_a_version_without_the_race_makes_its_own_checkpoints(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    with statedb.connect(f"sqlite:///{path}") as db:
        assert db.run(lambda conn: conn.fetch_one("PRAGMA wal_autocheckpoint")) == (1000,)


def _grow(path: Path) -> int:
    """Make the log long; how long it is."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as own:
        own.execute("PRAGMA wal_autocheckpoint = 0")
        own.execute("CREATE TABLE IF NOT EXISTS big (content BLOB)")
        own.execute("INSERT INTO big VALUES (zeroblob(?))", [LONG])
    return Path(f"{path}-wal").stat().st_size


def test_the_log_stays_short_whoever_writes(path: Path) -> None:
    log = Path(f"{path}-wal")
    with statedb.connect(f"sqlite:///{path}") as db:
        objectid = db.state.thdGetObjectId("a", "B")
        for number in range(300):  # of 18 MB
            db.state.thdSetState(objectid, f"k{number % 3}", f"{number}" * 20_000)
        assert LONG <= log.stat().st_size < 3 * LONG
        with db.transaction():
            for number in range(400):
                db.state.thdSetState(objectid, f"l{number}", f"{number}" * 20_000)
        assert log.stat().st_size > LIMIT
        for number in range(50):
            with db.transaction():
                db.state.thdSetState(objectid, f"k{number % 3}", f"{number}" * 20_000)
        assert log.stat().st_size <= LIMIT
    assert not log.exists()


_WRITES_ONCE = """
import sys, statedb
with statedb.connect(sys.argv[1], pool_size=1) as db:
    db.state.thdSetState(int(sys.argv[2]), "k", int(sys.argv[3]))
"""


def test_a_process_that_writes_but_once_keeps_a_long_log_from_growing(path: Path) -> None:
    url = f"sqlite:///{path}"
    with statedb.connect(url) as db:
        objectid = db.state.thdGetObjectId("a", "B")
        db.state.thdGetState(objectid, "k", None)  # and it stays open, as a reader's
        long = _grow(path)
        for number in range(2):
            with _another_process(_WRITES_ONCE, url, objectid, number) as writer:
                assert writer.wait(30) == 0
        # The first copied the log; the second's was begun anew, in the same file.
        assert _grow(path) == long
        assert db.state.thdGetState(objectid, "k") == 1


def test_no_commit_can_happen_while_a_checkpoint_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_reset_race(sqlite3.sqlite_version_info):
        pytest.skip("SQLite makes its checkpoints itself")
    refused: list[str] = []
    checkpoint = Log.checkpoint

    def while_another_writes(log: Log) -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as own:
            try:
                own.execute("UPDATE statedb_states SET stamp = stamp + 1")
            except sqlite3.OperationalError as error:
                refused.append(str(error))
        checkpoint(log)

    monkeypatch.setattr(Log, "checkpoint", while_another_writes)
    with statedb.connect(f"sqlite:///{path}") as reader:
        objectid = reader.state.thdGetObjectId("a", "B")
        reader.state.thdSetState(objectid, "k", 1)
        long = _grow(path)
        with statedb.connect(f"sqlite:///{path}", pool_size=1) as db:
            for number in range(40):
                db.state.thdSetState(objectid, "k", number)
                with db.transaction():
                    db.state.thdSetState(objectid, "l", number)
        assert Path(f"{path}-wal").stat().st_size < long + 2**20
    assert refused
    assert set(refused) == {"database is locked"}
    assert [_read(path, objectid, name) for name in "kl"] == [39, 39]


@pytest.mark.parametrize(
    ("message", "advice", "spoils"),
    [
        ("attempt to write a readonly database", "let this user write to the file", True),
        ("disk I/O error", "see what ails the disk", False),
        ("database disk image is malformed", "restore the file from a copy", True),
        ("database or disk is full", "make room on the disk", False),
        ("unable to open database file", "in a directory that exists", False),
        ("file is not a database", "give the path of a SQLite file", True),
        ("no such table: statedb_states", "make it anew and empty", False),
        ("no such table: theirs", None, False),
        ("interrupted", None, False),
        ("something new", None, False),
    ],
)
def test_what_is_advised_is_known_by_the_message_where_python_keeps_no_code(
    message: str, advice: str | None, spoils: bool
) -> None:
    error = sqlite3.OperationalError(message)  # as from Python 3.10
    assert not hasattr(error, "sqlite_errorcode")
    assert sqlite_errors.spoils(error) is spoils
    remedy = sqlite_errors.remedy(error)
    assert remedy == advice if advice is None else advice in (remedy or "")


def test_who_cannot_read_in_time_is_told_and_reads_later(path: Path) -> None:
    with statedb.connect(f"sqlite:///{path}?journal_mode=delete", timeout=0.5) as db:
        objectid = db.state.thdGetObjectId("a", "B")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as own:
            own.execute("BEGIN EXCLUSIVE")
            with pytest.raises(CallTimeoutError):
                db.state.thdGetState(objectid, "k", None)
        assert db.state.thdGetState(objectid, "k", "absent") == "absent"


# --- Interrupted ---


class _Interrupting:
    """A parameter that is interrupted as it is read."""

    def __conform__(self, protocol: object) -> None:
        raise KeyboardInterrupt


def test_a_write_that_is_interrupted_leaves_a_database_that_can_be_used(path: Path) -> None:
    with statedb.connect(f"sqlite:///{path}", pool_size=1) as db:
        objectid = db.state.thdGetObjectId("a", "B")
        with pytest.raises(KeyboardInterrupt):
            db.run(
                lambda conn: conn.execute(
                    "DELETE FROM statedb_objects WHERE id > ?", [_Interrupting()]
                )
            )
        assert [one.id for one in db.state.thdGetObjects()] == [objectid]


# --- In memory, and errors ---


def test_in_memory_too_a_statement_ends_when_its_time_is_up() -> None:
    endless = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT SUM(i) FROM n"
    )
    with statedb.connect("sqlite://", timeout=0.5) as db:
        objectid = db.state.thdGetObjectId("a", "B")
        with pytest.raises(CallTimeoutError):
            db.run(lambda conn: conn.fetch_all(endless))
        assert db.state.thdGetObjectId("a", "B") == objectid


def test_in_memory_who_has_waited_for_the_connection_has_the_rest_of_his_time() -> None:
    with statedb.connect("sqlite://", timeout=2.0) as db:
        held, done = threading.Event(), threading.Event()

        def hold(conn: Connection) -> None:
            held.set()
            done.wait(30)

        holder = db.submit(hold)
        assert held.wait(30)
        timer = threading.Timer(1.0, done.set)
        timer.start()
        assert db.state.thdGetObjectId("a", "B") == 1
        timer.join()
        holder.result()


def _errors(path: Path) -> Iterator[sqlite3.Error]:
    """Errors as SQLite raises them: who waits in vain, is interrupted, or is not the first."""
    shared = f"file:{path.name}?mode=memory&cache=shared"
    with (
        contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as one,
        contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other,
        contextlib.closing(sqlite3.connect(shared, uri=True, isolation_level=None)) as near,
        contextlib.closing(sqlite3.connect(shared, uri=True, isolation_level=None)) as nearer,
    ):
        one.execute("CREATE TABLE it (number INTEGER UNIQUE)")
        one.execute("INSERT INTO it VALUES (1)")
        near.execute("CREATE TABLE it (number INTEGER)")
        near.execute("BEGIN")
        near.execute("INSERT INTO it VALUES (1)")
        one.set_progress_handler(lambda: 1, 1)
        yield _raised(lambda: one.execute("SELECT * FROM it").fetchall())
        one.set_progress_handler(None, 0)
        yield _raised(lambda: one.execute("INSERT INTO it VALUES (1)"))
        yield _raised(lambda: nearer.execute("SELECT * FROM it"))
        one.execute("BEGIN IMMEDIATE")
        yield _raised(lambda: other.execute("BEGIN IMMEDIATE"))
        yield _raised(lambda: other.execute("SELECT * FROM nowhere"))


def _raised(call: Callable[[], object]) -> sqlite3.Error:
    with pytest.raises(sqlite3.Error) as raised:
        call()
    return raised.value


def test_errors_are_known_by_their_message_where_python_keeps_no_code(path: Path) -> None:
    told = []
    for error in _errors(path):
        bare = type(error)(str(error))  # as Python 3.10 raises it
        told.append((failure(bare), is_unique_violation(bare)))
        assert told[-1] == (failure(error), is_unique_violation(error))
    assert told == [
        (Failure.CONFLICT, False),
        (None, True),
        (Failure.BUSY, False),
        (Failure.BUSY, False),
        (None, False),
    ]
