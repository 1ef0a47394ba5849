"""Finds the sql directory, and cuts its files into named statements.

A file is a sequence of blocks. ``-- name: verb_noun`` opens one, a comment says what it does and
why, and the statement follows up to the next block. Parameters are written ``%(name)s``, and
``%(name)b`` where they are bytes, or an array. What stands between ``/*each*/`` and ``/*end*/`` is
repeated for each of several rows, with a comma between, or what ``/*each UNION ALL*/`` names. Each
dialect says how its driver wants these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"-- name: ([a-z][a-z0-9_]*)$")
_PARAMETER = re.compile(r"%\((\w+)\)([sb])")
_BYTES = re.compile(r"%\((\w+)\)b")
_EACH = re.compile(r"/\*each( [A-Z ]+)?\*/(.*?)/\*end\*/", re.DOTALL)


class Statements(dict[str, str]):
    """Statements by name, as a driver takes them."""

    def __init__(self, source: dict[str, str], to_driver: Callable[[str], str]) -> None:
        super().__init__((name, to_driver(text)) for name, text in source.items())
        self._source = source
        self._to_driver = to_driver
        self._repeated: dict[tuple[str, int], str] = {}

    def repeated(self, name: str, count: int) -> str:
        """The statement with its repeated part ``count`` times, parameters numbered ``_0``, …"""
        text = self._repeated.get((name, count))
        if text is None:
            source = self._source[name]
            text = self._to_driver(_EACH.sub(lambda part: _repeat(part, count), source))
            if len(self._repeated) >= 1000:
                self._repeated.clear()
            self._repeated[name, count] = text
        return text

    def for_each(
        self, name: str, columns: dict[str, list[Any]]
    ) -> tuple[str, dict[str, list[Any] | Any]]:
        """A statement about several rows, and its parameters, each given as a list of its values.

        A statement with a repeated part has it for each row. In a list to find among there are a
        power of two of them, so that a server that prepares statements sees few: the last row is
        repeated, which changes nothing. A statement without takes the lists as arrays.
        """
        marked = _EACH.search(self._source[name])
        if marked is None:
            return self[name], dict(columns)
        count = len(next(iter(columns.values())))
        padded = count if marked[1] else 1 << (count - 1).bit_length()
        parameters = {
            f"{parameter}_{index}": values[min(index, count - 1)]
            for parameter, values in columns.items()
            for index in range(padded)
        }
        return self.repeated(name, padded), parameters

    def rewritten(self, name: str, marks: dict[str, str]) -> str:
        """The statement with each comment ``/*mark*/`` replaced by what ``marks`` holds for it."""
        text = self._source[name]
        for mark, replacement in marks.items():
            text = text.replace(f"/*{mark}*/", replacement)
        return self._to_driver(text)


def _repeat(marked: re.Match[str], count: int) -> str:
    separator, part = marked[1] or ",", marked[2].strip()
    rows = [_PARAMETER.sub(rf"%(\1_{index})\2", part) for index in range(count)]
    return f"{separator} ".join(rows)


def named_parameters(text: str) -> str:
    """The statement in the ``:name`` style, for drivers that do not know ``%(name)s``."""
    return _PARAMETER.sub(r":\1", text).replace("%%", "%")


def hexadecimal_parameters(text: str) -> str:
    """The statement with its bytes sent as digits, which mean the same under every charset."""
    return _BYTES.sub(r"UNHEX(%(\1)s)", text)


def shipped(directory: str) -> Path:
    """Where our ``sql/<directory>`` lies: in the installed package, or beside a checkout's."""
    # It takes a tenth of the time to import statedb, and no file is read by that.
    from pathlib import Path

    package = Path(__file__).parent
    for root in (package / "sql", package.parent / "sql"):
        if (root / directory).is_dir():
            return root / directory
    raise FileNotFoundError(f"statedb was installed without its sql/{directory}; install it anew")


def load(directories: Iterable[Path]) -> dict[str, str]:
    """All statements of these directories' files; a later directory's replace an earlier one's."""
    statements: dict[str, str] = {}
    for directory in directories:
        own: dict[str, str] = {}
        for path in sorted(directory.glob("*.sql")):
            for name, text in _cut(path):
                if name in own:
                    raise ValueError(f"{path}: a second statement named {name}")
                own[name] = text
        if not own:
            raise FileNotFoundError(f"{directory} holds no .sql file")
        statements.update(own)
    return statements


def _cut(path: Path) -> Iterable[tuple[str, str]]:
    name = ""
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if opening := _NAME.match(line):
            if name:
                yield name, _statement(path, name, lines)
            name, lines = opening[1], []
        elif line.startswith("-- name"):
            raise ValueError(f"{path}:{number}: not of the form '-- name: verb_noun': {line!r}")
        elif line.strip() and not line.lstrip().startswith("--"):
            if not name:
                raise ValueError(f"{path}:{number}: a statement without a '-- name:' line")
            lines.append(line.rstrip())
    if name:
        yield name, _statement(path, name, lines)


def _statement(path: Path, name: str, lines: list[str]) -> str:
    text = "\n".join(lines).removesuffix(";").rstrip()
    if not text:
        raise ValueError(f"{path}: {name} has no statement")
    return text
