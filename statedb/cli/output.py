"""Output: what a command tells, as JSON, as plain text, or by rich on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from statedb.cli.text import compact_json, visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[str, Any]
#: By its heading, what a column shows of a row.
Columns = Mapping[str, Callable[[Row], str]]
#: The longest cell of rich's tables.
_LONGEST_CELL = 500


class Output(Protocol):
    """Where the result of a command goes."""

    def table(self, columns: Columns, pages: Iterable[Sequence[Row]]) -> None:
        """What lists: each row."""

    def value(self, value: Any) -> None:
        """A JSON value."""

    def said(self, sentence: str, value: Any) -> None:
        """What was done: a sentence to a person, a JSON value to a program."""


class JSONOutput:
    """One JSON value a line, in ASCII."""

    def table(self, columns: Columns, pages: Iterable[Sequence[Row]]) -> None:
        for page in pages:
            for row in page:
                self.value(row)

    def value(self, value: Any) -> None:
        print(compact_json(value))

    def said(self, sentence: str, value: Any) -> None:
        self.value(value)


class PlainOutput:
    """Text, its columns as wide as a page of rows needs."""

    def table(self, columns: Columns, pages: Iterable[Sequence[Row]]) -> None:
        headings = list(columns)
        for page in pages:
            for line in aligned([headings, *cells(columns, page)]):
                print(line)
            headings = []

    def value(self, value: Any) -> None:
        print(visible_json(value, encoding()))

    def said(self, sentence: str, value: Any) -> None:
        print(visible(sentence, encoding()))


class RichOutput(PlainOutput):
    """Tables with lines and colours."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def table(self, columns: Columns, pages: Iterable[Sequence[Row]]) -> None:
        for page in pages:
            self.console.print(rich_table(columns, page))

    def value(self, value: Any) -> None:
        from rich.highlighter import JSONHighlighter

        # Not cut into lines: it is to be copied.
        text = JSONHighlighter()(visible_json(value, encoding()))
        self.console.print(text, soft_wrap=True)


def cells(columns: Columns, page: Sequence[Row]) -> list[list[str]]:
    """What is shown of each row."""
    shown = encoding()
    return [[visible(show(row), shown) for show in columns.values()] for row in page]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, in columns; a row without cells is none."""
    there = [row for row in rows if row]
    widths = [max(map(len, column)) for column in zip(*there, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in there]


def rich_table(columns: Columns, page: Sequence[Row]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for row in cells(columns, page):
        # As Text: in a str rich would find markup.
        table.add_row(*(Text(shortened(cell)) for cell in row))
    return table


def shortened(cell: str) -> str:
    return cell if len(cell) <= _LONGEST_CELL else f"{cell[:_LONGEST_CELL]}…"


def encoding() -> str:
    """What can be written to standard output."""
    return getattr(sys.stdout, "encoding", None) or "ascii"


def output(*, as_json: bool) -> Output:
    if as_json:
        return JSONOutput()
    if sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            return PlainOutput()
        return RichOutput(Console(markup=False, highlight=False, emoji=False))
    return PlainOutput()
