"""A wrapper around drivers that lets something happen between two statements of an operation."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import statedb.dialects
from statedb.dialects import Dialect


class _Cursor:
    """A driver's cursor that calls back before it executes what it was told to look out for."""

    def __init__(self, cursor: Any, before: Callable[[str], None]) -> None:
        self._cursor = cursor
        self._before = before

    def execute(self, sql: str, *parameters: Any) -> Any:
        self._before(sql)
        return self._cursor.execute(sql, *parameters)

    def executemany(self, sql: str, rows: Any) -> Any:
        self._before(sql)
        return self._cursor.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


@contextlib.contextmanager
def altered(alter: Callable[[Dialect], Dialect]) -> Iterator[None]:
    """Have connections that are opened or adapted meanwhile be of dialects that were altered."""
    known = statedb.dialects._known
    earlier = dict(known)
    try:
        for name in list(known):
            statedb.dialects.register(alter(statedb.dialects._loaded(name)))
        yield
    finally:
        known.clear()
        known.update(earlier)
        statedb.dialects._by_connection_type.clear()


@contextlib.contextmanager
def watch(before: Callable[[str], None]) -> Iterator[None]:
    """Call ``before`` with each statement, on the connections opened or adapted meanwhile."""

    def watched(dialect: Dialect) -> Dialect:
        return dataclasses.replace(
            dialect,
            cursor=lambda raw: _Cursor(dialect.cursor(raw), before),
            query=lambda cursor: cursor.execute,
        )

    with altered(watched):
        yield


@contextlib.contextmanager
def interpose(text: str, rival: Callable[[], None]) -> Iterator[None]:
    """Run ``rival`` once, before the first statement that holds ``text``, on any connection."""
    left = [rival]

    def before(sql: str) -> None:
        if text in sql and left:
            left.pop()()

    with watch(before):
        yield
    assert not left, f"no statement held {text!r}"
