"""Files: where a dump is written to, and read from; the standard streams unless a file is named."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO

#: Stands for the standard streams.
STANDARD = "-"


@contextlib.contextmanager
def written(name: str) -> Iterator[IO[bytes]]:
    """What to write into; a file has its name once it is whole, and else there is none.

    It is readable by its owner only.
    """
    # Where a link leads to a file, that one is replaced.
    path = Path(name).resolve()
    if name == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif path.exists() and not path.is_file():
        # A device, or a pipe, stays what it is.
        with path.open("wb") as file:
            yield file
    else:
        beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with _created(beside, path) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            # Whenever it was interrupted: it has its name since before it was there.
            beside.unlink(missing_ok=True)
            raise


def _created(beside: Path, path: Path) -> IO[bytes]:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    try:
        return os.fdopen(os.open(beside, flags, 0o600), "wb")
    except OSError as error:
        error.filename = str(path)  # not that of which nobody has heard
        raise


@contextlib.contextmanager
def read(name: str) -> Iterator[IO[bytes]]:
    """What to read from."""
    if name == STANDARD:
        yield standard_input().buffer
    else:
        with Path(name).open("rb") as file:
            yield file


def standard_input() -> TextIO:
    # It is None where it was closed, whatever its type says.
    given: TextIO | None = sys.stdin
    if given is None:
        raise OSError("standard input is closed")
    return given


def size_of(name: str) -> int | None:
    """How many bytes there are to read, if that is known."""
    path = Path(name)
    return path.stat().st_size if name != STANDARD and path.is_file() else None
