"""The shape of the house: who imports whom, and what is done in one place only."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import statedb

PACKAGE = Path(statedb.__file__).parent

# A module imports from rows above its own.
LAYERS = (
    ("errors",),
    ("names", "sqlfiles", "stamps", "wrappers"),
    ("times",),
    ("values", "dialects", "dialects.sockets", "dialects.urls", "dialects.remedies"),
    ("dialects.turns", "dialects.sqlite_errors", "dialects.sqlite_log"),
    ("dialects.postgresql_hosts", "dialects.postgresql_connection"),
    ("dialects.mysql_errors", "dialects.mysql_hosts", "dialects.mysql_tls"),
    ("dialects.sqlite_connection", "dialects.postgresql_sessions", "dialects.mysql_sessions"),
    ("dialects.sqlite", "dialects.postgresql", "dialects.mysql"),
    ("link", "operation"),
    ("blocks",),
    ("connection",),
    ("resultspec",),
    ("objects", "claims", "masterrows", "staterows"),
    ("states", "batches"),
    ("state", "expiry"),
    ("masters",),
    ("schema", "place"),
    ("lanes", "watchdog", "futures", "chronicle", "process"),
    ("ready",),
    ("pool", "workers", "sharedcommit"),
    ("attempts",),
    ("executor",),
    ("detector", "callbacks"),
    ("keeper",),
    ("membership",),
    ("connectors",),
    ("database",),
    ("__init__",),
    ("signals", "demo", "demo.facts", "demo.repository", "demo.settings"),
    ("demo.master", "demo.processes", "demo.scene"),
    ("demo.company",),
    ("demo.story",),
    ("demo.command",),
    ("cli.endings", "cli.files", "cli.manual", "cli.pages", "cli.progress", "cli.text"),
    ("cli.output", "cli.parser", "cli.records", "cli.subjects"),
    ("cli.batch", "cli.dump", "cli.objects", "cli.watch"),
    ("cli.cluster", "cli.reader"),
    ("cli.load",),
    ("cli.dumping",),
    ("cli",),
    ("__main__",),
)
# These run operations, and know nothing of what they mean.
RUNNERS = (
    "futures",
    "lanes",
    "ready",
    "watchdog",
    "chronicle",
    "process",
    "pool",
    "sharedcommit",
    "workers",
    "attempts",
    "executor",
)
MEANINGS = {
    *("names", "values", "times", "resultspec", "objects", "state", "schema", "database"),
    *("staterows", "states", "batches"),
    *("claims", "masterrows", "expiry", "masters", "place"),
    *("detector", "keeper", "membership", "connectors"),
}

STATEMENT = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|REPLACE|MERGE|WITH|TRUNCATE)\s"
)
SETTING = re.compile(r"\s*(SET|PRAGMA|BEGIN|START|SAVEPOINT|RELEASE|COMMIT|ROLLBACK)\b")
ENGINE = re.compile("sqlite|postgres|psycopg|mysql|mariadb", re.IGNORECASE)
# What a command takes where its user names no database, and what its help shows as examples.
DEFAULT_DATABASE = ("demo.command", "sqlite:///")
EXAMPLES = "cli.manual"
CURSOR_METHODS = {"cursor", "executemany", "fetchone", "fetchmany", "fetchall", "executescript"}
READING = {"open", "read_text", "read_bytes", "iterdir", "glob", "rglob"}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_name(path): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}


def _in_dialects(module: str) -> bool:
    return module.partition(".")[0] == "dialects"


def _imported(module: str) -> set[str]:
    """What a module imports of the package, at its top or within a function."""
    names: set[str] = set()
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                is_module = below.removeprefix("statedb.") in MODULES
                names.add(below if is_module else f"{node.module}")
    ours = {name for name in names if name.partition(".")[0] == "statedb"}
    return {name.removeprefix("statedb").removeprefix(".") or "__init__" for name in ours}


def _literals() -> Iterator[tuple[str, int, str]]:
    """Each string that is no docstring, and where it stands."""
    for module, tree in MODULES.items():
        docstrings = set()
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                docstrings.add(body[0].value)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or node in docstrings:
                continue
            if isinstance(node.value, str):
                yield module, node.lineno, node.value


def _calls() -> Iterator[tuple[str, int, str, str]]:
    """Each call, where it stands: on what it is made, and of which name."""
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute):
                yield module, node.lineno, ast.unparse(node.func.value), node.func.attr
            elif isinstance(node.func, ast.Name):
                yield module, node.lineno, "", node.func.id


def test_every_module_has_its_place() -> None:
    assert sorted(name for row in LAYERS for name in row) == sorted(MODULES)


def test_imports_run_one_way() -> None:
    above: set[str] = set()
    for row in LAYERS:
        for module in row:
            assert _imported(module) - above == set(), f"{module} imports what is not above it"
        above.update(row)


def test_what_runs_operations_does_not_know_what_they_mean() -> None:
    assert {module: _imported(module) & MEANINGS for module in RUNNERS} == {
        module: set() for module in RUNNERS
    }


def test_sql_is_written_in_sql_files_only() -> None:
    found = [(module, line) for module, line, text in _literals() if STATEMENT.match(text)]
    assert found == []


def test_only_dialects_and_blocks_change_settings_and_end_transactions() -> None:
    found = {module for module, _, text in _literals() if SETTING.match(text)}
    assert {module for module in found if not _in_dialects(module)} <= {"blocks"}


def test_only_dialects_know_an_engine() -> None:
    found = [
        (module, line, text)
        for module, line, text in _literals()
        if ENGINE.search(text) and not _in_dialects(module)
        if (module, text) != DEFAULT_DATABASE and module != EXAMPLES
    ]
    assert found == []


def test_nobody_asks_a_dialect_for_its_name() -> None:
    found = [
        (module, node.lineno)
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "name" and not _in_dialects(module)
        if ast.unparse(node.value).rpartition(".")[2].strip("_") == "dialect"
    ]
    assert found == []


def test_only_a_link_touches_a_cursor() -> None:
    found = [
        (module, line, f"{owner}.{name}")
        for module, line, owner, name in _calls()
        if name in CURSOR_METHODS or (name == "execute" and owner != "conn")
        if module != "link" and not _in_dialects(module)
        # A framework's own, which it gives only where it would be used, and which is not.
        if (module, name) != ("wrappers", "cursor")
    ]
    assert found == []


def test_only_sqlfiles_reads_files_and_the_command_line_dumps() -> None:
    found = [
        (module, line, f"{owner}.{name}")
        for module, line, owner, name in _calls()
        if name in READING and module not in ("sqlfiles", "cli.files")
    ]
    assert found == []


def test_only_sqlite_sleeps_where_there_is_no_event_to_wait_for() -> None:
    sleeping = {module for module, _, _, name in _calls() if name == "sleep"}
    assert sleeping <= {"dialects.sqlite"}


def test_random_numbers_that_an_application_may_seed_are_for_waits_only() -> None:
    users = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(one.name == "random" for one in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "random")
    }
    assert users <= {"attempts", "keeper", "dialects.sqlite_connection"}
    drawn = {module for module, _, owner, name in _calls() if (owner, name) == ("os", "urandom")}
    assert drawn == {"stamps"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__main__"}))
def test_a_module_does_nothing_when_it_is_imported(module: str) -> None:
    importlib.import_module(f"statedb.{module}".removesuffix(".__init__"))
