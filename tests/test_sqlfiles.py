"""How SQL files are read, what is wrong with a bad one, and a dialect that brings its own."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import statedb
from statedb import dialects, sqlfiles
from statedb.dialects import Dialect
from statedb.sqlfiles import Statements, hexadecimal_parameters, named_parameters

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file below an SQL directory of the test's own; the file."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / "sql" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return write_file


def test_a_statement_is_what_follows_its_name_without_comments_and_semicolon(write: Write) -> None:
    first = "-- A file.\n\n-- name: select_one\n-- One\n-- é.\nSELECT 1,\n  2;\n\n"
    path = write("own/some.sql", f"{first}-- name: select_two\nSELECT 2")
    assert sqlfiles.load([path.parent]) == {
        "select_one": "SELECT 1,\n  2",
        "select_two": "SELECT 2",
    }


def test_a_later_directory_replaces_statements_of_an_earlier_one(write: Write) -> None:
    first = write(
        "first/some.sql", "-- name: select_one\nSELECT 1;\n-- name: select_two\nSELECT 2;"
    )
    second = write("second/other.sql", "-- name: select_two\nSELECT 22;")
    loaded = sqlfiles.load([first.parent, second.parent])
    assert loaded == {"select_one": "SELECT 1", "select_two": "SELECT 22"}


def test_a_name_given_twice_in_a_directory_is_an_error_that_names_the_file(write: Write) -> None:
    write("own/a.sql", "-- name: select_one\nSELECT 1;")
    path = write("own/b.sql", "-- name: select_one\nSELECT 1;")
    with pytest.raises(ValueError, match="a second statement named select_one") as caught:
        sqlfiles.load([path.parent])
    assert str(path) in str(caught.value)


def test_a_statement_before_any_name_is_an_error_that_names_file_and_line(write: Write) -> None:
    path = write("own/a.sql", "-- A file.\n\nSELECT 1;\n-- name: select_one\nSELECT 1;")
    with pytest.raises(ValueError, match="a statement without a '-- name:' line") as caught:
        sqlfiles.load([path.parent])
    assert f"{path}:3:" in str(caught.value)


def test_a_name_that_is_none_is_an_error_that_names_file_and_line(write: Write) -> None:
    path = write("own/a.sql", "-- name: select_one\nSELECT 1;\n-- name: Select Two\nSELECT 2;")
    with pytest.raises(ValueError, match="not of the form '-- name: verb_noun'") as caught:
        sqlfiles.load([path.parent])
    assert f"{path}:3:" in str(caught.value)


def test_a_file_may_hold_no_statement_where_another_does(write: Write) -> None:
    write("own/a.sql", "-- A file.\n")
    path = write("own/b.sql", "-- name: select_one\nSELECT 1;")
    assert sqlfiles.load([path.parent]) == {"select_one": "SELECT 1"}


@pytest.mark.parametrize("rest", ["-- Nothing.\n", ";\n", "-- name: select_two\nSELECT 2;"])
def test_a_name_without_a_statement_is_an_error_that_names_both(write: Write, rest: str) -> None:
    path = write("own/a.sql", f"-- name: select_one\n{rest}")
    with pytest.raises(ValueError, match="select_one has no statement") as caught:
        sqlfiles.load([path.parent])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_directory_without_sql_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds no \.sql file") as caught:
        sqlfiles.load([tmp_path / name])
    assert str(tmp_path / name) in str(caught.value)


def test_what_was_not_shipped_is_an_error_that_says_so() -> None:
    with pytest.raises(FileNotFoundError, match="without its sql/oracle; install it anew"):
        sqlfiles.shipped("oracle")


def test_parameters_are_put_into_the_style_of_the_driver() -> None:
    source = "SELECT %(number)s, %(hash)b, '%%'"
    assert named_parameters(source) == "SELECT :number, :hash, '%'"
    assert hexadecimal_parameters(source) == "SELECT %(number)s, UNHEX(%(hash)s), '%%'"


def test_the_part_between_the_marks_is_repeated_with_numbered_parameters() -> None:
    source = {"select_some": "SELECT 1 IN (/*each*/ %(hash)b /*end*/), %(other)s"}
    statements = Statements(source, named_parameters)
    assert statements.repeated("select_some", 1) == "SELECT 1 IN (:hash_0), :other"
    assert (
        statements.repeated("select_some", 3) == "SELECT 1 IN (:hash_0, :hash_1, :hash_2), :other"
    )
    server = Statements(source, hexadecimal_parameters)
    assert server.repeated("select_some", 1) == "SELECT 1 IN (UNHEX(%(hash_0)s)), %(other)s"


def test_of_repeated_statements_no_more_than_a_thousand_are_kept() -> None:
    names = [f"select_{number}" for number in range(1200)]
    statements = Statements({name: f"{name} /*each*/ %(k)s /*end*/" for name in names}, str)
    for name in names:
        assert statements.repeated(name, 2) == f"{name} %(k_0)s, %(k_1)s"
        assert len(statements._repeated) <= 1000


def test_a_statement_is_rewritten_where_it_has_a_mark() -> None:
    statements = Statements({"select_some": "SELECT 1 /*filters*/"}, named_parameters)
    assert statements.rewritten("select_some", {"filters": "= %(one)s"}) == "SELECT 1 = :one"
    assert statements["select_some"] == "SELECT 1 /*filters*/"


# --- A dialect from outside ---

CREATE_STATES_TABLE = """
-- name: create_states_table
-- As statedb's own, but clustered.
CREATE TABLE IF NOT EXISTS statedb_states (
  objectid INTEGER NOT NULL,
  name_hash BLOB NOT NULL,
  stamp INTEGER NOT NULL,
  name BLOB NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (objectid, name_hash)
) WITHOUT ROWID;
"""


@pytest.fixture
def acme(write: Write, monkeypatch: pytest.MonkeyPatch) -> Dialect:
    """A third party's dialect, close to SQLite; forgotten after the test."""
    monkeypatch.setattr(dialects, "_known", dict(dialects._known))
    monkeypatch.setattr(dialects, "_by_connection_type", {})
    like = dialects.for_url("sqlite://")
    own = write("acme/tables.sql", CREATE_STATES_TABLE).parent
    dialect = dataclasses.replace(like, name="acme", schemes=("acme",), sql=(*like.sql, own))
    dialects.register(dialect)
    return dialect


def _create_states(path: Path) -> str:
    with closing(sqlite3.connect(path)) as second:
        row = second.execute("SELECT sql FROM sqlite_master WHERE name = 'statedb_states'")
        created: str = row.fetchone()[0]
    return created


def test_a_registered_dialect_is_found_by_its_scheme_and_brings_its_sql(
    acme: Dialect, tmp_path: Path
) -> None:
    path = tmp_path / "acme.sqlite"
    with statedb.connect(f"acme:///{path}") as db:
        objectid = db.state.getObjectId("nightly", "Scheduler").result()
        assert db.state.thdSetState(objectid, "last", [1]) == [1]
        assert db.run(lambda conn: conn.dialect) is acme
    with statedb.connect(f"acme:///{path}") as db:
        assert db.state.thdGetState(objectid, "last") == [1]
    assert "WITHOUT ROWID" in _create_states(path)


def test_a_registered_dialect_is_taken_for_connections_of_its_driver(
    acme: Dialect, tmp_path: Path
) -> None:
    path = tmp_path / "acme.sqlite"
    with closing(sqlite3.connect(path)) as own:
        statedb.schema.upgrade(statedb.connection.adapt(own))
        objectid = statedb.state.get_object_id(own, "nightly", "Scheduler")
        statedb.state.set_state(own, objectid, "last", 7)
        own.commit()
        assert statedb.connection.adapt(own).dialect is acme
    assert "WITHOUT ROWID" in _create_states(path)
    with statedb.connect(f"acme:///{path}") as db:
        assert db.state.thdGetState(objectid, "last") == 7


def test_registering_a_dialect_leaves_the_others_as_they_are(acme: Dialect, tmp_path: Path) -> None:
    path = tmp_path / "plain.sqlite"
    with statedb.connect(f"sqlite:///{path}") as db:
        db.upgrade()
    assert "WITHOUT ROWID" not in _create_states(path)
    assert [one.name for one in dialects.registered()] == ["sqlite", "postgresql", "mysql", "acme"]


def test_an_unknown_scheme_is_answered_with_all_that_are_registered(acme: Dialect) -> None:
    with pytest.raises(statedb.InvalidURLError, match=r"mariadb:// or acme://$"):
        statedb.connect("oracle://host/database")
