"""That the example shops run as a newcomer runs them, and keep orders and figures in step."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from engines import Engine

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
SHOPS = ("django_app", "sqlalchemy_app")
#: What is said on the second run: the first one's order is there, its refused one is not.
SECOND = [
    "Ada's is order number 2.",
    "Bob's is refused: there are not 1000 in stock.",
    "2 rows, 2 counted, the last is Ada's.",
]
FIRST = [line.replace("2", "1") for line in SECOND]

pytestmark = pytest.mark.once


def run(shop: str, directory: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{shop}.py"), *arguments],
        cwd=directory,
        env={key: value for key, value in os.environ.items() if key != "STATEDB_URL"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("shop", SHOPS)
def test_an_order_is_kept_and_counted_and_a_refused_one_leaves_nothing(
    tmp_path: Path, shop: str
) -> None:
    assert run(shop, tmp_path) == FIRST
    assert run(shop, tmp_path) == SECOND
    # Without a URL it keeps a file where it is run.
    (file,) = tmp_path.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as own:
        assert own.execute("SELECT COUNT(*) FROM statedb_states").fetchone() == (2,)


@pytest.mark.parametrize("shop", SHOPS)
def test_it_keeps_them_on_a_server_too(engine: Engine, tmp_path: Path, shop: str) -> None:
    if engine.name == "sqlite":
        pytest.skip("that is what it does without being told")
    with engine.empty_database(tmp_path) as url:
        assert run(shop, tmp_path, "--url", url) == FIRST
        # By the other name of its scheme.
        scheme, _, rest = url.partition("://")
        other = {"postgresql": "postgres", "mysql": "mariadb"}[scheme]
        assert run(shop, tmp_path, "--url", f"{other}://{rest}") == SECOND
