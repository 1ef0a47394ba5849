"""ResultSpec: which rows a caller wants, in which order, which page of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from statedb.connection import Connection
from statedb.errors import InvalidResultSpecError, InvalidTypeError
from statedb.link import Row
from statedb.names import plain_int, shown
from statedb.times import to_microseconds

_COMPARISONS = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_MEMBERSHIPS = {"eq": "IN", "in": "IN", "ne": "NOT IN", "notin": "NOT IN"}
_ORDERED = {"lt", "le", "gt", "ge"}
_MAX_INTEGER = 2**63 - 1
#: How many values the filters have together at most: any SQLite takes them, in any operator.
MAX_VALUES = 500


@dataclass(frozen=True)
class Filter:
    """A condition on one field: eq, ne, lt, le, gt, ge, in, notin, and contains on text.

    Several values of eq, in and contains mean any of them, of ne and notin none; lt, le, gt and
    ge take one. All filters of a ResultSpec have 500 values together at most.
    """

    field: str
    operator: str
    values: Sequence[Any]


@dataclass(frozen=True)
class ResultSpec:
    """Which rows: those that meet all filters, by ``order`` (``-`` before a field: descending)."""

    filters: Sequence[Filter] = field(default_factory=tuple)
    order: Sequence[str] = field(default_factory=tuple)
    limit: int | None = None
    offset: int | None = None


class Field(NamedTuple):
    """A column to filter and sort by, and how a caller's value becomes the column's."""

    column: str
    encode: Callable[[Any], Any]
    is_text: bool = False


def text_field(column: str) -> Field:
    return Field(column, _encode_text, is_text=True)


def integer_field(column: str) -> Field:
    return Field(column, _encode_integer)


def boolean_field(column: str) -> Field:
    return Field(column, _encode_boolean)


def time_field(column: str) -> Field:
    return Field(column, _encode_time)


def _encode_text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError("it takes a str")
    return str.encode(value)


def _encode_integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("it takes an int")
    # Beyond what a column can hold every comparison comes out as with the first value beyond.
    return max(-_MAX_INTEGER - 1, min(plain_int(value), _MAX_INTEGER))


def _encode_boolean(value: Any) -> int:
    if not isinstance(value, bool):
        raise TypeError("it takes a bool")
    return int(value)


def _encode_time(value: Any) -> int:
    if not isinstance(value, datetime):
        raise TypeError("it takes a datetime")
    if value.utcoffset() is None:
        raise ValueError("it takes an aware datetime, such as datetime.now(timezone.utc)")
    return to_microseconds(value)


def select(
    conn: Connection, statement: str, fields: Mapping[str, Field], spec: ResultSpec | None
) -> Sequence[Row]:
    """The rows of a statement that leaves its filters, order and page to a ResultSpec."""
    if spec is None:
        return conn.fetch_all(conn.sql[statement])
    if not isinstance(spec, ResultSpec):
        raise InvalidTypeError(f"a resultSpec is a ResultSpec, not {type(spec).__name__}")
    _check_list("filters", "Filters", spec.filters)
    _check_list("order", "fields' names", spec.order)
    parameters: dict[str, Any] = {}
    conditions = "".join(
        f"\n  AND {_condition(conn, fields, one, parameters)}" for one in spec.filters
    )
    if len(parameters) > MAX_VALUES:
        raise InvalidResultSpecError(
            f"the filters have {len(parameters)} values together, and may have {MAX_VALUES}"
        )
    order = [_order(fields, one) for one in spec.order]
    # Rows alike in all that are in the direction of the last: so one index gives the whole order.
    direction = "DESC" if order and order[-1].endswith(" DESC") else ""
    marks = {
        "filters": conditions,
        "order": "".join(f"{one}, " for one in order),
        "direction": direction,
        "page": _page(spec, parameters),
    }
    return conn.fetch_all(conn.sql.rewritten(statement, marks), parameters or None)


def _check_list(what: str, of_what: str, given: Any) -> None:
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise InvalidResultSpecError(f"{what} is a list of {of_what}, not {shown(given)}")


def _condition(
    conn: Connection, fields: Mapping[str, Field], one: Filter, parameters: dict[str, Any]
) -> str:
    if not isinstance(one, Filter):
        raise InvalidTypeError(f"a filter is a Filter, not {type(one).__name__}")
    target = _field(fields, one.field)
    operator = one.operator
    legal = [*_COMPARISONS, "in", "notin"] + ["contains"] * target.is_text
    if operator not in legal:
        raise InvalidResultSpecError(
            f"{one.field} cannot be filtered by {shown(operator)}; it can by {', '.join(legal)}"
        )
    if isinstance(one.values, (str, bytes)) or not isinstance(one.values, Sequence):
        raise InvalidResultSpecError(
            f"the filter of {one.field} takes a list of values, not {shown(one.values)}"
        )
    if operator in _ORDERED and len(one.values) != 1:
        raise InvalidResultSpecError(
            f"{operator} of {one.field} takes one value, not {len(one.values)}"
        )
    places = [_bind(conn, target, one, value, parameters) for value in one.values]
    if operator == "contains":
        found = [conn.dialect.contains.format(field=target.column, value=place) for place in places]
        return f"({' OR '.join(found)})" if found else "1 = 0"
    if len(places) == 1:
        comparison = _COMPARISONS.get(operator) or ("=" if operator == "in" else "<>")
        return f"{target.column} {comparison} {places[0]}"
    if not places:
        return "1 = 0" if _MEMBERSHIPS[operator] == "IN" else "1 = 1"
    return f"{target.column} {_MEMBERSHIPS[operator]} ({', '.join(places)})"


def _bind(
    conn: Connection, target: Field, one: Filter, value: Any, parameters: dict[str, Any]
) -> str:
    name = f"filter_{len(parameters)}"
    try:
        encoded = target.encode(value)
    except (TypeError, ValueError) as error:
        raise InvalidResultSpecError(
            f"{shown(value)} is no value for {one.field}: {error}"
        ) from error
    if isinstance(encoded, bytes):
        parameters[name] = conn.binary(encoded)
        return f"%({name})b"
    parameters[name] = encoded
    return f"%({name})s"


def _order(fields: Mapping[str, Field], one: str) -> str:
    if not isinstance(one, str):
        raise InvalidResultSpecError(f"an order is a field's name, not {shown(one)}")
    descends = one.startswith("-")
    return _field(fields, one[1:] if descends else one).column + (" DESC" if descends else "")


def _field(fields: Mapping[str, Field], name: str) -> Field:
    found = fields.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidResultSpecError(
            f"there is no field {shown(name)}; there are {', '.join(fields)}"
        )
    return found


def _page(spec: ResultSpec, parameters: dict[str, Any]) -> str:
    limit = _MAX_INTEGER if spec.limit is None else _count("limit", spec.limit)
    offset = 0 if spec.offset is None else _count("offset", spec.offset)
    if spec.limit is None and not offset:
        return ""
    # MySQL knows no OFFSET without a LIMIT.
    parameters |= {"limit": limit, "offset": offset}
    return "\nLIMIT %(limit)s OFFSET %(offset)s"


def _count(what: str, number: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or plain_int(number) < 0:
        raise InvalidResultSpecError(f"{what} is an int from 0 on, not {shown(number)}")
    return min(plain_int(number), _MAX_INTEGER)
