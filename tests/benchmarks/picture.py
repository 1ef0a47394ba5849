"""The picture, in SVG: how many times as fast as others statedb is, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.table import Result, shown

#: Those that bars stand for; what statedb is compared with besides is statedb itself.
COLOURS = {
    "bare driver": "#9aa0a6",
    "sqlalchemy": "#e8833a",
    "buildbot": "#4a8fe2",
    "diskcache": "#3aa757",
    "sqlitedict": "#8e63ce",
}
LABELS, PANEL, GAP = 230, 300, 24
TOP, BAR, PAD = 78, 11, 7
FIGURE, LEGEND = 42, 680
INK, FAINT = "#202124", "#dadce0"


def drawn(results: Sequence[Result]) -> str:
    """The picture of all results that compare statedb with somebody else."""
    bars = [result for result in results if result.against in COLOURS and result.ratios]
    return "\n".join(_Picture(bars).lines()) + "\n"


class _Picture:
    def __init__(self, bars: Sequence[Result]) -> None:
        self._bars = bars
        self._engines = list(dict.fromkeys(bar.engine for bar in bars))
        self._cases = list(dict.fromkeys(bar.case for bar in bars))
        powers = [math.log10(bar.figure) for bar in bars] or [0.0]
        self._low = math.floor(min([*powers, -0.3]))
        self._high = max(math.ceil(max(powers)), self._low + 1)
        self._width = max(LABELS + len(self._engines) * (PANEL + GAP), LEGEND)

    def lines(self) -> Iterator[str]:
        rows, bottom = self._rows()
        size = f'width="{self._width}" height="{bottom + 10}"'
        box = f'viewBox="0 0 {self._width} {bottom + 10}"'
        font = 'font-family="sans-serif" font-size="11"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} {font}>'
        yield "<title>statedb beside what a user would pick instead</title>"
        yield '<rect width="100%" height="100%" fill="white"/>'
        yield _text(10, 20, "How many times as fast statedb is as", size=14)
        yield from self._legend()
        for index, engine in enumerate(self._engines):
            yield from self._scale(index, engine, bottom)
        for case, top in rows.items():
            yield _text(LABELS - 10, top + BAR, case, anchor="end")
            for index, engine in enumerate(self._engines):
                yield from self._cell(case, engine, index, top)
        yield "</svg>"

    def _rows(self) -> tuple[dict[str, int], int]:
        """Where each case's row begins, and where the last one ends."""
        rows, top = {}, TOP
        for case in self._cases:
            rows[case] = top
            top += max(len(self._of(case, engine)) for engine in self._engines) * BAR + PAD
        return rows, top

    def _of(self, case: str, engine: str) -> list[Result]:
        return [bar for bar in self._bars if (bar.case, bar.engine) == (case, engine)]

    def _legend(self) -> Iterator[str]:
        left = 10
        for peer in (one for one in COLOURS if any(bar.against == one for bar in self._bars)):
            yield _rectangle(left, 32, 12, 10, COLOURS[peer])
            yield _text(left + 17, 41, peer)
            left += 30 + 7 * len(peer)
        yield _text(left + 10, 41, "| the number to reach")

    def _scale(self, index: int, engine: str, bottom: int) -> Iterator[str]:
        yield _text(self._x(index, 1), 57, engine, anchor="middle", size=12)
        for power in range(self._low, self._high + 1):
            x, is_even = self._x(index, 10.0**power), power == 0
            yield _line(x, TOP - 6, bottom, INK if is_even else FAINT)
            yield _text(x, TOP - 9, f"{10.0**power:g}", anchor="middle", size=9)

    def _cell(self, case: str, engine: str, index: int, top: int) -> Iterator[str]:
        even = self._x(index, 1)
        for bar in self._of(case, engine):
            x = self._x(index, bar.figure)
            left, right = min(x, even), max(x, even)
            yield _rectangle(left, top + 1, right - left, BAR - 2, COLOURS[bar.against])
            if bar.bound is not None:
                limit = self._x(index, bar.bound.limit)
                yield _line(limit, top, top + BAR, "#c5221f" if bar.missed else INK, width=2)
                right = max(right, limit)
            yield _text(right + 4, top + BAR - 2, shown(bar.figure), size=9)
            top += BAR

    def _x(self, index: int, ratio: float) -> float:
        """Where a ratio lies in an engine's panel, which leaves room for a figure at its right."""
        share = (math.log10(ratio) - self._low) / (self._high - self._low)
        return LABELS + index * (PANEL + GAP) + share * (PANEL - FIGURE)


def _rectangle(left: float, top: float, width: float, height: float, colour: str) -> str:
    place = f'x="{left:.1f}" y="{top}" width="{max(width, 1):.1f}" height="{height}"'
    return f'<rect {place} fill="{colour}"/>'


def _line(x: float, top: float, bottom: float, colour: str, width: int = 1) -> str:
    place = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"'
    return f'<line {place} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{INK}"'
    return f"<text {place}>{escape(text)}</text>"
