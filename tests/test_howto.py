"""That the pages of docs/howto tell the truth: their programs run, and print what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from engines import Engine
from test_readme import ROOT, run

pytestmark = pytest.mark.once

HOW_TO = ROOT / "docs" / "howto"


def programs(page: Path) -> list[str]:
    """The page's blocks that say what they print; other blocks are parts of something larger."""
    blocks = re.findall(
        r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [one for one in blocks if "# ->" in one]


def needs_a_server(program: str) -> bool:
    return "DATABASE_URL" in program


PROGRAMS = {
    f"{page.stem} {number}": program
    for page in sorted(HOW_TO.glob("*.md"))
    for number, program in enumerate(programs(page), start=1)
}


def said(program: str) -> list[str]:
    found = re.findall(r"# -> (.+)$", program, re.MULTILINE)
    assert len(found) == program.count("print(")
    return found


@pytest.mark.parametrize(
    "program", [pytest.param(it, id=key) for key, it in PROGRAMS.items() if not needs_a_server(it)]
)
def test_each_program_prints_what_is_said_beside_it(program: str, tmp_path: Path) -> None:
    assert run(program, tmp_path) == said(program)


def test_those_for_a_server_print_it_too(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine.name.startswith("postgresql"):
        pytest.skip("they are for PostgreSQL")
    found = [program for program in PROGRAMS.values() if needs_a_server(program)]
    assert found
    for program in found:
        with engine.empty_database(tmp_path) as url:
            monkeypatch.setenv("DATABASE_URL", url)
            assert run(program, tmp_path) == said(program)


def test_there_is_a_program_for_each_framework() -> None:
    used = {
        name for one in PROGRAMS.values() for name in re.findall(r"^from (\w+)", one, re.MULTILINE)
    }
    assert used >= {"django", "sqlalchemy", "flask_sqlalchemy", "psycopg_pool"}


@pytest.mark.parametrize("page", sorted(HOW_TO.glob("*.md")), ids=lambda page: page.stem)
def test_what_a_page_leads_to_is_there(page: Path) -> None:
    paths = list(re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")))
    assert [path for path in paths if not (page.parent / path).exists()] == []
