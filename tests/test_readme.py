"""That README.md tells the truth: its programs run, and its tables name what there is."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import documents
import pytest
from documents import run

import statedb
from statedb import MastersConnector, StateConnector, errors, masters, names, state, values

README = (documents.ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return documents.blocks(README, language)


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the table whose first column has this heading."""
    text = README.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    _, _, *rows = text.splitlines()
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def coded(text: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


def twisted_recipe() -> str:
    """The README's program for Twisted without its ``main``."""
    if importlib.util.find_spec("twisted") is None:
        pytest.skip("twisted is not installed")
    (program,) = (one for one in blocks("python") if "from twisted" in one)
    return program.partition("async def main")[0]


def imported(program: str) -> set[str]:
    return set(re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE))


# --- Its programs ---


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_each_program_prints_what_is_said_beside_it(number: int, tmp_path: Path) -> None:
    program = blocks("python")[number]
    if "twisted" in imported(program):
        twisted_recipe()
    said = documents.said(program)
    assert len(said) == program.count("print(") > 0
    assert documents.run(program, tmp_path) == said


def test_there_is_a_program_for_each_kind_of_caller() -> None:
    programs = blocks("python")
    found: set[str] = set().union(*(imported(one) for one in programs))
    assert found >= {"sqlite3", "asyncio", "twisted"}
    for used in (".thdGetState(", ".result()", "sqlite3.connect(", "db.run(", "db.submit("):
        assert any(used in one for one in programs)


def test_a_cancelled_deferred_cancels_what_has_not_begun(tmp_path: Path) -> None:
    program = """
import threading

async def main(reactor):
    with statedb.connect("sqlite://") as db:
        nightly = db.state.thdGetObjectId("nightly", "Scheduler")
        begun, go_on = threading.Event(), threading.Event()

        def occupy(conn):
            begun.set()
            go_on.wait(60)

        running = db.submit(occupy)
        begun.wait(60)
        late, early = deferred(running), deferred(db.state.setState(nightly, "last", 7))
        for one in late, early:
            one.cancel()
            try:
                await one
            except defer.CancelledError:
                print("cancelled")
        go_on.set()
        running.result(60)
        print(await deferred(db.state.getState(nightly, "last", "absent")))

task.react(main)
"""
    assert run(twisted_recipe() + program, tmp_path) == ["cancelled", "cancelled", "absent"]


def test_a_deferred_of_a_future_that_close_cancels_is_cancelled(tmp_path: Path) -> None:
    program = """
import threading

async def main(reactor):
    db = statedb.connect("sqlite://")
    begun, go_on = threading.Event(), threading.Event()

    def occupy(conn):
        begun.set()
        go_on.wait(60)

    db.submit(occupy)
    begun.wait(60)
    waiting = deferred(db.state.getObjectId("nightly", "Scheduler"))
    reactor.callLater(0.05, go_on.set)
    await task.deferLater(reactor, 0, lambda: None)
    closing = threading.Thread(target=db.close, kwargs={"cancel_futures": True})
    closing.start()
    try:
        await waiting
    except defer.CancelledError:
        print("cancelled")
    closing.join()

task.react(main)
"""
    assert run(twisted_recipe() + program, tmp_path) == ["cancelled"]


def test_a_deferred_fires_on_the_reactors_thread_with_the_error_of_its_future(
    tmp_path: Path,
) -> None:
    program = """
import threading

async def main(reactor):
    here = threading.get_ident()
    with statedb.connect("sqlite://") as db:
        nightly = await deferred(db.state.getObjectId("nightly", "Scheduler"))
        absent = deferred(db.state.getState(nightly, "last"))
        absent.addErrback(lambda it: print(it.type.__name__, threading.get_ident() == here))
        await absent

task.react(main)
"""
    assert run(twisted_recipe() + program, tmp_path) == ["NoSuchStateError True"]


def test_the_command_makes_the_tables(tmp_path: Path) -> None:
    (command,) = (one for one in blocks("sh") if one.startswith("python -m statedb upgrade"))
    arguments = [sys.executable, *shlex.split(command)[1:]]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "state.sqlite").exists()


def test_what_is_to_be_run_or_read_is_there() -> None:
    paths = re.findall(r"\]\(([^)]+)\)", README)
    paths += [word for one in blocks("sh") for word in one.split() if word.endswith(".py")]
    assert paths
    assert [path for path in paths if not (documents.ROOT / path).exists()] == []


# --- Its tables ---


@pytest.mark.parametrize(
    ("heading", "connector", "module"),
    [("`db.state`", StateConnector, state), ("`db.masters`", MastersConnector, masters)],
)
def test_the_contract_names_every_connector_method_and_its_function(
    heading: str, connector: type, module: ModuleType
) -> None:
    rows = {coded(row[0])[0]: coded(row[1])[0] for row in table(heading)}
    methods = {name for name in vars(connector) if not name.startswith("_")} - {"join"}
    described = {signature.partition("(")[0] for signature in rows}
    assert methods == described | {f"thd{name[0].upper()}{name[1:]}" for name in described}
    for signature, function in rows.items():
        words = function.split("_")
        assert signature.partition("(")[0] == words[0] + "".join(map(str.capitalize, words[1:]))
        _, *parameters = inspect.signature(getattr(module, function)).parameters
        assert re.findall(r"\w+", signature.partition("(")[2]) == parameters


def test_what_join_takes_is_told_with_its_defaults() -> None:
    (told,) = re.findall(r"`join\((.*?)\)`", README)
    _, *parameters = inspect.signature(MastersConnector.join).parameters.values()
    assert told == ", ".join(
        one.name if one.default is one.empty else f"{one.name}={one.default}" for one in parameters
    )


def test_every_error_is_told_with_what_else_it_is() -> None:
    told = {}
    for error, also, _ in table("error"):
        for name in coded(error):
            told[name] = set(coded(also))
    public = [getattr(statedb, name) for name in statedb.__all__]
    kinds = [one for one in public if isinstance(one, type) and issubclass(one, Exception)]
    bases = {
        kind.__name__: {base.__name__ for base in kind.__bases__ if base is not errors.Error}
        or {"Error"}
        for kind in kinds
    }
    assert told == bases


def test_what_stats_counts_is_told() -> None:
    told = README.partition("gives a `Stats`")[2].partition("\n\n")[0]
    assert set(coded(told)) == {one.name for one in dataclasses.fields(statedb.Stats)}


def test_the_limits_are_those_that_hold() -> None:
    assert names.MAX_NAME_BYTES == 64 * 1024
    assert "64 KiB of UTF-8" in README
    assert values.MAX_VALUE_CHARACTERS == 4 * 1024 * 1024
    assert "4 MiB" in README
    assert f"{values.MAX_NESTING} levels" in README


def test_a_result_spec_is_as_told() -> None:
    (told,) = re.findall(r"`(ResultSpec\(.*?\))`", README)
    spec = eval(told, {"ResultSpec": statedb.ResultSpec, "Filter": statedb.Filter})
    operators = re.findall(r"filters know (.*?)\.", README, re.DOTALL)[0]
    with statedb.connect("sqlite://") as db:
        for number in range(50):
            db.state.thdGetObjectId(f"nightly {number}", "Scheduler")
        assert [one.id for one in db.state.thdGetObjects(spec)] == list(range(10, 0, -1))
        unknown = statedb.ResultSpec([statedb.Filter("name", "like", [])])
        with pytest.raises(statedb.InvalidResultSpecError) as caught:
            db.state.thdGetObjects(unknown)
    legal = str(caught.value).partition("it can by ")[2].split(", ")
    assert set(re.findall(r"\w+", operators)) - {"and", "for", "text"} == set(legal)


def test_what_connect_takes_is_told_with_its_defaults() -> None:
    (told,) = re.findall(r"`(connect\(.*?\))`", README)
    expected = inspect.signature(statedb.connect).parameters
    parameters = re.findall(r"(\w+)(?:=([\d.]+))?", told.removeprefix("connect"))
    assert [name for name, _ in parameters] == list(expected)
    assert [float(default) for _, default in parameters if default] == [
        one.default for one in expected.values() if one.default is not one.empty
    ]


@pytest.mark.parametrize(
    "url", [one for row in table("URL") for one in coded(row[0]) if not one.endswith("://")]
)
def test_every_form_of_a_url_is_taken(url: str) -> None:
    drivers = {"postgresql": "psycopg", "postgres": "psycopg", "sqlite": "sqlite3"}
    pytest.importorskip(drivers.get(url.partition("://")[0], "pymysql"))
    with statedb.connect(url) as db:
        assert "password" not in repr(db)


def test_the_schemes_told_are_those_that_are_known() -> None:
    told = {one.partition("://")[0] for row in table("URL") for one in coded(row[0])}
    with pytest.raises(statedb.InvalidURLError) as caught:
        statedb.connect("oracle://host/database")
    assert told == set(re.findall(r"(\w+)://", str(caught.value)))


def test_every_parameter_of_a_mysql_url_is_told() -> None:
    pytest.importorskip("pymysql")
    (parameters,) = (row[1] for row in table("URL") if "mysql://" in row[0])
    with pytest.raises(statedb.InvalidURLError) as caught:
        statedb.connect("mysql://host/database?charset=latin1")
    assert set(coded(parameters)) == set(re.findall(r"\w+_\w+", str(caught.value)))
