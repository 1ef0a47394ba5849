"""Mutants of the SQL: each of these rules, wherever it applies, gives one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mutation import Mutant

_END = (
    r"(?=\n(?:  AND|SET|ORDER|GROUP|FOR|  FOR|LOCK|RETURNING|UNION|ON CONFLICT)\b| /\*filters|;|$)"
)
#: Columns, each with what may be put in its place: the first of them that the statement names too.
_SIBLINGS = {
    "objectid": ("stamp",),
    "name": ("class_name", "kind", "name_hash"),
    "name_hash": ("name",),
    "identity_hash": ("name",),
    "class_name": ("name",),
    "kind": ("name",),
    "value": ("name",),
    "stamp": ("objectid",),
    "masterid": ("token",),
    "token": ("masterid",),
    "active": ("incarnation",),
    "incarnation": ("heartbeats", "active"),
    "heartbeats": ("incarnation",),
    "last_active": ("due",),
    "due": ("last_active",),
    "expire_after": ("last_active",),
    "expiry_stamp": ("incarnation",),
}


def _sibling(found: re.Match[str]) -> str:
    others = _SIBLINGS.get(found[1], (found[1],))
    return next((one for one in others if one in found.string), others[-1])


_RULES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    # A condition is dropped, or turned round.
    (rf"\bWHERE (?!1 = 1 )[^;]*?{_END}", "WHERE 1 = 1"),
    (rf"\n  AND [^;]*?{_END}", ""),
    (r"\n  ON [^;]*?(?=\n|;)", "\n  ON 1 = 1"),
    (r"\b((?:WHERE|AND|ON|WHEN)\b[^\n]*?) = ", r"\1 <> "),
    (r" <= ", " < "),
    (r" <= ", " > "),
    (r" IN \(", " NOT IN ("),
    (r" IS NULL", " IS NOT NULL"),
    (r" IS NOT NULL", " IS NULL"),
    # An assignment is dropped.
    (r"(?<=\nSET )[^\n]*?,\n +", ""),
    (r",\n    \w+ = [^\n;]*?(?=,?\n|;)", ""),
    (r",\n  \w+ = [^\n;]*?(?=,?\n|;)", ""),
    # What locks, orders, joins and resolves conflicts.
    (r"\n *(?:FOR (?:UPDATE|SHARE|KEY SHARE)|LOCK IN SHARE MODE)[A-Z a-z]*", ""),
    (r" SKIP LOCKED", ""),
    (r"FOR UPDATE", "FOR SHARE"),
    (r"FOR KEY SHARE", "FOR UPDATE"),
    (r"FOR SHARE", "FOR UPDATE"),
    (r"LOCK IN SHARE MODE", "FOR UPDATE"),
    (r"\nORDER BY [^;/\n]*(?=\n|;)", ""),
    (r"(?<=ORDER BY )(\w+), (\w+)", r"\2, \1"),
    (r" FORCE INDEX \(\w+\)", ""),
    (r"STRAIGHT_JOIN", "INNER JOIN"),
    (r"LEFT JOIN", "INNER JOIN"),
    (r"CROSS JOIN", "INNER JOIN"),
    (r"UNION ALL(?!\*)", "UNION"),
    (r"\nON CONFLICT \([\w, ]+\) DO NOTHING", ""),
    (r"DO UPDATE\nSET [^;]*", "DO NOTHING"),
    (r"COALESCE\((\w+), [^()]*\)", r"\1"),
    (r"COALESCE\(\w+, ([^()]*(?:\([^()]*\)[^()]*)*)\)", r"\1"),
    # A number, a sign, a column.
    (r"(?<=[ (])0\b", "1"),
    (r"(?<=[ (])1\b", "0"),
    (r" \+ (?!0)", " - "),
    (r" - ", " + "),
    (r" \+ 0\b", ""),
    (r"(?<![%(\w/])(?<!%\()\b(\w+)\b(?=[,\n ])", _sibling),
    # What tables are made of.
    (r" NOT NULL", ""),
    (r" UNIQUE", ""),
    (r"UNIQUE KEY", "KEY"),
    (r" (?:AUTOINCREMENT|GENERATED ALWAYS AS IDENTITY|AUTO_INCREMENT)", ""),
    (r" IF NOT EXISTS", ""),
    (r",\n  PRIMARY KEY \([\w, ]+\)", ""),
    (r"(?<=\w) PRIMARY KEY", ""),
    (r"MEDIUM(?=BLOB|TEXT)", ""),
    (r"BIGINT|bigint", "INTEGER"),
    (r" CHARACTER SET ascii COLLATE ascii_bin", ""),
    (r"STATEDB_(?=BLOB|INTEGER|TEXT)", ""),
    (r" WITH \(fillfactor = 80\)", ""),
    (r"ENGINE = InnoDB", "ENGINE = MyISAM"),
    (r",\n  KEY [^\n]*?\)(?=,?\n)", ""),
    (r"(?<=\()(\w+), (\w+)(?=\))", r"\2, \1"),
]


def mutants(directory: Path) -> Iterator[Mutant]:
    """The mutants of all the statements in a directory's files."""
    for path in sorted(directory.glob("*.sql")):
        parts = re.split(
            r"^(-- name: .*\n(?:--.*\n)*)", path.read_text("utf-8"), flags=re.MULTILINE
        )
        for index in range(2, len(parts), 2):
            subject = parts[index - 1].split()[2]
            seen = {parts[index]}
            for changed in _changed(parts[index]):
                if changed not in seen:
                    seen.add(changed)
                    text = "".join([*parts[:index], changed, *parts[index + 1 :]])
                    change = _difference(parts[index], changed)
                    yield Mutant(path, subject, change, text)


def _changed(statement: str) -> Iterator[str]:
    for pattern, replacement in _RULES:
        for found in re.finditer(pattern, statement, re.MULTILINE):
            new = replacement(found) if callable(replacement) else found.expand(replacement)
            yield statement[: found.start()] + new + statement[found.end() :]


def _difference(before: str, after: str) -> str:
    """The lines that differ, on one line."""
    old, new = before.splitlines(), after.splitlines()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    return (
        f"{' '.join(' '.join(old).split())}  ->  {' '.join(' '.join(new).split()) or '(nothing)'}"
    )
