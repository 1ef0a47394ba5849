"""That the benchmarks run, in their quickest form; how fast anything is, no test says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from benchmarks import command, picture, table
from benchmarks.bounds import bound
from benchmarks.table import Result

pytestmark = pytest.mark.once

SVG = "{http://www.w3.org/2000/svg}"


def result(ratios: Sequence[float], against: str = "bare driver", engine: str = "sqlite") -> Result:
    return Result("get, sync", engine, against, 100.0, 50.0, ratios)


def test_each_case_gives_rows_beside_the_bare_driver_on_sqlite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {kind: tmp_path / f"table.{kind}" for kind in ("svg", "markdown")}
    options = [f"--{kind}={path}" for kind, path in files.items()]
    assert command.main(["--engine", "sqlite", "--peer", "bare", "--quick", *options]) == 0
    printed = capsys.readouterr().out.splitlines()[2:]
    cases = {line.split("  ")[0] for line in printed}
    for start in (
        *("get, sync", "set, sync", "new, sync", "new id, sync", "create, sync", "update, sync"),
        *("get 100, sync", "set 100, sync", "get, future alone", "set hot, 2 processes"),
        *("set wide, 1 process", "get of 200", "page by id", "expire nobody", "expire 20"),
        *("check-in of 160", "check-in, sync", "import statedb", "idle Database"),
        "1,000 futures pending",
    ):
        assert any(case.startswith(start) for case in cases), start
    in_markdown = files["markdown"].read_text("utf-8")
    assert in_markdown.count("\n| ") == len(printed) + 2
    drawing = ET.fromstring(files["svg"].read_text("utf-8"))
    labels = [text.text for text in drawing.iter(f"{SVG}text")]
    assert {"sqlite", "bare driver", "get, sync", "check-in, sync"} <= set(labels)


def test_a_table_takes_the_place_of_the_last_one_in_a_document() -> None:
    document = f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n"
    assert (
        table.into_document("new\n", document)
        == f"above\n{table.BEGIN}\n\nnew\n\n{table.END}\nbelow\n"
    )
    assert table.into_document("new\n", "") == "new\n"


def test_the_document_has_a_place_for_the_table_and_names_each_case() -> None:
    document = (Path(__file__).parent.parent / "docs" / "benchmarks.md").read_text("utf-8")
    assert "NEW" in table.into_document("NEW", document)
    assert table.into_document("NEW", document) != "NEW"
    for case in command.CASES:
        assert f"`{case}`" in document


def test_a_bound_is_missed_by_the_median_only() -> None:
    assert not result([0.1, 0.6, 0.6]).missed
    assert result([0.6, 0.5, 0.5]).missed
    assert "missed" in table.line(result([0.5, 0.5]).cells())
    assert "missed" not in table.line(result([0.6, 0.6]).cells())


def test_costs_are_bounded_from_above() -> None:
    limit = bound("expire nobody of 10,000", "mariadb", "of 100")
    assert limit is not None
    assert limit.missed_by(2.1)
    assert not limit.missed_by(1.0)


def test_what_has_no_bound_is_never_missed() -> None:
    assert bound("get, sync", "sqlite", "sqlalchemy") is None
    assert not result([0.01, 0.01], against="sqlalchemy").missed


def test_the_picture_has_a_bar_for_each_comparison_with_somebody_else() -> None:
    results = [
        result([2.0, 2.0]),
        result([0.5, 0.5], "buildbot", "mariadb"),
        result([3.0, 3.0], "of 100"),
        Result("idle Database", "sqlite", "", None, 3.0, unit="MiB"),
    ]
    drawing = ET.fromstring(picture.drawn(results))
    legend_and_background = 2 + 1
    assert len(list(drawing.iter(f"{SVG}rect"))) == 2 + legend_and_background


def test_a_picture_of_nothing_is_one_too() -> None:
    assert ET.fromstring(picture.drawn([])).tag == f"{SVG}svg"


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--case", "gets"])
    assert re.search("invalid choice: 'gets'", capsys.readouterr().err)
