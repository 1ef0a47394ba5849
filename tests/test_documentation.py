"""The pages of the documentation: what their programs print is what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import documents
import pytest
from documents import ROOT
from engines import Engine

import statedb

#: The pages whose programs need a server, and of which engine.
SERVERS = {"failover": "postgresql", "galera": "mariadb"}
#: Those whose programs need more than that, and are run where it is.
ELSEWHERE = {
    "buildbot": "tests/clusters/buildbot_masters.py",
    "pgbouncer": "tests/test_pgbouncer.py",
    "tls": "tests/test_tls.py",
}
PAGES = [ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
WITH_PROGRAMS = [page for page in PAGES if documents.blocks(page.read_text("utf-8"), "python")]


def _check_programs(page: Path, directory: Path, **environment: str) -> None:
    """Run them one after the other, in one directory, as somebody who follows the page does."""
    text = page.read_text("utf-8")
    for program in documents.blocks(text, "python"):
        printed = documents.run(program, directory, **environment)
        expected = documents.said(program)
        if not expected:
            # What it prints may also be the next block.
            after = text.partition(f"```python\n{program}```\n")[2]
            shown = re.match(r"\n```text\n(.*?)^```$", after, re.MULTILINE | re.DOTALL)
            expected = shown[1].splitlines() if shown else []
        assert printed == expected


@pytest.mark.once
@pytest.mark.parametrize(
    "page",
    [page for page in WITH_PROGRAMS if page.stem not in {*SERVERS, *ELSEWHERE}],
    ids=lambda page: page.stem,
)
def test_each_program_prints_what_its_page_says(page: Path, tmp_path: Path) -> None:
    _check_programs(page, tmp_path)


@pytest.mark.once
@pytest.mark.parametrize("name", SERVERS)
def test_so_does_each_that_needs_a_server(
    name: str, engine: Engine, url: str, tmp_path: Path
) -> None:
    if engine.name != SERVERS[name]:
        pytest.skip("the page is another engine's")
    _check_programs(ROOT / "docs" / "howto" / f"{name}.md", tmp_path, STATEDB_URL=url)


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


def test_each_program_is_sound_python() -> None:
    for page in WITH_PROGRAMS:
        for program in documents.blocks(page.read_text("utf-8"), "python"):
            ast.parse(program)
