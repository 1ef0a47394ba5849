"""What mypy --strict and an editor see of the package: all its parameters and results."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import statedb
from statedb import Database, MastersConnector, Member, StateConnector, masters, state

pytestmark = pytest.mark.once

PROGRAM = Path(__file__).parent / "typed_programs" / "every_public_name.py"
OPERATIONS: dict[type, dict[str, Any]] = {
    connector: {
        name: function
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name in module.__all__
    }
    for connector, module in ((StateConnector, state), (MastersConnector, masters))
}
each_connector = pytest.mark.parametrize("connector", OPERATIONS)

WRONG_PROGRAM = """\
from concurrent.futures import Future

import statedb


def wrong(db: statedb.Database) -> None:
    db.state.getState("7", "last")  # wrong
    db.state.getState(7)  # wrong
    db.state.getState(7, "last", fallback=None)  # wrong
    db.state.getState(7, b"last")  # wrong
    db.state.getState(7, "last", None, None)  # wrong
    db.state.getState(7, "last").upper()  # wrong
    db.state.getState(7, "last", None)
    db.state.thdGetState(None, "last")  # wrong
    db.state.thdGetState(7, key="last")  # wrong
    db.state.thdGetState(objectid=7, name="last", default=None).upper()
    db.state.getObjectId("nightly")  # wrong
    db.state.thdGetObjectId("nightly", 7)  # wrong
    db.state.setStates(7, ["last"])  # wrong
    db.state.atomicCreateState(7, "last", "no callback")  # wrong
    db.state.thdUpdateState(7, "last", 1)  # wrong
    db.state.getObjects(["id"])  # wrong
    name: str = db.state.thdGetObjectId("nightly", "Scheduler")  # wrong
    value: bool = db.state.deleteState(7, "last")  # wrong
    future: Future[bool] = db.state.thdDeleteState(7, "last")  # wrong
    db.state.getMaster(7)  # wrong
    db.masters.findMasterId(b"host")  # wrong
    db.masters.setMasterState(7)  # wrong
    db.masters.claim(7, "scheduler", 8)  # wrong
    db.masters.thdHoldClaim("nightly")  # wrong
    last: float = db.masters.thdGetMasters()[0].last_active  # wrong
    db.masters.join("host", on_lost=1)  # wrong
    with db.masters.join("host") as member:
        member.claim("scheduler")  # wrong
        print(member.lost() or last)  # wrong
    db.run(statedb.state.delete_state, "7", "last")  # wrong
    db.submit(statedb.state.delete_state, 7)  # wrong
    statedb.state.get_state(db, 7, "last")  # wrong
    statedb.state.get_state("sqlite://", 7, "last")  # wrong
    statedb.connect("sqlite://", 4)  # wrong
    print(name, value, future)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


def mypy(program: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """mypy's verdict on a user's program, away from the project and its configuration."""
    options = ["--strict", "--config-file=", f"--cache-dir={cache}", "--no-error-summary"]
    command = [sys.executable, "-m", "mypy", *options, str(program)]
    return subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def _connector_names(connector: type) -> Iterator[tuple[str, str, str]]:
    """The names of each operation: as a function, as a Future, in this thread."""
    for function in OPERATIONS[connector]:
        camel = "".join(word.capitalize() for word in function.split("_"))
        yield function, camel[0].lower() + camel[1:], f"thd{camel}"


def test_a_program_that_uses_every_public_name_is_sound(cache: Path) -> None:
    done = mypy(PROGRAM, cache)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_that_program_forgets_no_public_name() -> None:
    used: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(PROGRAM.read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            used.setdefault(ast.unparse(node.value), set()).add(node.attr)
    assert set(statedb.__all__) - used["statedb"] == set()
    assert _public(Database) - used["db"] - used["same"] == set()
    assert _public(StateConnector) - used["db.state"] == set()
    assert _public(MastersConnector) - used["db.masters"] == set()
    assert _public(Member) - used["member"] - used["other"] == set()
    assert set(OPERATIONS[StateConnector]) - used["state"] == set()
    assert set(OPERATIONS[MastersConnector]) - used["masters"] == set()


def test_wrong_arguments_are_reported_where_they_are(cache: Path, tmp_path: Path) -> None:
    lines = enumerate(WRONG_PROGRAM.splitlines(), start=1)
    expected = {number for number, line in lines if line.endswith("# wrong")}
    program = tmp_path / "wrong_arguments.py"
    program.write_text(WRONG_PROGRAM, "utf-8")
    done = mypy(program, cache)
    found = re.findall(r":(\d+): error: ", done.stdout)
    assert {int(number) for number in found} == expected, done.stdout


def test_every_public_name_is_there() -> None:
    assert len(statedb.__all__) == len(set(statedb.__all__))
    assert [name for name in statedb.__all__ if not hasattr(statedb, name)] == []


@each_connector
def test_a_connector_has_both_names_of_every_operation_and_no_other(connector: type) -> None:
    names = {name for _, *both in _connector_names(connector) for name in both}
    assert names == _public(connector) - {"join"}


@each_connector
def test_a_bound_operation_shows_its_name_parameters_and_text(connector: type) -> None:
    with statedb.connect("sqlite://") as db:
        own = db.state if connector is StateConnector else db.masters
        for name, *both in _connector_names(connector):
            operation = OPERATIONS[connector][name]
            _, *parameters = inspect.signature(operation).parameters.values()
            for bound in (getattr(own, one) for one in both):
                assert [*inspect.signature(bound).parameters.values()] == parameters
                assert bound.__doc__
            assert [getattr(own, one).__name__ for one in both] == both


def test_help_shows_how_to_call_it_and_what_comes_of_it() -> None:
    with statedb.connect("sqlite://") as db:
        text = pydoc.plain(pydoc.render_doc(db.state.getState))
        assert str(inspect.signature(db.state.getState)).startswith(
            "(objectid: 'int', name: 'str', default: 'Any' = NO_DEFAULT)"
        )
    assert "getState(objectid: 'int', name: 'str', default: 'Any' = NO_DEFAULT)" in text
    assert "The object's value of this name; ``default`` if there is none" in text


def test_an_operation_explains_itself_before_there_is_a_database() -> None:
    unexplained = [
        name
        for kind in (StateConnector, MastersConnector, Member)
        for name in _public(kind)
        if name not in ("name", "interval", "expire_after")
        if not getattr(kind, name).__doc__
    ]
    assert unexplained == []
    assert StateConnector.getState.__doc__ == state.get_state.__doc__
