"""Names and values come back as they went in; what is not legal is refused before any SQL."""

from __future__ import annotations

import enum
import json
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import ABSENT, Call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statedb import (
    Database,
    InvalidNameError,
    InvalidTypeError,
    InvalidValueError,
    ValueTooLargeError,
    values,
)
from statedb.state import (
    atomic_create_state,
    delete_state,
    get_object_id,
    get_objects,
    get_state,
    get_states,
    set_state,
    set_states,
    update_state,
)

ODD_NAMES = [
    "a",
    "A",
    "á",
    unicodedata.normalize("NFD", "á"),
    "a ",
    "a  ",
    " a",
    "a\t",
    "ß",
    "ss",
    "\u0131",  # i without its dot
    "İ",
    "😀",
    "😁",
    "'",
    '"',
    "`",
    "\\",
    "\\'",
    "%",
    "%s",
    "%(name)s",
    ":x",
    "?",
    "$1",
    "a;--",
    "\x01\x7f",
    "\ufeff",
    "x" * 60_000,
    "x" * 59_999 + "y",
    "é" * 32_768,
]


def test_names_are_distinct_and_come_back_whole(call: Call, objectid: int) -> None:
    for number, name in enumerate(ODD_NAMES):
        assert call(set_state, objectid, name, number) == number
    for number, name in enumerate(ODD_NAMES):
        assert call(get_state, objectid, name) == number
    everything = {name: number for number, name in enumerate(ODD_NAMES)}
    assert call(get_states, objectid) == everything
    assert call(get_states, objectid, ODD_NAMES[::2]) == {
        name: everything[name] for name in ODD_NAMES[::2]
    }


def test_objects_names_are_distinct_and_come_back_whole(call: Call) -> None:
    ids = [call(get_object_id, name, "class") for name in ODD_NAMES]
    ids += [call(get_object_id, "name", name) for name in ODD_NAMES]
    assert len(set(ids)) == 2 * len(ODD_NAMES)
    found = call(get_objects)
    assert [one.id for one in found] == ids
    assert [one.name for one in found[: len(ODD_NAMES)]] == ODD_NAMES
    assert [one.class_name for one in found[len(ODD_NAMES) :]] == ODD_NAMES


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "empty"),
        ("a\0b", "holds a NUL: 'a\\x00b'"),
        ("\ud800", "lone surrogate: '\\ud800'"),
        ("x" * 65_537, "65537 bytes of UTF-8, and 65536 are the most"),
        ("é" * 32_769, "65538 bytes of UTF-8"),
    ],
)
def test_an_illegal_name_is_a_value_error_and_nothing_is_written(
    call: Call, objectid: int, name: str, message: str, application: Callable[..., Any]
) -> None:
    for operation, arguments in (
        (get_state, (objectid, name)),
        (set_state, (objectid, name, 1)),
        (set_states, (objectid, {"legal": 1, name: 1})),
        (get_states, (objectid, ["legal", name])),
        (atomic_create_state, (objectid, name, lambda: 1)),
        (update_state, (objectid, name, lambda value: value, 1)),
        (delete_state, (objectid, name)),
        (get_object_id, (name, "class")),
        (get_object_id, ("name", name)),
    ):
        with pytest.raises(InvalidNameError) as raised:
            call(operation, *arguments)
        assert message in str(raised.value)
        assert len(str(raised.value)) < 300
    assert call(set_state, objectid, "legal", "good") == "good"
    cursor = application().cursor()
    cursor.execute("SELECT count(*) FROM statedb_states")
    assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("name", [None, 1, b"name", ["name"]])
def test_a_name_that_is_no_str_is_a_type_error(call: Call, objectid: int, name: Any) -> None:
    for operation, arguments in (
        (get_state, (objectid, name)),
        (set_state, (objectid, name, 1)),
        (get_object_id, (name, "class")),
        (get_object_id, ("name", name)),
    ):
        with pytest.raises(InvalidTypeError, match="is a str, not"):
            call(operation, *arguments)


class _Answer(enum.IntEnum):
    YES = 1


def _nested(levels: int, *innermost: Any) -> Any:
    value: Any = list(innermost)
    for _ in range(levels - 1):
        value = [value] if levels % 2 else {"k": value}
    return value


def _shared(levels: int) -> Any:
    """Few lists that hold each other so often that their JSON would be beyond any memory."""
    value: Any = []
    for _ in range(levels):
        value = [value, value]
    return value


ODD_VALUES = [
    10**30,
    -(10**400),
    -0.0,
    1e308,
    5e-324,
    "\0",
    "\u0000a\\u0000",
    "\ud800",
    "\udc00\ud800",
    "é😀",
    "'\"\\%s%(x)s:x?",
    {"b": 1, "a": 2, "": 3, "\ud800": 4},
    (1, (2,)),
    {1: "one", None: 0, False: 1, 2.5: 2},
    _Answer.YES,
    _nested(200),
    _nested(199),
    _nested(200, _Answer.YES),
    "x" * 100_000,
]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value)[:20])
def test_an_odd_value_comes_back_as_json_gives_it(
    call: Call, objectid: int, stored: Callable[[int, str], Any], value: Any
) -> None:
    expected = json.loads(json.dumps(value))
    for returned in (
        call(set_state, objectid, "k", value),
        call(set_states, objectid, {"m": value})["m"],
        call(atomic_create_state, objectid, "n", lambda: value),
        call(update_state, objectid, "k", lambda _: value),
        stored(objectid, "k"),
        stored(objectid, "m"),
        stored(objectid, "n"),
    ):
        assert repr(returned) == repr(expected)


def test_a_text_of_4_mib_of_escaped_quotes_comes_back(
    call: Call, objectid: int, stored: Callable[[int, str], Any]
) -> None:
    value = '"' * (2 * 1024 * 1024 - 1)
    assert len(json.dumps(value)) == 4 * 1024 * 1024
    assert call(set_state, objectid, "k", value) == value
    assert stored(objectid, "k") == value
    assert call(get_states, objectid, ["k"]) == {"k": value}
    assert call(set_states, objectid, {"k": value, "l": value}) == {"k": value, "l": value}
    assert stored(objectid, "l") == value
    assert call(update_state, objectid, "k", lambda value: value) == value
    assert call(atomic_create_state, objectid, "m", lambda: value) == value
    assert stored(objectid, "m") == value


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("x" * (5 * 1024 * 1024), ValueTooLargeError, "has 5242882 characters"),
        ('"' * (2 * 1024 * 1024), ValueTooLargeError, "has 4194306 characters"),
        (_nested(201), InvalidValueError, "more than 200 levels"),
        (_nested(202), InvalidValueError, "more than 200 levels"),
        (float("nan"), InvalidValueError, "is no JSON"),
        ([1, {"a": float("inf")}], InvalidValueError, "is no JSON"),
        ({float("nan"): 1}, InvalidValueError, "is no JSON"),
        ({1, 2}, InvalidValueError, "is no JSON"),
        (b"bytes", InvalidValueError, "is no JSON"),
        (1j, InvalidValueError, "is no JSON"),
        ({1: "a", "1": "b"}, InvalidValueError, "keys 1 and '1' are one key"),
        ([{True: 1, "true": 2}], InvalidValueError, "are one key"),
        ({None: 1, "null": 2}, InvalidValueError, "are one key"),
        ({1.0: 1, "1.0": 2}, InvalidValueError, "are one key"),
        ({(1, 2): 1}, InvalidValueError, "is no JSON"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_illegal_value_is_named_and_nothing_is_written(
    call: Call,
    objectid: int,
    stored: Callable[[int, str], Any],
    value: Any,
    error: type[Exception],
    message: str,
) -> None:
    for operation, arguments in (
        (set_state, ("the key", value)),
        (set_states, ({"a": 1, "the key": value},)),
        (atomic_create_state, ("the key", lambda: value)),
        (update_state, ("the key", lambda _: value, 1)),
    ):
        with pytest.raises(error) as raised:
            call(operation, objectid, *arguments)
        assert message in str(raised.value)
        assert f"'the key' of object {objectid}" in str(raised.value)
        assert len(str(raised.value)) < 400
    assert stored(objectid, "the key") is ABSENT
    assert stored(objectid, "a") is ABSENT
    assert call(set_state, objectid, "the key", "good") == "good"


def test_a_value_is_as_large_as_its_text_would_be_whatever_it_shares(
    db: Database, objectid: int, stored: Callable[[int, str], Any]
) -> None:
    # Not by each operation and kind of caller, as others are: it takes two seconds each time.
    with pytest.raises(ValueTooLargeError, match=r"'k' .*holds more than 4194304 values"):
        db.state.thdSetState(objectid, "k", _shared(23))
    assert stored(objectid, "k") is ABSENT


def test_a_value_nested_beyond_all_bounds_or_holding_itself_is_a_type_error(
    call: Call, objectid: int
) -> None:
    with pytest.raises(InvalidValueError, match="more than 200 levels"):
        call(set_state, objectid, "k", _nested(100_000))
    a_list: list[Any] = []
    a_list.append(a_list)
    a_dict: dict[str, Any] = {}
    a_dict["self"] = a_dict
    for value in (a_list, a_dict):
        with pytest.raises(InvalidValueError, match="holds itself"):
            call(set_state, objectid, "k", value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(values=st.dictionaries(NAMES, JSON, min_size=1, max_size=8))
def test_any_json_comes_back_under_any_name(
    db: Database, application: Callable[..., Any], values: dict[str, Any]
) -> None:
    objectid = db.state.thdGetObjectId("nightly", "Scheduler")
    expected = {name: json.dumps(json.loads(json.dumps(value))) for name, value in values.items()}
    written = db.state.thdSetStates(objectid, values)
    for name, value in values.items():
        assert json.dumps(written[name]) == expected[name]
        assert json.dumps(db.state.thdSetState(objectid, name, value)) == expected[name]
        assert json.dumps(db.state.getState(objectid, name).result()) == expected[name]
    found = db.state.thdGetStates(objectid, list(values))
    assert {name: json.dumps(value) for name, value in found.items()} == expected


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_what_ails_the_caller_himself_is_no_fault_of_the_value(
    db: Database, objectid: int, second: Any, error: type[Exception]
) -> None:
    class Ailing(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            raise error

    with pytest.raises(error):
        db.state.thdSetState(objectid, "k", Ailing([1]))
    assert get_states(second, objectid) == {}


def test_a_value_that_is_read_where_the_stack_is_at_its_end_is_no_wrong_one(
    db: Database, objectid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted:
        def raw_decode(self, text: str) -> Any:
            raise RecursionError

    db.state.thdSetState(objectid, "k", [[1]])
    monkeypatch.setattr(values, "_decoder", Exhausted())
    with pytest.raises(RecursionError):
        db.state.thdGetState(objectid, "k")
