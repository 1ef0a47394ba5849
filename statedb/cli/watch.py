"""Watch: a table that is looked at again and again."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from statedb.cli.endings import complain, is_unreachable, told
from statedb.cli.output import Columns, JSONOutput, Output, RichOutput, Row, rich_table
from statedb.errors import Error

Rows = Sequence[Row]


def watch(
    columns: Columns, look: Callable[[], Rows], out: Output, options: argparse.Namespace
) -> NoReturn:
    """Show what there is to see, every so many seconds, until interrupted.

    On a terminal with rich it is one table that changes; else a block a round, in JSON a line.
    """
    rounds = _rounds(look, options)
    if isinstance(out, RichOutput):
        _watch_live(columns, rounds, out)
    while True:
        seen = next(rounds)
        if isinstance(seen, Error):
            complain(seen)
        elif isinstance(out, JSONOutput):
            out.value({"masters": seen})
        else:
            out.table(columns, [seen])
            print()
        sys.stdout.flush()


def _watch_live(columns: Columns, rounds: Iterator[Rows | Error], out: RichOutput) -> NoReturn:
    from rich.live import Live

    # Without a thread of its own it has nothing to redraw, and to end, while we wait.
    with Live(console=out.console, auto_refresh=False) as live:
        table = rich_table(columns, [])
        while True:
            seen = next(rounds)
            if isinstance(seen, Error):
                table.caption = told(seen)
            else:
                table = rich_table(columns, seen)
            live.update(table, refresh=True)


def _rounds(look: Callable[[], Rows], options: argparse.Namespace) -> Iterator[Rows | Error]:
    """What is seen each time; after the first, also that the server could not be reached."""
    never = threading.Event()
    seen: Rows | Error = look()
    while True:
        yield seen
        never.wait(options.interval)
        try:
            seen = look()
        except Error as error:
            if not is_unreachable(error, options.url):
                raise
            seen = error
