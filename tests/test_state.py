"""The state contract, line by line: on every engine, by every kind of caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ABSENT, Call

from statedb import (
    Database,
    Filter,
    InvalidResultSpecError,
    InvalidTypeError,
    NoSuchObjectError,
    NoSuchStateError,
    ObjectModel,
    ResultSpec,
    StoredValueError,
    objects,
)
from statedb.state import (
    atomic_create_state,
    delete_object,
    delete_state,
    get_object_id,
    get_objects,
    get_state,
    get_states,
    set_state,
    set_states,
    update_state,
)

Stored = Callable[[int, str], Any]
UNKNOWN = 987_654_321


def test_an_object_has_one_id_whoever_asks(call: Call, db: Database) -> None:
    first = call(get_object_id, "nightly", "Scheduler")
    assert call(get_object_id, "nightly", "Scheduler") == first
    assert db.run(get_object_id, "nightly", "Scheduler") == first


def test_ids_that_are_remembered_are_not_without_number(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "MAX_KNOWN_OBJECTS", 3)
    names = [f"o{number}" for number in range(10)]
    ids = [db.state.thdGetObjectId(name, "B") for name in names]
    assert len(db._executor.known) <= 3
    assert [db.state.thdGetObjectId(name, "B") for name in names] == ids


class _Chameleon(str):
    """A text that takes itself for any other."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("nightly")


def test_a_name_is_what_it_says_whatever_it_claims_to_equal(db: Database) -> None:
    pairs = [
        *((_Chameleon("daily"), "nightly"), ("nightly", _Chameleon("daily"))),
        *(("nightly", "nightly"), (_Chameleon("weekly"), "nightly")),
        *(("nightly", _Chameleon("weekly")), ("nightly", "nightly")),
    ]
    ids = [db.state.thdGetObjectId(*pair) for pair in pairs]
    assert ids[2] == ids[5]
    assert len(set(ids)) == 5
    assert [db.state.getObjectId(*pair).result() for pair in pairs] == ids


def test_an_id_that_is_remembered_is_asked_for_anew_after_a_minute(
    db: Database, second: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = db.state.thdGetObjectId("nightly", "Scheduler")
    assert delete_object(second, first) is True
    again = get_object_id(second, "nightly", "Scheduler")
    assert db.state.thdGetObjectId("nightly", "Scheduler") == first
    now = time.monotonic() + 60
    monkeypatch.setattr(objects, "time", SimpleNamespace(monotonic=lambda: now))
    assert db.state.thdGetObjectId("nightly", "Scheduler") == again
    assert db.state.getObjectId("nightly", "Scheduler").result() == again


def test_objects_of_another_name_or_class_are_others(call: Call) -> None:
    pairs = [("a", "b"), ("a", "B"), ("b", "a"), ("ab", "c"), ("a", "bc")]
    assert len({call(get_object_id, *pair) for pair in pairs}) == len(pairs)


def test_the_id_of_a_deleted_object_is_never_used_again(call: Call) -> None:
    ids = set()
    for _ in range(3):
        objectid = call(get_object_id, "nightly", "Scheduler")
        ids.add(objectid)
        assert call(delete_object, objectid) is True
    assert len(ids) == 3


def test_a_value_comes_back(call: Call, objectid: int, stored: Stored) -> None:
    value = {"last": [1, 2.5, None, True, "é"], "more": {}}
    assert call(set_state, objectid, "k", value) == value
    assert call(get_state, objectid, "k") == value
    assert stored(objectid, "k") == value


def test_setting_overwrites_and_returns_what_is_read_back(
    call: Call, objectid: int, stored: Stored
) -> None:
    call(set_state, objectid, "k", 1)
    assert call(set_state, objectid, "k", (1, {2: 3})) == [1, {"2": 3}]
    assert stored(objectid, "k") == [1, {"2": 3}]


def test_setting_the_same_value_again_is_no_failure(call: Call, objectid: int) -> None:
    for _ in range(3):
        assert call(set_state, objectid, "k", "same") == "same"


def test_an_absent_value_is_the_default_where_one_is_given(call: Call, objectid: int) -> None:
    assert call(get_state, objectid, "k", None) is None
    assert call(get_state, objectid, "k", default=[]) == []


def test_an_absent_value_without_a_default_is_a_key_error(call: Call, objectid: int) -> None:
    with pytest.raises(NoSuchStateError, match=f"object {objectid} has no value named 'k'"):
        call(get_state, objectid, "k")


def test_a_stored_null_is_a_value(call: Call, objectid: int) -> None:
    call(set_state, objectid, "k", None)
    assert call(get_state, objectid, "k", "default") is None
    assert call(atomic_create_state, objectid, "k", lambda: pytest.fail("was called")) is None


def test_what_is_stored_and_no_json_is_a_type_error(
    call: Call, objectid: int, application: Callable[..., Any]
) -> None:
    call(set_state, objectid, "k", 1)
    own = application(autocommit=True)
    own.cursor().execute("UPDATE statedb_states SET value = 'nonsense'")
    for operation, arguments in (
        (get_state, ("k",)),
        (get_state, ("k", "default")),
        (get_states, ()),
        (update_state, ("k", lambda value: value)),
        (atomic_create_state, ("k", lambda: 1)),
    ):
        with pytest.raises(StoredValueError, match=f"'k' of object {objectid} is no JSON"):
            call(operation, objectid, *arguments)


def test_the_first_creation_stands(call: Call, objectid: int, stored: Stored) -> None:
    assert call(atomic_create_state, objectid, "k", lambda: {"first": (1,)}) == {"first": [1]}
    assert call(atomic_create_state, objectid, "k", lambda: "second") == {"first": [1]}
    assert stored(objectid, "k") == {"first": [1]}


def test_a_creation_whose_callback_raises_stores_nothing(
    call: Call, objectid: int, stored: Stored
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("the callback's own")

    with pytest.raises(ZeroDivisionError, match="the callback's own"):
        call(atomic_create_state, objectid, "k", fail)
    assert stored(objectid, "k") is ABSENT


def test_deleting_says_whether_there_was_one(call: Call, objectid: int, stored: Stored) -> None:
    call(set_state, objectid, "k", 1)
    assert call(delete_state, objectid, "k") is True
    assert stored(objectid, "k") is ABSENT
    assert call(delete_state, objectid, "k") is False


def test_all_values_or_those_named_come_in_one_dict(call: Call, objectid: int) -> None:
    values = {f"k{number}": number for number in range(7)}
    call(set_states, objectid, values)
    assert call(get_states, objectid) == values
    assert call(get_states, objectid, ["k1", "k5", "absent", "k1"]) == {"k1": 1, "k5": 5}
    assert call(get_states, objectid, []) == {}
    assert call(get_states, objectid, iter(["k3"])) == {"k3": 3}
    many = [f"k{number}" for number in range(3000)]
    assert call(get_states, objectid, many) == values
    assert call(get_states, objectid, many[2:]) == {f"k{number}": number for number in range(2, 7)}


def test_the_values_of_one_object_are_no_others(call: Call, objectid: int) -> None:
    other = call(get_object_id, "other", "Scheduler")
    call(set_states, objectid, {"k": 1, "l": 2})
    call(set_states, other, {"k": 3, "m": 4})
    assert call(get_states, objectid) == {"k": 1, "l": 2}
    assert call(get_states, other, ["k", "l", "m"]) == {"k": 3, "m": 4}
    assert call(get_state, objectid, "m", "absent") == "absent"
    assert call(update_state, other, "k", lambda value: value + 1) == 4
    assert call(delete_state, other, "k") is True
    assert call(get_states, objectid) == {"k": 1, "l": 2}
    assert call(delete_object, other) is True
    assert call(get_states, objectid) == {"k": 1, "l": 2}


def test_several_values_are_written_all_or_none(call: Call, objectid: int, stored: Stored) -> None:
    call(set_state, objectid, "b", "old")
    assert call(set_states, objectid, {"a": (1,), "b": 2, "é": None}) == {
        "a": [1],
        "b": 2,
        "é": None,
    }
    assert [stored(objectid, name) for name in ("a", "b", "é")] == [[1], 2, None]
    with pytest.raises(TypeError):
        call(set_states, objectid, {"a": "new", "c": {1, 2}})
    assert [stored(objectid, name) for name in ("a", "c")] == [[1], ABSENT]
    assert call(set_states, objectid, {}) == {}


def test_many_values_with_the_longest_names_are_written_together(
    db: Database, objectid: int, second: Any
) -> None:
    values = {f"{number}".ljust(64 * 1024, "x"): number for number in range(140)}
    assert db.state.thdSetStates(objectid, values) == values
    assert get_states(second, objectid) == values


def test_an_update_gets_the_value_and_returns_what_was_written(
    call: Call, objectid: int, stored: Stored
) -> None:
    call(set_state, objectid, "k", [1])
    assert call(update_state, objectid, "k", lambda value: (*value, 2)) == [1, 2]
    assert stored(objectid, "k") == [1, 2]


def test_an_update_of_an_absent_value_gets_the_default(
    call: Call, objectid: int, stored: Stored
) -> None:
    assert call(update_state, objectid, "k", lambda value: value + 1, 41) == 42
    assert stored(objectid, "k") == 42
    with pytest.raises(NoSuchStateError):
        call(update_state, objectid, "other", lambda value: value)


def test_an_update_whose_callback_raises_changes_nothing(
    call: Call, objectid: int, stored: Stored
) -> None:
    call(set_state, objectid, "k", 0)
    with pytest.raises(ZeroDivisionError):
        call(update_state, objectid, "k", lambda value: 1 // value)
    assert stored(objectid, "k") == 0


def test_a_deleted_objects_values_are_gone_with_it(
    call: Call, objectid: int, stored: Stored
) -> None:
    other = call(get_object_id, "other", "Scheduler")
    call(set_state, objectid, "k", 1)
    call(set_state, other, "k", 2)
    assert call(delete_object, objectid) is True
    assert call(delete_object, objectid) is False
    assert stored(objectid, "k") is ABSENT
    assert stored(other, "k") == 2


@pytest.mark.parametrize("objectid", [UNKNOWN, 0, -1, 2**63, -(2**80)])
def test_writing_to_an_object_that_does_not_exist_is_a_key_error(
    call: Call, objectid: int, application: Callable[..., Any]
) -> None:
    for operation, arguments in (
        (set_state, ("k", 1)),
        (set_states, ({"k": 1},)),
        (set_states, ({},)),
        (atomic_create_state, ("k", lambda: 1)),
        (update_state, ("k", lambda value: value, 1)),
    ):
        with pytest.raises(NoSuchObjectError, match=f"no object {objectid}"):
            call(operation, objectid, *arguments)
    cursor = application().cursor()
    cursor.execute("SELECT count(*) FROM statedb_states")
    assert cursor.fetchone() == (0,)


@pytest.mark.parametrize("objectid", [UNKNOWN, 0, 2**63])
def test_reading_from_an_object_that_does_not_exist_is_reading_an_absent_name(
    call: Call, objectid: int
) -> None:
    assert call(get_state, objectid, "k", "default") == "default"
    with pytest.raises(NoSuchStateError):
        call(get_state, objectid, "k")
    with pytest.raises(NoSuchStateError):
        call(update_state, objectid, "k", lambda value: value)
    assert call(get_states, objectid) == {}
    assert call(delete_state, objectid, "k") is False
    assert call(delete_object, objectid) is False


@pytest.mark.parametrize("objectid", [1.0, "1", None, True, b"1", [1]])
def test_an_objectid_that_is_no_int_is_a_type_error(call: Call, objectid: Any) -> None:
    for operation, arguments in (
        (get_state, ("k", 1)),
        (set_state, ("k", 1)),
        (atomic_create_state, ("k", lambda: 1)),
        (update_state, ("k", lambda value: value)),
        (delete_state, ("k",)),
        (get_states, ()),
        (set_states, ({"k": 1},)),
        (delete_object, ()),
    ):
        with pytest.raises(InvalidTypeError, match="an objectid is an int"):
            call(operation, objectid, *arguments)


@pytest.mark.parametrize("names", ["k", b"k", 1])
def test_names_to_get_that_are_not_several_are_a_type_error(
    call: Call, objectid: int, names: Any
) -> None:
    with pytest.raises(InvalidTypeError, match="several str"):
        call(get_states, objectid, names)


@pytest.mark.parametrize("values", [None, "k", [("k", 1)]])
def test_values_to_set_that_are_no_mapping_are_a_type_error(
    call: Call, objectid: int, values: Any
) -> None:
    with pytest.raises(InvalidTypeError, match="mapping of names to values"):
        call(set_states, objectid, values)


@pytest.fixture
def five(db: Database) -> list[ObjectModel]:
    pairs = [("b", "Y"), ("a", "X"), ("B", "X"), ("é'%_\\", "Y"), ("a ", "X")]
    return [ObjectModel(db.state.thdGetObjectId(*pair), *pair) for pair in pairs]


def test_objects_come_by_id_where_no_order_is_given(call: Call, five: list[ObjectModel]) -> None:
    assert call(get_objects) == five
    assert call(get_objects, ResultSpec()) == five


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (Filter("name", "eq", ["a"]), [1]),
        (Filter("name", "eq", ["a", "B"]), [1, 2]),
        (Filter("name", "in", ["a", "nobody"]), [1]),
        (Filter("name", "in", []), []),
        (Filter("name", "notin", []), [0, 1, 2, 3, 4]),
        (Filter("name", "ne", ["a", "B"]), [0, 3, 4]),
        (Filter("name", "ne", ["a"]), [0, 2, 3, 4]),
        (Filter("name", "notin", ["a", "b", "a "]), [2, 3]),
        (Filter("name", "lt", ["a"]), [2]),
        (Filter("name", "le", ["a"]), [1, 2]),
        (Filter("name", "gt", ["a "]), [0, 3]),
        (Filter("name", "ge", ["a "]), [0, 3, 4]),
        (Filter("name", "contains", ["'%_\\"]), [3]),
        (Filter("name", "contains", ["%"]), [3]),
        (Filter("name", "contains", ["A"]), []),
        (Filter("name", "contains", ["a", "b"]), [0, 1, 4]),
        (Filter("name", "contains", []), []),
        (Filter("class_name", "eq", ["X"]), [1, 2, 4]),
        (Filter("id", "gt", [-(2**70)]), [0, 1, 2, 3, 4]),
        (Filter("id", "lt", [2**70]), [0, 1, 2, 3, 4]),
        (Filter("id", "in", [2**70]), []),
    ],
)
def test_objects_are_filtered(
    call: Call, five: list[ObjectModel], one: Filter, expected: list[int]
) -> None:
    assert call(get_objects, ResultSpec(filters=[one])) == [five[index] for index in expected]


def test_all_filters_must_be_met(call: Call, five: list[ObjectModel]) -> None:
    filters = [Filter("class_name", "eq", ["X"]), Filter("name", "ne", ["B"])]
    assert call(get_objects, ResultSpec(filters=filters)) == [five[1], five[4]]
    assert call(get_objects, ResultSpec([Filter("id", "gt", [five[2].id])])) == five[3:]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["name"], [2, 1, 4, 0, 3]),
        (["-name"], [3, 0, 4, 1, 2]),
        (["class_name", "-id"], [4, 2, 1, 3, 0]),
        (["-id"], [4, 3, 2, 1, 0]),
    ],
)
def test_objects_are_ordered_by_the_bytes_of_their_names(
    call: Call, five: list[ObjectModel], order: list[str], expected: list[int]
) -> None:
    assert call(get_objects, ResultSpec(order=order)) == [five[index] for index in expected]


class Number(int):
    """One that tells drivers another number than it is, as an IntEnum may."""

    def __str__(self) -> str:
        return "0"

    __repr__ = __format__ = __str__  # type: ignore[assignment]

    def __lt__(self, other: object) -> bool:
        return True

    __gt__ = __le__ = __ge__ = __lt__


def test_a_number_is_the_number_that_it_is(call: Call, objectid: int, stored: Stored) -> None:
    odd = Number(objectid)
    assert call(set_state, odd, "k", 1) == 1
    assert call(set_states, odd, {"l": 2}) == {"l": 2}
    assert call(get_states, odd) == {"k": 1, "l": 2}
    assert call(get_state, odd, "k") == stored(objectid, "k") == 1
    for spec in (
        ResultSpec([Filter("id", "eq", [odd])]),
        ResultSpec(limit=Number(1), offset=Number(0)),
    ):
        assert [one.id for one in call(get_objects, spec)] == [objectid]
    assert call(delete_object, odd) is True


@pytest.mark.parametrize("operator", ["eq", "notin", "contains"])
def test_filters_have_as_many_values_as_any_engine_takes(
    call: Call, five: list[ObjectModel], operator: str
) -> None:
    values = [*(f"x{number}" for number in range(498)), "none"]
    most = ResultSpec([Filter("name", operator, values), Filter("id", "in", [five[0].id])])
    expected = five[:1] if operator == "notin" else []
    assert call(get_objects, most) == expected
    more = ResultSpec([*most.filters, Filter("id", "gt", [0])])
    with pytest.raises(InvalidResultSpecError, match="501 values together, and may have 500"):
        call(get_objects, more)


@pytest.mark.parametrize(
    ("limit", "offset", "expected"),
    [(2, None, [0, 1]), (2, 4, [4]), (None, 3, [3, 4]), (0, None, []), (2**70, 2**70, [])],
)
def test_objects_are_paged(
    call: Call,
    five: list[ObjectModel],
    limit: int | None,
    offset: int | None,
    expected: list[int],
) -> None:
    found = call(get_objects, ResultSpec(limit=limit, offset=offset))
    assert found == [five[index] for index in expected]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            ResultSpec([Filter("nam", "eq", ["a"])]),
            "no field 'nam'; there are id, name, class_name",
        ),
        (ResultSpec([Filter("name; DROP TABLE x", "eq", ["a"])]), "no field"),
        (ResultSpec(order=["name DESC"]), "no field 'name DESC'"),
        (ResultSpec([Filter("name", "like", ["a"])]), "cannot be filtered by 'like'; it can by eq"),
        (ResultSpec([Filter("id", "contains", [1])]), "cannot be filtered by 'contains'"),
        (ResultSpec([Filter("id", "eq", ["1"])]), "'1' is no value for id: it takes an int"),
        (ResultSpec([Filter("name", "eq", [1])]), "1 is no value for name: it takes a str"),
        (ResultSpec([Filter("name", "eq", "a")]), "takes a list of values, not 'a'"),
        (ResultSpec([Filter("name", "lt", ["a", "b"])]), "lt of name takes one value, not 2"),
        (ResultSpec(limit=-1), "limit is an int from 0 on, not -1"),
        (ResultSpec(offset=True), "offset is an int from 0 on, not True"),
    ],
)
def test_what_cannot_be_asked_for_is_a_value_error_that_says_what_can(
    call: Call, spec: ResultSpec, message: str
) -> None:
    with pytest.raises(InvalidResultSpecError) as raised:
        call(get_objects, spec)
    assert message in str(raised.value)


# --- Several calls in one transaction ---


def test_each_call_of_a_transaction_calls_its_own_callback(db: Database, stored: Stored) -> None:
    def refuse() -> int:
        raise ZeroDivisionError

    with db.transaction():
        with pytest.raises(NoSuchObjectError):
            db.state.thdAtomicCreateState(UNKNOWN, "k", lambda: 1)
        with pytest.raises(ZeroDivisionError):
            db.state.thdAtomicCreateState(UNKNOWN, "k", refuse)
    assert stored(UNKNOWN, "k") is ABSENT
    objectid = db.state.thdGetObjectId("nightly", "Scheduler")
    with db.transaction():
        assert db.state.thdAtomicCreateState(objectid, "k", lambda: 1) == 1
        assert db.state.thdDeleteState(objectid, "k") is True
        assert db.state.thdAtomicCreateState(objectid, "k", lambda: 2) == 2
    assert stored(objectid, "k") == 2


def test_each_call_of_a_transaction_reads_the_names_that_it_is_given(
    db: Database, objectid: int
) -> None:
    db.state.thdSetStates(objectid, {"a": 1, "b": 2, "c": 3})
    with db.transaction():
        # An iterator is gone after its call, and the next one has its address.
        found = [db.state.thdGetStates(objectid, iter((name,))) for name in "abc"]
    assert found == [{"a": 1}, {"b": 2}, {"c": 3}]
