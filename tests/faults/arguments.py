"""Arguments: what a state machine gives to operations, legal and not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from faults.legality import CallbackError
from faults.model import EPOCH
from statedb import Filter, ResultSpec

# Few, so that they meet; most differ by what some collation or driver does not tell apart.
_NAMES = ["a", "A", "a ", "e\u0301", "\u00e9", "%s", "'; --", "\U0001f600" * 40]
_ILLEGAL_NAMES: list[Any] = ["", "a\0", "\ud800", None, 1, b"a"]
_TEXTS = [*_NAMES, "", "a\0", "\ud800", "x", "%"]


names = st.sampled_from(_NAMES[:3] * 4 + _NAMES * 5 + _ILLEGAL_NAMES)
#: Of masters and things, which are to meet even more often.
few_names = st.sampled_from(_NAMES[:3] * 9 + _ILLEGAL_NAMES[:3])

kinds = st.sampled_from(["a"] * 12 + ["A", "", None])

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates too: JSON has them.
    | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
_odd_values: list[Any] = [(1, (2,)), {1: "one", None: 0}, "x" * 2_000, 10**40, -0.0]
_illegal_values: list[Any] = [float("nan"), {1, 2}, b"x", {1: 1, "1": 2}, [float("inf")], 1j]
values = st.one_of(_json, _json, _json, st.sampled_from(_odd_values + _illegal_values))

#: Ids of nobody, and what is no id.
no_ids = st.sampled_from([0, -1, 10**9, 2**63 - 1, 2**63, 10**30, True, None, "1", 1.0])


def mostly(ids: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    """These ids, and now and then another."""
    # Not ids | ids | no_ids: of what is alike Hypothesis takes one.
    return st.integers(0, 8).flatmap(lambda number: no_ids if number == 8 else ids)


# --- Callbacks ---


def short(value: Any = None) -> Any:
    return len(repr(value))


def wrapped(value: Any = None) -> Any:
    return [value] if isinstance(value, (int, str)) else {"was": None}


def raising(value: Any = None) -> Any:
    raise CallbackError


def illegal(value: Any = None) -> Any:
    return {float("nan")}


callbacks = st.sampled_from([short, short, wrapped, wrapped, raising, illegal])

# --- Queries ---

_now = datetime.now(timezone.utc)
_moments = st.sampled_from(
    [
        EPOCH,
        EPOCH + timedelta(microseconds=1),
        _now - timedelta(days=1),
        _now + timedelta(days=1),
        EPOCH.astimezone(timezone(timedelta(hours=-5))),
        datetime(1, 1, 1, tzinfo=timezone.utc),
        datetime(9999, 12, 31, tzinfo=timezone.utc),
    ]
)
_of_fields: dict[str, st.SearchStrategy[Any]] = {
    "id": st.integers(0, 40) | st.sampled_from([-1, 2**63, -(10**30)]),
    "name": st.sampled_from(_TEXTS),
    "class_name": st.sampled_from(_TEXTS),
    "active": st.booleans(),
    "last_active": _moments,
}
_odd = st.sampled_from([None, 1.5, "1", b"a", True, 7, datetime(2020, 1, 1), EPOCH])  # noqa: DTZ001
_EQUALITIES = ["eq", "ne", "in", "notin"]
_OPERATORS = [*_EQUALITIES, "lt", "le", "gt", "ge", "contains", "like"]


def _filters_of(field: str) -> st.SearchStrategy[Filter]:
    of_field = _of_fields.get(field, _odd)
    one = st.lists(of_field, min_size=1, max_size=1)
    several = st.lists(of_field, max_size=3)
    return st.one_of(
        st.builds(Filter, st.just(field), st.sampled_from(_OPERATORS[:9]), one),
        st.builds(Filter, st.just(field), st.sampled_from(_EQUALITIES), several),
        st.builds(Filter, st.just(field), st.sampled_from(_OPERATORS), st.lists(_odd, max_size=2)),
    )


def _specs(*fields: str) -> st.SearchStrategy[ResultSpec | None]:
    filters = st.sampled_from([*fields * 4, "no_such_field"]).flatmap(_filters_of)
    legal = [sign + one for sign in ("", "-") for one in fields]
    order = st.sampled_from([*legal * 4, "", "x"])
    number = st.none() | st.integers(0, 4) | st.sampled_from([0, 1, 2**63, -1, True])
    # Several filters are legal less often than one.
    made = st.builds(
        ResultSpec,
        st.lists(filters, max_size=1)
        | st.lists(filters, max_size=1)
        | st.lists(filters, max_size=3),
        st.lists(order, max_size=3),
        number,
        number,
    )
    return st.one_of(st.none(), made, made, made, made)


object_specs = _specs("id", "name", "class_name")
master_specs = _specs("id", "name", "active", "last_active")
