"""The SQL: its files, their form, and that every dialect says the same in its own words."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from statedb import dialects, sqlfiles
from statedb.dialects import Dialect

DIALECTS = dialects.registered()
FILES = sorted(
    {path for dialect in DIALECTS for directory in dialect.sql for path in directory.glob("*.sql")}
)
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name)
each_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}"
)

# PostgreSQL locks an active master by writing it, so that an older snapshot than that is found out.
LOCKS_BY_WRITING = "lock_active_master"
# How several writes become one statement on a server: PostgreSQL locks within its update. On SQLite
# several callers' share a commit instead, and one caller's are a statement each.
BATCHED_WRITES = {"lock_values", "update_values", "upsert_values", "upsert_value"}
# Only servers have other sessions; and PostgreSQL shows what was committed while its wait for a
# standby was cut short.
SESSIONS = {
    *("select_sessions_ended", "select_message_logged"),
    *("select_session_id", "kill_session", "select_session_awaited"),
}
# With which keyword a statement of that verb begins.
VERBS = {
    "select": "SELECT",
    "find": "SELECT",
    "lock": "SELECT",
    "unlock": "SELECT",
    "insert": "INSERT INTO",
    "upsert": "INSERT INTO",
    "update": "UPDATE",
    "delete": "DELETE FROM",
    "create": "CREATE",
    "kill": "KILL",
}
KEYWORDS = set(
    re.findall(
        r"\w+",
        "add and as asc autoincrement by check conflict constraint create default delete desc"
        " distinct do duplicate else end exists for from group having if in index inner insert"
        " into is join key left like limit lock not nothing null offset on or order primary"
        " references returning select set share table then union unique update values when where"
        " with",
    )
)
# By each of these there is at most one row.
UNIQUE = ({"id"}, {"identity_hash"}, {"objectid", "name_hash"})
UNIQUE_MASTERS = ({"name_hash"}, {"claimant.id"})


def _blocks(path: Path) -> list[tuple[str, str, str]]:
    """Name, comment and statement of each block of a file."""
    parts = re.split(r"^-- name: (.*)\n", path.read_text("utf-8"), flags=re.MULTILINE)
    blocks = []
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        lines = text.strip().splitlines()
        ends = next(i for i, line in enumerate(lines) if not line.startswith("--"))
        comment = " ".join(line.removeprefix("--").strip() for line in lines[:ends])
        blocks.append((name, comment, "\n".join(lines[ends:])))
    return blocks


def _words(statement: str) -> list[str]:
    """A statement's words, without its strings, comments and parameters."""
    return re.findall(r"\w+", re.sub(r"'[^']*'|/\*.*?\*/|%\(\w+\)[sb]", " ", statement))


def _finds_one_row(statement: str) -> bool:
    compared = set(re.findall(r"^(?:WHERE|  AND) ([\w.]+) = %", statement, re.MULTILINE))
    keys = UNIQUE + (UNIQUE_MASTERS if "statedb_masters" in statement else ())
    is_single = re.match(r"SELECT (MAX|COUNT)\(|SELECT 1\b", statement) is not None
    return is_single or "\nFROM" not in statement or any(key <= compared for key in keys)


@each_file
def test_a_file_says_what_it_holds(path: Path) -> None:
    assert re.match(r"-- \w.*\.$", path.read_text("utf-8").partition("\n\n")[0], re.DOTALL)


@each_file
def test_each_statement_has_one_comment_that_says_what_it_does(path: Path) -> None:
    for name, comment, statement in _blocks(path):
        assert len(comment.split()) > 1, name
        assert comment.endswith("."), name
        assert "--" not in statement, name
        assert statement.endswith(";"), name
        assert statement.count(";") == 1, name


@each_file
def test_a_statement_is_named_for_what_the_sql_does(path: Path) -> None:
    for name, _, statement in _blocks(path):
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name)
        keyword = VERBS[name.partition("_")[0]]
        if name == LOCKS_BY_WRITING and path.parent.name == "postgresql":
            keyword = "UPDATE"
        assert " ".join(statement.split()).startswith(f"{keyword} "), name


@each_file
def test_keywords_are_upper_case_and_columns_are_listed(path: Path) -> None:
    for name, _, statement in _blocks(path):
        assert [word for word in _words(statement) if word in KEYWORDS] == [], name
        assert "*" not in re.sub(r"/\*.*?\*/", "", statement), name


@each_file
def test_a_query_for_several_rows_has_an_order(path: Path) -> None:
    unordered = [
        name
        for name, _, statement in _blocks(path)
        if statement.startswith("SELECT") and not _finds_one_row(statement)
        if "\nORDER BY " not in statement
    ]
    assert unordered == []


@each_file
def test_what_is_created_may_be_there_already(path: Path) -> None:
    for name, _, statement in _blocks(path):
        if name.startswith("create_"):
            assert " IF NOT EXISTS " in statement.splitlines()[0], name


@each_dialect
def test_every_dialect_defines_the_same_statements(dialect: Dialect) -> None:
    def names(one: Dialect) -> set[str]:
        # MySQL creates indexes with their tables: it knows no CREATE INDEX IF NOT EXISTS.
        own = {name for name in sqlfiles.load(one.sql) if not re.match("create_.*_index_", name)}
        return own - BATCHED_WRITES - SESSIONS

    assert names(dialect) == names(DIALECTS[0])


@each_dialect
def test_every_dialect_gives_its_statements_the_same_parameters(dialect: Dialect) -> None:
    # psycopg is told to send arrays as it sends bytes, whatever is in them.
    arrays = re.compile(r"(%\(\w+\))b(?=::(bigint|text)\[\])")

    def parameters(one: Dialect) -> dict[str, set[tuple[str, str]]]:
        return {
            name: set(re.findall(r"%\((\w+)\)(\w)", arrays.sub(r"\1s", statement)))
            for name, statement in sqlfiles.load(one.sql).items()
            if not name.startswith("create_") and name not in BATCHED_WRITES | SESSIONS
        }

    assert parameters(dialect) == parameters(DIALECTS[0])


@each_dialect
def test_a_dialect_that_shares_no_commits_writes_for_several_callers_at_once(
    dialect: Dialect,
) -> None:
    assert ("update_values" in sqlfiles.load(dialect.sql)) is not dialect.shares_commits


@each_dialect
def test_the_loader_finds_every_statement_of_the_files(dialect: Dialect) -> None:
    written = [
        name
        for directory in dialect.sql
        for path in directory.glob("*.sql")
        for name, _, _ in _blocks(path)
    ]
    assert sorted(sqlfiles.load(dialect.sql)) == sorted(written)


def test_the_schema_of_sqlite_can_be_run_twice_by_its_own_shell() -> None:
    script = (sqlfiles.shipped("sqlite") / "schema.sql").read_text("utf-8")
    with closing(sqlite3.connect(":memory:")) as raw:
        raw.executescript(script)
        raw.executescript(script)
        rows = raw.execute("SELECT name FROM sqlite_master WHERE name LIKE 'statedb%'").fetchall()
    assert {name for (name,) in rows} >= {"statedb_objects", "statedb_masters", "statedb_claims"}
