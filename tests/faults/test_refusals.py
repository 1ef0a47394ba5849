"""Refusals: a database that cannot be opened, read or written says so at once, and is unharmed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from engines import Engine, OwnServer

import statedb.cli
from faults import extent, refusals
from faults.refusals import (
    READS,
    SECRET,
    SMALL_WRITES,
    TIMEOUT,
    UPGRADE,
    WRITES,
    check_answered,
    check_as_new,
    check_command_refused,
    check_refused,
    result_of,
    unprivileged,
)
from statedb import CallTimeoutError, Connection, DatabaseError, SchemaError, schema

pytestmark = pytest.mark.once

MODES = ("wal", "delete")
ALL_WRITES = [*WRITES, *SMALL_WRITES]
EVERYTHING = [*READS, *ALL_WRITES, *UPGRADE]


# --- SQLite: files and their directories ---


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an unprivileged user may enter and write to."""
    with tempfile.TemporaryDirectory(prefix="statedb-refusals-") as name:
        directory = Path(name) / "place"
        Path(name).chmod(0o755)
        directory.mkdir()
        if os.geteuid() == 0:
            os.chown(directory, refusals.NOBODY, refusals.NOBODY)
        yield directory
        directory.chmod(0o755)


def _put_away(path: Path) -> Path:
    return path.parent.parent / "put away"


def _scribble(path: Path) -> None:
    shutil.copy(path, _put_away(path))
    path.write_bytes(b"Dear diary, this is no database. " * 500)


def _damage(path: Path) -> None:
    shutil.copy(path, _put_away(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xa5" * (len(whole) - 100))


def _restore(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(_put_away(path), refusals.NOBODY, refusals.NOBODY)
    # Not into the same file, but in its place.
    _put_away(path).rename(path)


def _make_writable(path: Path) -> None:
    # A reader has made the others just as the file was.
    for one in path.parent.glob(f"{path.name}*"):
        one.chmod(0o644)


def _become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _lose_directory(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()


def _find_directory(path: Path) -> None:
    path.parent.mkdir()
    if os.geteuid() == 0:
        os.chown(path.parent, refusals.NOBODY, refusals.NOBODY)


def _lose_file(path: Path) -> None:
    path.unlink()
    path.parent.chmod(0o555)


class _Amiss(NamedTuple):
    """What may be amiss with a file, and how it is mended."""

    spoil: Callable[[Path], Any]
    mend: Callable[[Path], Any]
    #: What a refusal says.
    parts: tuple[str, ...]
    #: In which modes it can be read all the same.
    readable: tuple[str, ...] = ()
    #: Whether what was in it is lost.
    is_lost: bool = False


AMISS = {
    "read-only file": _Amiss(
        lambda path: path.chmod(0o444),
        _make_writable,
        ("attempt to write a readonly database", "let this user write to the file"),
        readable=MODES,
    ),
    "unreadable file": _Amiss(
        lambda path: path.chmod(0),
        lambda path: path.chmod(0o644),
        ("unable to open database file", "let this user write to both"),
    ),
    "unwritable directory": _Amiss(
        lambda path: path.parent.chmod(0o555),
        lambda path: path.parent.chmod(0o755),
        ("let this user write to",),
        readable=("delete",),
    ),
    "no file, unwritable directory": _Amiss(
        _lose_file,
        lambda path: path.parent.chmod(0o755),
        ("unable to open database file", "let this user write to both"),
        is_lost=True,
    ),
    "no directory": _Amiss(
        _lose_directory,
        _find_directory,
        ("unable to open database file", "in a directory that exists"),
        is_lost=True,
    ),
    "a directory as database": _Amiss(
        _become_a_directory,
        Path.rmdir,
        ("unable to open database file", "give the path of a file"),
        is_lost=True,
    ),
    "not a database": _Amiss(
        _scribble, _restore, ("file is not a database", "give the path of a SQLite file")
    ),
    "a damaged database": _Amiss(
        _damage, _restore, ("database disk image is malformed", "restore the file from a copy")
    ),
}


def _filled(path: Path, mode: str) -> str:
    """The URL of a database there with something in it."""
    url = f"sqlite:///{path}?journal_mode={mode}"
    with statedb.connect(url) as db:
        assert db.state.thdGetObjectId("nightly", "Scheduler") == 1
        db.state.thdSetStates(1, {"k": "kept", "other": "kept"})
        db.masters.thdFindMasterId("host")
    return url


def _written(path: Path) -> tuple[Any, ...]:
    if path.is_dir():
        return ()
    # One that the user who runs this may not read is judged by its time.
    return (path.stat().st_mtime_ns, path.read_bytes() if os.access(path, os.R_OK) else None)


def _standing(directory: Path) -> dict[str, Any]:
    """All that is in a directory, to the byte."""
    return {
        str(path): (path.stat().st_mode, *_written(path))
        # The log and its index come and go with a reader, and hold nothing.
        for path in sorted(directory.rglob("*"))
        if not path.name.endswith(("-shm", "-wal")) or path.stat().st_size > 2**15
    }


ALL_AMISS = tuple((what, mode) for what in AMISS for mode in MODES)
#: With a rollback journal what cannot be opened is no different.
SOME_AMISS = tuple(
    (what, mode) for what, mode in ALL_AMISS if mode == "wal" or AMISS[what].readable
)


@pytest.mark.parametrize(("what", "mode"), extent(SOME_AMISS, ALL_AMISS))
def test_a_file_that_cannot_be_used_is_told_at_once_left_alone_and_used_when_mended(
    place: Path, what: str, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    amiss = AMISS[what]
    path = place / "test.sqlite"
    with unprivileged():
        url = _filled(path, mode)
    amiss.spoil(path)
    before = _standing(place.parent)
    with statedb.connect(url, timeout=TIMEOUT) as db:
        with unprivileged():
            refused = EVERYTHING
            if mode in amiss.readable:
                check_answered(db, READS)
                refused = ALL_WRITES
            else:
                check_command_refused(url, capsys, str(path), *amiss.parts)
            check_refused(db, refused, *amiss.parts)
            if mode in amiss.readable:
                # Several connections, each of which was opened when there was no writing.
                together = [db.state.getState(1, "k") for _ in range(200)]
                assert {result_of(one) for one in together} == {"kept"}
        assert _standing(place.parent) == before
        amiss.mend(path)
        with unprivileged():
            if amiss.is_lost:
                assert db.state.thdGetObjectId("nightly", "Scheduler") == 1
                db.state.thdSetState(1, "k", "kept")
            assert db.state.thdGetState(1, "k") == "kept"
            check_as_new(db)
            check_answered(db, EVERYTHING)
    with contextlib.closing(sqlite3.connect(path)) as second:
        assert second.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (count,) = second.execute(
            "SELECT COUNT(*) FROM statedb_states WHERE CAST(name AS TEXT) LIKE 'mended %'"
        ).fetchone()
    # The last of the calls has deleted the object, and with it all its values.
    assert count == 0


ALL_FULL = tuple((kind, mode) for kind in ("disk", "limit") for mode in (*MODES, "truncate"))


@pytest.mark.parametrize(("kind", "mode"), extent((("disk", "wal"), ("limit", "delete")), ALL_FULL))
def test_a_full_disk_is_told_at_once_loses_nothing_and_serves_again_when_there_is_room(
    kind: str, mode: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="statedb-refusals-") as directory:
        program = [sys.executable, str(Path(__file__).with_name("full_disk.py"))]
        command = [*program, directory, mode, kind]
        if kind == "disk":
            command = [*_on_a_small_disk(directory), *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr


def _on_a_small_disk(directory: str) -> list[str]:
    """What runs a command with a file system of 8 MiB at this directory, its own."""
    mount = ["sh", "-c", 'mount -t tmpfs -o size=8m none "$0" && exec "$@"', directory]
    said = ""
    # Root may mount; others are root in a namespace of their own, where that is allowed.
    for namespace in (["unshare", "-m"], ["unshare", "-U", "-r", "-m"]):
        tried = subprocess.run(
            [*namespace, *mount, sys.executable, "-c", ""],
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.returncode == 0:
            return [*namespace, *mount]
        said += tried.stderr
    pytest.skip(f"no disk to fill can be mounted, only the one with a limit is tried: {said}")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (_become_a_directory, ("unable to open database file", "give the path of a file")),
        (_scribble, ("file is not a database", "give the path of a SQLite file")),
    ],
    ids=["directory", "scribble"],
)
def test_the_program_ends_with_1_and_says_why_in_one_line_if_the_file_cannot_be_used(
    place: Path, spoil: Callable[[Path], None], parts: Sequence[str]
) -> None:
    path = place / "test.sqlite"
    url = _filled(path, "wal")
    spoil(path)
    _check_program_refused(url, str(path), *parts)


def _check_program_refused(url: str, *parts: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "statedb", "upgrade", "--url", url],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    refusals.check_line(done.stderr, *parts)


def test_a_command_that_is_not_understood_ends_with_2_and_help_says_which_codes_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATEDB_URL", raising=False)
    for arguments in ([], ["upgrade"], ["upgrade", "--url"], ["downgrade"]):
        with pytest.raises(SystemExit) as ended:
            statedb.cli.main(arguments)
        assert ended.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.splitlines()[-1].startswith("statedb")
    with pytest.raises(SystemExit) as ended:
        statedb.cli.main(["--help"])
    assert ended.value.code == 0
    assert "exit code: 0" in capsys.readouterr().out


# --- Servers: accounts and databases ---


@dataclass
class _Account:
    """An account of its own for a test, with a password, and a database with something in it."""

    engine: OwnServer
    #: Of the database, for the account that may do all.
    all_url: str
    #: The same for the account.
    url: str
    name: str

    @property
    def database(self) -> str:
        return self.all_url.rpartition("/")[2]

    @property
    def grantee(self) -> str:
        return self.name if self.is_postgresql else f"{self.name}@'127.0.0.1'"

    @property
    def is_postgresql(self) -> bool:
        return self.engine.name == "postgresql"

    def connect(self) -> Any:
        """A second connection, of the driver's own, that may do all."""
        return self.engine.connect(self.all_url, autocommit=True)

    def execute(self, *statements: str) -> None:
        """Run what each engine has, with the account's and the database's name in it."""
        with contextlib.closing(self.connect()) as own:
            for statement in statements:
                own.cursor().execute(statement.format(account=self.grantee, database=self.database))

    def by_engine(self, postgresql: str, others: str) -> None:
        for statement in (postgresql if self.is_postgresql else others).split(";"):
            self.execute(statement)

    def create(self, password: str = SECRET) -> None:
        self.by_engine(
            f"CREATE ROLE {{account}} LOGIN PASSWORD '{password}'",
            f"CREATE USER {{account}} IDENTIFIED BY '{password}'",
        )

    def drop(self) -> None:
        self.by_engine(
            "DROP OWNED BY {account};DROP ROLE {account}", "DROP USER IF EXISTS {account}"
        )

    def grant(self, rights: str) -> None:
        self.by_engine(
            f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {{account}}",
            f"GRANT {rights} ON `{{database}}`.* TO {{account}}",
        )

    def contents(self) -> dict[str, list[Any]]:
        """All rows of all tables that are there, by a second connection."""
        with contextlib.closing(self.connect()) as own:
            tables = schema.find_tables(statedb.connection.adapt(own))
            found = {}
            for table in tables:
                cursor = own.cursor()
                cursor.execute(f"SELECT * FROM {table} ORDER BY 1")
                found[table] = sorted(cursor.fetchall())
            return found


@pytest.fixture
def account(server_engine: OwnServer, tmp_path: Path) -> Iterator[_Account]:
    with server_engine.empty_database(tmp_path) as url:
        with statedb.connect(url) as db:
            db.upgrade()
            objectid = db.state.thdGetObjectId("nightly", "Scheduler")
            assert objectid == 1
            db.state.thdSetStates(1, {"k": "kept", "other": "kept"})
            db.masters.thdSetMasterState(db.masters.thdFindMasterId("host"), True)
        name = f"refused_{secrets.token_hex(4)}"
        scheme, _, rest = url.partition("://")
        own_url = f"{scheme}://{name}:{SECRET}@{rest.partition('@')[2]}"
        one = _Account(server_engine, url, own_url, name)
        if one.is_postgresql:
            _ask_for_password(one)
        one.create()
        try:
            yield one
        finally:
            one.drop()


def _ask_for_password(account: _Account) -> None:
    """Have the server, which trusts everybody, ask this account for its password."""
    with contextlib.closing(account.connect()) as own:
        ((path,),) = own.execute("SHOW hba_file").fetchall()
        file = Path(path)
        rule = f"host all {account.name} 127.0.0.1/32 scram-sha-256\n"
        file.write_text(rule + file.read_text("utf-8"), "utf-8")
        own.execute("SELECT pg_reload_conf()")


class _Barred(NamedTuple):
    """What may bar an account, in PostgreSQL's words and in the others', and what lets it in."""

    bar: tuple[str, str]
    let_in: tuple[str, str]
    parts: tuple[str, ...]


BARRED = {
    "wrong password": _Barred(
        ("ALTER ROLE {account} PASSWORD 'other'", "ALTER USER {account} IDENTIFIED BY 'other'"),
        (
            f"ALTER ROLE {{account}} PASSWORD '{SECRET}'",
            f"ALTER USER {{account}} IDENTIFIED BY '{SECRET}'",
        ),
        ("correct the user and the password in the URL",),
    ),
    "may not log in": _Barred(
        ("ALTER ROLE {account} NOLOGIN", "ALTER USER {account} ACCOUNT LOCK"),
        ("ALTER ROLE {account} LOGIN", "ALTER USER {account} ACCOUNT UNLOCK"),
        ("or what the server lets log in",),
    ),
    "no such account": _Barred(
        ("DROP OWNED BY {account};DROP ROLE {account}", "DROP USER {account}"),
        (
            f"CREATE ROLE {{account}} LOGIN PASSWORD '{SECRET}'",
            f"CREATE USER {{account}} IDENTIFIED BY '{SECRET}'",
        ),
        ("correct the user and the password in the URL",),
    ),
    "no rights": _Barred(
        (
            "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {account}",
            "REVOKE ALL PRIVILEGES ON `{database}`.* FROM {account}",
        ),
        ("SELECT 1", "SELECT 1"),
        ("grant this account SELECT, INSERT, UPDATE and DELETE on the tables",),
    ),
}


@pytest.mark.parametrize("how", extent(("wrong password", "no rights"), tuple(BARRED)))
def test_an_account_that_is_barred_is_told_at_once_and_served_when_it_is_let_in(
    account: _Account, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    barred = BARRED[how]
    account.grant("ALL")
    account.by_engine(*barred.bar)
    before = account.contents()
    shown = account.url.replace(f":{SECRET}", "")
    with statedb.connect(account.url, timeout=TIMEOUT) as db:
        check_refused(db, EVERYTHING, *barred.parts)
        check_command_refused(account.url, capsys, *barred.parts)
        if how == "wrong password":
            _check_program_refused(account.url, *barred.parts)
        assert repr(db) == f"<statedb.Database {shown}>"
        assert account.contents() == before
        account.by_engine(*barred.let_in)
        account.grant("ALL")
        assert db.state.thdGetState(1, "k") == "kept"
        check_as_new(db)
        check_answered(db, EVERYTHING)


def test_a_password_that_is_missing_is_told_at_once(account: _Account) -> None:
    account.grant("ALL")
    with statedb.connect(account.url.replace(f":{SECRET}", ""), timeout=TIMEOUT) as db:
        check_refused(db, EVERYTHING, "correct the user and the password in the URL")


def test_an_account_that_may_only_read_reads_and_writes_when_it_may(
    account: _Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.grant("SELECT")
    before = account.contents()
    grant = "grant this account SELECT, INSERT, UPDATE and DELETE on the tables"
    with statedb.connect(account.url, timeout=TIMEOUT) as db:
        check_answered(db, READS)
        check_refused(db, ALL_WRITES, grant)
        # There is nothing to upgrade; then there is.
        check_answered(db, UPGRADE)
        account.execute("DELETE FROM statedb_schema")
        check_refused(db, UPGRADE, grant)
        check_command_refused(account.url, capsys, grant)
        account.execute(f"INSERT INTO statedb_schema (version) VALUES ({schema.VERSION})")
        assert account.contents() == before
        account.grant("INSERT, UPDATE, DELETE")
        check_as_new(db)
        check_answered(db, EVERYTHING)


@pytest.fixture
def half_granted(account: _Account) -> _Account:
    """An account that may write to objects and values, but not to masters."""
    account.grant("SELECT")
    for table in ("statedb_states", "statedb_objects"):
        account.execute(f"GRANT INSERT, UPDATE, DELETE ON {table} TO {{account}}")
    return account


def test_in_a_transaction_a_refusal_leaves_what_was_written_before_to_be_committed(
    half_granted: _Account,
) -> None:
    with statedb.connect(half_granted.url, timeout=TIMEOUT) as db, db.transaction() as conn:
        db.state.thdSetState(1, "k", "written before")
        with pytest.raises(DatabaseError, match="grant this account"), conn.transaction():
            db.masters.thdFindMasterId("new")
        db.state.thdSetState(1, "other", "written after")
    with contextlib.closing(half_granted.connect()) as second:
        assert statedb.state.get_states(second, 1) == {
            "k": "written before",
            "other": "written after",
        }
        assert [one.name for one in statedb.masters.get_masters(second)] == ["host"]


def test_a_function_that_has_committed_something_is_not_run_again_when_it_is_refused(
    half_granted: _Account,
) -> None:
    def both(conn: Connection) -> None:
        statedb.state.update_state(conn, 1, "k", lambda value: [value])
        statedb.masters.find_master_id(conn, "new")

    refused = pytest.raises(DatabaseError, match=r"both failed in .*grant this account")
    with statedb.connect(half_granted.url, timeout=TIMEOUT) as db, refused:
        db.run(both)
    with contextlib.closing(half_granted.connect()) as second:
        assert statedb.state.get_state(second, 1, "k") == ["kept"]


def test_a_role_that_is_to_write_nothing_is_told_at_once(account: _Account) -> None:
    if not account.is_postgresql:
        pytest.skip("PostgreSQL only: elsewhere a server is read-only, not an account")
    account.grant("ALL")
    account.execute("ALTER ROLE {account} SET default_transaction_read_only = on")
    before = account.contents()
    with statedb.connect(account.url, timeout=TIMEOUT) as db:
        check_answered(db, READS)
        check_refused(db, ALL_WRITES, "read-only transaction", "as an account, that may write")
        assert account.contents() == before
        account.execute("ALTER ROLE {account} RESET default_transaction_read_only")
        check_as_new(db)
        check_answered(db, EVERYTHING)


def test_a_server_that_is_read_only_is_asked_again_until_the_time_is_up(
    account: _Account,
) -> None:
    if account.is_postgresql:
        pytest.skip("not PostgreSQL: there a standby is")
    account.grant("ALL")
    before = account.contents()
    with statedb.connect(account.url, timeout=1.5) as db:
        account.execute("SET GLOBAL read_only = 1")
        try:
            check_answered(db, READS)
            with pytest.raises(CallTimeoutError, match=r"1290.*connect to a server.*may write"):
                db.state.thdSetState(1, "k", 2)
            assert account.contents() == before
        finally:
            account.execute("SET GLOBAL read_only = 0")
        check_as_new(db)


def test_a_database_that_does_not_exist_is_told_at_once_and_used_when_it_does(
    account: _Account, capsys: pytest.CaptureFixture[str]
) -> None:
    assert account.engine.server is not None
    name = f"statedb_later_{secrets.token_hex(4)}"
    url = f"{account.all_url.rpartition('/')[0]}/{name}"
    advice = "create this database, or correct its name in the URL"
    with statedb.connect(url, timeout=TIMEOUT) as db:
        check_refused(db, EVERYTHING, advice)
        check_command_refused(url, capsys, advice, name)
        account.engine.server.create_database(name)
        try:
            db.upgrade()
            assert db.state.thdGetObjectId("nightly", "Scheduler") == 1
        finally:
            account.engine.server.drop_database(name)


# --- Tables that are half there ---


@pytest.fixture
def half(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with something in it, but for one of its tables."""
    with engine.empty_database(tmp_path) as url:
        with statedb.connect(url) as db:
            db.upgrade()
            db.state.thdSetState(db.state.thdGetObjectId("nightly", "Scheduler"), "k", "kept")
            db.masters.thdSetMasterState(db.masters.thdFindMasterId("host"), True)
        with contextlib.closing(engine.connect(url, autocommit=True)) as own:
            own.cursor().execute("DROP TABLE statedb_states")
        yield url


def test_a_table_that_is_lost_is_told_at_once_and_made_anew_by_upgrade_only(
    engine: Engine, half: str
) -> None:
    advice = "restore the table, or make it anew and empty: python -m statedb upgrade"
    needs_it = [name for name in EVERYTHING if "state" in name and "master" not in name]
    with statedb.connect(half, timeout=TIMEOUT) as db:
        check_refused(db, needs_it, "statedb_states", advice)
        check_answered(db, ["get_masters", "get_objects", "take_place"])
        with contextlib.closing(engine.connect(half, autocommit=True)) as second:
            found = schema.find_tables(statedb.connection.adapt(second))
            assert "statedb_states" not in found
        db.upgrade()
        assert db.state.thdGetStates(1) == {}
        check_as_new(db)
        assert [one.name for one in db.masters.thdGetMasters()] == ["host", "refused"]
        check_answered(db, [*WRITES, *READS, *SMALL_WRITES])


def test_the_command_line_makes_a_table_that_is_lost_anew(
    engine: Engine, half: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert statedb.cli.main(["upgrade", "--url", half]) == 0
    assert capsys.readouterr().err == ""
    with contextlib.closing(engine.connect(half, autocommit=True)) as second:
        assert statedb.state.get_states(second, 1) == {}
        assert [one.name for one in statedb.masters.get_masters(second)] == ["host"]


def test_without_the_row_that_says_their_version_a_servers_tables_are_missing(
    server_engine: OwnServer, half: str
) -> None:
    with contextlib.closing(server_engine.connect(half, autocommit=True)) as own:
        own.cursor().execute("DELETE FROM statedb_schema")
    with statedb.connect(half, timeout=TIMEOUT) as db:
        for name in [*READS, *ALL_WRITES]:
            with pytest.raises(SchemaError, match=r"are missing.*python -m statedb upgrade"):
                result_of(refusals.ALL[name](db))
        db.upgrade()
        assert [one.name for one in db.masters.thdGetMasters()] == ["host"]
        check_answered(db, ["get_object_id", "take_place"])
