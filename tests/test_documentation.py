"""The pages of the documentation: what their programs print is what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import documents
import pytest
from documents import ROOT
from engines import Engine

import statedb

pytestmark = pytest.mark.once

#: Of the pages whose programs ask for a server's URL: which engine's.
SERVERS = {"failover": "postgresql", "flask": "postgresql", "galera": "mariadb"}
#: Those whose programs need more than that, and are run where it is.
ELSEWHERE = {
    "buildbot": "tests/clusters/buildbot_masters.py",
    "pgbouncer": "tests/test_pgbouncer.py",
    "tls": "tests/test_tls.py",
}
PAGES = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]


class Program(NamedTuple):
    text: str
    prints: list[str]

    @property
    def needs_a_server(self) -> bool:
        return "STATEDB_URL" in self.text or "DATABASE_URL" in self.text


def programs(page: Path) -> list[Program]:
    """Those that say what they print, beside it or in the block that follows; others are parts."""
    text = page.read_text("utf-8")
    found = []
    for program in documents.blocks(text, "python"):
        prints = documents.said(program)
        after = text.partition(f"```python\n{program}```\n")[2]
        shown = re.match(r"\n```text\n(.*?)^```$", after, re.MULTILINE | re.DOTALL)
        if shown and not prints:
            prints = shown[1].splitlines()
        if prints:
            found.append(Program(program, prints))
    return found


PROGRAMS = {page: programs(page) for page in PAGES if page.stem not in ELSEWHERE}


@pytest.mark.parametrize(
    "page", [page for page, found in PROGRAMS.items() if found], ids=lambda page: page.stem
)
def test_each_program_prints_what_its_page_says(page: Path, tmp_path: Path) -> None:
    # One after the other, in one directory, as somebody does who follows the page.
    for program in PROGRAMS[page]:
        if not program.needs_a_server:
            assert documents.run(program.text, tmp_path) == program.prints


@pytest.mark.parametrize("name", SERVERS)
def test_so_does_each_that_needs_a_server(name: str, engine: Engine, tmp_path: Path) -> None:
    if engine.name != SERVERS[name]:
        pytest.skip("the page is another engine's")
    found = [one for one in PROGRAMS[ROOT / "docs" / "howto" / f"{name}.md"] if one.needs_a_server]
    assert found
    for program in found:
        with engine.empty_database(tmp_path) as url:
            printed = documents.run(program.text, tmp_path, STATEDB_URL=url, DATABASE_URL=url)
        assert printed == program.prints


def test_there_is_a_server_for_each_that_needs_one() -> None:
    needing = {
        page.stem for page, found in PROGRAMS.items() if any(one.needs_a_server for one in found)
    }
    assert needing == set(SERVERS)


def test_the_others_are_run_elsewhere() -> None:
    for name, place in ELSEWHERE.items():
        test = (ROOT / place).read_text("utf-8")
        assert f"{name}.md" in test
        assert "blocks(" in test


def test_every_operation_is_in_the_reference() -> None:
    for module in ("state", "masters"):
        page = (ROOT / "docs" / "reference" / f"{module}.md").read_text("utf-8")
        told = set(re.findall(rf"statedb\.{module}\.(\w+)", page))
        public = set(getattr(statedb, module).__all__)
        aliases = {"NO_DEFAULT", "NoDefault"}
        assert told == public - aliases


def test_each_page_is_in_the_table_of_how_tos() -> None:
    index = (ROOT / "docs" / "howto" / "index.md").read_text("utf-8")
    linked = re.findall(r"^- \[.*\]\(([\w-]+)\.md\)$", index, re.MULTILINE)
    listed = re.findall(r"^([\w-]+)$", index.partition("{toctree}")[2], re.MULTILINE)
    assert linked == listed
    assert {*linked, "index"} == {page.stem for page in (ROOT / "docs" / "howto").glob("*.md")}
