"""Selection: what a ResultSpec asks of rows, worked out in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import eq, ge, gt, le, lt, ne
from typing import Any, TypeVar

from faults.legality import Refusal
from statedb import Filter, InvalidResultSpecError, InvalidTypeError, ResultSpec

T = TypeVar("T")

_ONE_VALUE: dict[str, Callable[[Any, Any], bool]] = {"lt": lt, "le": le, "gt": gt, "ge": ge}


def select(rows: Sequence[T], fields: Mapping[str, type], spec: ResultSpec | None) -> list[T]:
    """Those of the rows, given by id, that the spec asks for."""
    if spec is None:
        return list(rows)
    if not isinstance(spec, ResultSpec):
        raise Refusal(InvalidTypeError)
    for listed in (spec.filters, spec.order):
        if isinstance(listed, (str, bytes)) or not isinstance(listed, Sequence):
            raise Refusal(InvalidResultSpecError)
    kept = list(rows)
    for one in spec.filters:
        meets = _condition(fields, one)
        kept = [row for row in kept if meets(row)]
    for field in spec.order:
        if not isinstance(field, str) or field.removeprefix("-") not in fields:
            raise Refusal(InvalidResultSpecError)
    if spec.order and spec.order[-1].startswith("-"):
        kept.reverse()
    # Sorting keeps what is alike in its order, so the field that counts most comes last.
    for field in reversed(spec.order):
        name = field.removeprefix("-")
        kept = _sorted(kept, name, descends=field.startswith("-"))
    start, count = _page(spec)
    return kept[start:] if count is None else kept[start : start + count]


def _sorted(rows: list[T], name: str, *, descends: bool) -> list[T]:
    return sorted(rows, key=lambda row: _comparable(getattr(row, name)), reverse=descends)


def _comparable(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _condition(fields: Mapping[str, type], one: Filter) -> Callable[[object], bool]:
    if not isinstance(one, Filter):
        raise Refusal(InvalidTypeError)
    kind = fields.get(one.field) if isinstance(one.field, str) else None
    operators = ["eq", "ne", "in", "notin", *_ONE_VALUE, *(["contains"] if kind is str else [])]
    if kind is None or one.operator not in operators:
        raise Refusal(InvalidResultSpecError)
    if isinstance(one.values, (str, bytes)) or not isinstance(one.values, Sequence):
        raise Refusal(InvalidResultSpecError)
    if one.operator in _ONE_VALUE and len(one.values) != 1:
        raise Refusal(InvalidResultSpecError)
    if not all(_is_legal(value, kind) for value in one.values):
        raise Refusal(InvalidResultSpecError)
    wanted = [_comparable(value) for value in one.values]

    def meets(row: object) -> bool:
        found = _comparable(getattr(row, one.field))
        if one.operator in _ONE_VALUE:
            return _ONE_VALUE[one.operator](found, wanted[0])
        if one.operator == "contains":
            return any(value in found for value in wanted)
        if one.operator in ("ne", "notin"):
            return all(ne(found, value) for value in wanted)
        return any(eq(found, value) for value in wanted)

    return meets


def _is_legal(value: Any, kind: type) -> bool:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return False
    if isinstance(value, datetime):
        return value.tzinfo is not None
    return not isinstance(value, str) or not any("\ud800" <= one <= "\udfff" for one in value)


def _page(spec: ResultSpec) -> tuple[int, int | None]:
    for number in (spec.limit, spec.offset):
        if number is not None and (
            not isinstance(number, int) or isinstance(number, bool) or number < 0
        ):
            raise Refusal(InvalidResultSpecError)
    return spec.offset or 0, spec.limit
