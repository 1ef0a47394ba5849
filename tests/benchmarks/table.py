"""The table: what was measured, a row each, as text and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.bounds import Bound, bound


@dataclass(frozen=True)
class Result:
    """One comparison; the figures are calls a second, unless `unit` says otherwise."""

    case: str
    engine: str
    #: With whom, or with what, statedb is compared: "" where the figure stands alone.
    against: str
    theirs: float | None
    ours: float
    ratios: Sequence[float] = ()
    unit: str = "/s"

    @property
    def figure(self) -> float:
        """What a bound bounds."""
        return statistics.median(self.ratios) if self.ratios else self.ours

    @property
    def bound(self) -> Bound | None:
        return bound(self.case, self.engine, self.against)

    @property
    def missed(self) -> bool:
        return self.bound is not None and self.bound.missed_by(self.figure)

    def cells(self) -> list[str]:
        ratio, spread = "", ""
        if self.ratios:
            ratio = shown(statistics.median(self.ratios))
            tenths = statistics.quantiles(self.ratios, n=10, method="inclusive")
            spread = f"{shown(tenths[0])}-{shown(tenths[-1])}"
        return [
            self.case,
            self.engine,
            self.against,
            "" if self.theirs is None else f"{shown(self.theirs)} {self.unit}",
            f"{shown(self.ours)} {self.unit}",
            ratio,
            spread,
            "" if self.bound is None else str(self.bound),
            "missed" if self.missed else "",
        ]


def faster(
    case: str, engine: str, against: str, theirs: Sequence[float], ours: Sequence[float]
) -> Result:
    """How many times a peer's rate ours is, from what a call cost in each round."""
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return Result(case, engine, against, _rate(theirs), _rate(ours), ratios)


def dearer(
    case: str, engine: str, against: str, less: Sequence[float], more: Sequence[float]
) -> Result:
    """How many times as much ours costs where there is more of something."""
    ratios = [high / low for low, high in zip(less, more, strict=True)]
    return Result(case, engine, against, _rate(less), _rate(more), ratios)


def _rate(costs: Sequence[float]) -> float:
    return 1 / statistics.median(costs)


def shown(figure: float) -> str:
    """A figure in as many digits as say something."""
    size = abs(figure)
    return f"{figure:,.{0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3}f}"


COLUMNS = ("case", "engine", "against", "theirs", "statedb", "ratio", "10-90 %", "bound", "")
_WIDTHS = (34, 11, 12, 13, 13, 8, 16, 9, 7)
_LEFT = 3


def line(cells: Iterable[str]) -> str:
    """A row of the table as text."""
    aligned = [
        f"{cell:<{width}}" if index < _LEFT else f"{cell:>{width}}"
        for index, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    ]
    return " ".join(aligned).rstrip()


#: Between these lines of a document the table is put; the rest of it stays.
BEGIN, END = "<!-- the table begins, as a run has written it -->", "<!-- the table ends -->"


def into_document(text: str, document: str) -> str:
    """The document with the text in the place of its table; the text alone if it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n\n{text}\n{end}{after}" if end else text


def markdown(results: Iterable[Result], heading: str) -> str:
    """The whole table as Markdown, below what it says of the run."""
    rows = [list(COLUMNS), ["---"] * _LEFT + ["---:"] * (len(COLUMNS) - _LEFT - 1) + ["---"]]
    rows += [result.cells() for result in results]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    return f"{heading}\n\n{table}\n"
