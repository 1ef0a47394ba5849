"""URLs: which forms there are, what a wrong one says, and that no password is ever shown."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import statedb
from statedb import DatabaseError, InvalidURLError

SECRET = "s3cret%21ü"
SECRETS = ("s3cret", "s3cret!ü")


def test_a_relative_path_is_of_the_directory_in_which_connect_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with statedb.connect("sqlite:///relative.sqlite") as db:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        db.state.thdGetObjectId("a", "B")
    assert (tmp_path / "relative.sqlite").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_absolute_path_has_four_slashes_and_may_be_percent_encoded(tmp_path: Path) -> None:
    with statedb.connect(f"sqlite:///{tmp_path}/with%20blank%3F.sqlite") as db:
        db.state.thdGetObjectId("a", "B")
    assert (tmp_path / "with blank?.sqlite").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "SQLite://"])
def test_a_database_in_memory_leaves_no_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with statedb.connect(url) as db:
        assert db.state.thdGetObjectId("a", "B") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite",
        "sqlite:relative.db",
        "oracle://host/db",
        f"postgre://user:{SECRET}@host/db",
        "relative.db",
        "://",
    ],
)
def test_an_unknown_scheme_says_which_there_are(url: str) -> None:
    with pytest.raises(InvalidURLError) as raised:
        statedb.connect(url)
    assert "sqlite://, postgresql://, postgres://, mysql:// or mariadb://" in str(raised.value)
    assert not any(secret in str(raised.value) for secret in SECRETS)


@pytest.mark.parametrize("url", [None, 1, b"sqlite://", Path("x.db")])
def test_a_url_that_is_no_str_is_a_type_error(url: object) -> None:
    with pytest.raises(TypeError, match="a database URL is a str"):
        statedb.connect(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://relative.db",
        "sqlite://host/path.db",
        "sqlite:///x.db?mode=ro",
        "sqlite:///a%00b",
        f"postgresql://user:{SECRET}@host:port:5/db",
        f"postgresql://user:{SECRET}%zz@host/db",
        f"postgresql://user:{SECRET}%ff@host/db",
        f"postgresql://user:{SECRET}@host/db?no_such_parameter=1",
        f"postgresql://user:{SECRET}@one,two/db?port=1,2,3",
        f"postgresql://user:{SECRET}@host/\ud800",
        f"mysql://user:{SECRET}@host/\ud800",
        f"postgresql://user:,{SECRET}\0@host/db",
        f"postgresql://user:{SECRET}@host:{'9' * 5000}/db",
        f"mysql://user%00:{SECRET}@host/db",
        f"mysql://user:{SECRET}@host/db%00",
        f"mysql://user:{SECRET}@host",
        f"mysql://user:{SECRET}@host/",
        f"mysql://user:{SECRET}@host/db/table",
        f"mysql://user:{SECRET}@host:0/db",
        f"mysql://user:{SECRET}@host:port/db",
        f"mysql://user:{SECRET}@host:99999/db",
        f"mysql://user:{SECRET}@host/db?nonsense=1",
        f"mysql://user:{SECRET}@host/db?ssl_disabled=maybe",
        f"mariadb://user:{SECRET}@host/db?password=x",
        f"mysql://user:{SECRET}@host/db?ssl_disabled=true&ssl_ca=ca.pem",
        f"mysql://user:{SECRET}@host/db?ssl_verify_identity=true&ssl_verify_cert=false&ssl_ca=x",
        f"mysql://user:{SECRET}@host/db?ssl_key=key.pem&ssl_key_password={SECRET}",
        f"postgresql://user:p@{SECRET}@host/db",
        f"postgresql://user:12/{SECRET}@host/db",
        f"mysql://user:p@{SECRET}@host/db",
        f"mysql://user:12/{SECRET}@host",
        "sqlite:///",
        "sqlite:///?journal_mode=wal",
    ],
)
def test_a_malformed_url_is_a_value_error_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as raised:
        statedb.connect(url)
    shown = "".join(traceback.format_exception(raised.value))
    shown = shown.replace(url, "")  # this test's own source line is none of ours
    assert isinstance(raised.value, InvalidURLError)
    assert not any(secret in str(raised.value) for secret in SECRETS)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            f"postgresql://me:{SECRET}@one:1,two:2/db?sslmode=require",
            "postgresql://me@one:1,two:2/db",
        ),
        (f"postgresql://one,two/db?password={SECRET}", "postgresql://one,two/db"),
        ("postgresql:///db?hostaddr=::1,::2&port=1,2", "postgresql://::1:1,::2:2/db"),
        (f"postgres:///db?user=me&password={SECRET}", "postgresql://me@/db"),
        (f"mysql://me:{SECRET}@one,two:2,[::1]:3/d%20b", "mysql://me@one:3306,two:2,[::1]:3/d%20b"),
        (f"mariadb://:{SECRET}@/db", "mysql://localhost:3306/db"),
        (f"postgres://me:?{SECRET}@/db?sslmode=require", "postgresql://me@/db"),
        (f"mysql://me:?{SECRET}@/db?ssl_disabled=1", "mysql://me@localhost:3306/db"),
        ("sqlite://", "sqlite://"),
    ],
)
def test_a_database_shows_where_it_leads_without_the_password(url: str, shown: str) -> None:
    with statedb.connect(url) as db:
        assert repr(db) == f"<statedb.Database {shown}>"


def test_a_question_mark_in_a_password_is_the_passwords() -> None:
    target = statedb.dialects.for_url("mysql://").parse("mysql://me:why?@host/db?ssl_disabled=1")
    assert target.options == {"password": b"why?", "ssl_disabled": True}


@pytest.mark.parametrize("no", ["0", "false", "No"])
def test_the_url_says_how_a_mysql_server_is_to_show_who_it_is(no: str) -> None:
    dialect = statedb.dialects.for_url("mysql://")
    target = dialect.parse(
        f"mysql://host/db?ssl_ca=/ca.pem&ssl_verify_identity=1&ssl_disabled={no}"
    )
    assert target.options == {
        "ssl_ca": "/ca.pem",
        "ssl_verify_identity": True,
        "ssl_disabled": False,
    }


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_is_not_there_is_an_error_within_the_timeout_without_the_password(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"{scheme}://me:{SECRET}@127.0.0.1:1/db"
    with statedb.connect(url, timeout=0.5) as db, pytest.raises(DatabaseError) as raised:
        db.state.thdGetObjectId("a", "B")
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert "127.0.0.1" in str(raised.value)
    assert not any(secret in shown for secret in SECRETS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "unable to open database file"),
        (lambda path: path.write_bytes(b"no database at all" * 100), "file is not a database"),
        (lambda path: None, None),
    ],
    ids=["a directory", "not a database", "no directory"],
)
def test_a_path_that_cannot_be_a_database_is_named(
    tmp_path: Path, make: object, message: str | None
) -> None:
    path = tmp_path / "x.db"
    assert callable(make)
    make(path)
    if message is None:
        path, message = tmp_path / "absent" / "x.db", "unable to open database file"
    with statedb.connect(f"sqlite:///{path}") as db, pytest.raises(DatabaseError) as raised:
        db.state.thdGetObjectId("a", "B")
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


_WITHOUT_DRIVER = """
import sys, statedb
sys.modules[sys.argv[1]] = None  # as if it were not installed
try:
    statedb.connect(sys.argv[2])
except statedb.DriverMissingError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("scheme", "driver", "extra"),
    [("postgresql", "psycopg", "postgresql"), ("mariadb", "pymysql", "mysql")],
)
def test_without_its_driver_an_engine_names_the_extra(scheme: str, driver: str, extra: str) -> None:
    program = [sys.executable, "-c", _WITHOUT_DRIVER, driver, f"{scheme}://me:{SECRET}@host/db"]
    said = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"needs the driver {driver}: pip install 'statedb[{extra}]'" in said
    assert SECRET not in said
