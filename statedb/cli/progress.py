"""Progress: a bar on a terminal's stderr, by rich; else nothing."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

#: How many seconds there are between two looks of the bar.
_PAUSE: Final = 0.1


@contextlib.contextmanager
def progress(what: str, total: int | None, *, hidden: bool) -> Iterator[Callable[[int], object]]:
    """A function to tell how far it has come, of ``total`` if that is known."""
    if hidden or not sys.stderr.isatty():
        yield _ignored
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield _ignored
        return
    shown = 0.0

    def show(done: int) -> None:
        nonlocal shown
        if time.monotonic() > shown + _PAUSE:
            shown = time.monotonic()
            bar.update(task, completed=done, refresh=True)

    # Without a thread of its own there is none to be interrupted.
    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield show


def _ignored(done: int) -> None:
    """Nobody looks."""
