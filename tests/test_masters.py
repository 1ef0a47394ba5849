"""The masters contract but for claims, line by line: on every engine, by every kind of caller."""

from __future__ import annotations

import itertools
import operator
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from conftest import Call
from engines import Engine
from interposed import watch

from statedb import (
    Claim,
    Database,
    DatabaseError,
    Filter,
    InvalidNameError,
    InvalidResultSpecError,
    InvalidTypeError,
    MasterActiveError,
    MasterModel,
    ResultSpec,
)
from statedb.connection import adapt
from statedb.masters import (
    claim,
    expire_masters,
    find_master_id,
    forget_master,
    get_claims,
    get_master,
    get_masters,
    hold_claim,
    release,
    set_all_masters_active_long_time_ago,
    set_master_state,
)
from statedb.place import Place, leave_place

Connect = Callable[..., Any]
UNKNOWN = 987_654_321
SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def masterid(call: Call) -> int:
    """A master that is active."""
    found: int = call(find_master_id, "host:/base")
    call(set_master_state, found, True)
    return found


class Planned(Exception):
    """A fault in the midst of an operation."""


def fail() -> None:
    raise Planned("as planned")


class Watched:
    """What is sent to the database, and what is to happen just before some of it is."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self._planned: dict[str, Callable[[], object]] = {}

    def before(self, sql: str) -> None:
        self.statements.append(sql)
        for text in list(self._planned):
            if text in sql:
                self._planned.pop(text)()

    def plan(self, text: str, action: Callable[[], object]) -> None:
        """Have something happen, once, before the next statement that holds the text."""
        self._planned[text] = action

    @property
    def done(self) -> bool:
        return not self._planned


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Watches every connection that a test's later fixtures open: ask for it before ``call``."""
    one = Watched()
    with watch(one.before):
        yield one


def _set(second: Any, masterid: int, columns: str) -> None:
    second.cursor().execute(f"UPDATE statedb_masters SET {columns} WHERE id = {masterid}")


def _silence(second: Any, masterid: int, seconds: float) -> None:
    """Have it be so long ago that a master was last seen."""
    ago = int(seconds * SECOND)
    _set(second, masterid, f"last_active = last_active - {ago}, due = due - {ago}")


def _give_own_number(second: Any, masterid: int, seconds: float) -> None:
    """Have a master say itself, as one that joins does, after how long it is to be expired."""
    own = int(seconds * SECOND)
    _set(second, masterid, f"expire_after = {own}, due = last_active + {own}")


def _row(second: Any, masterid: int, columns: str) -> Any:
    cursor = second.cursor()
    cursor.execute(f"SELECT {columns} FROM statedb_masters WHERE id = {masterid}")
    return cursor.fetchone()


def _incarnation(second: Any, masterid: int) -> int:
    (incarnation,) = _row(second, masterid, "incarnation")
    found: int = incarnation
    return found


def _count(second: Any) -> int:
    cursor = second.cursor()
    cursor.execute("SELECT count(*) FROM statedb_masters")
    count: int = cursor.fetchone()[0]
    return count


def _is_active(second: Any, masterid: int) -> bool:
    master = get_master(second, masterid)
    assert master is not None
    return master.active


def _now_there(engine: Engine, second: Any) -> datetime:
    """The database's clock, asked in another way than statedb asks."""
    asked = {
        "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f000', 'now')",
        "postgresql": (
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
        ),
    }
    cursor = second.cursor()
    kind = engine.name.removesuffix(" by URL")
    cursor.execute(asked.get(kind, "SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)"))
    (text,) = cursor.fetchone()
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def _together(work: Callable[[int], Any], threads: int) -> list[Any]:
    """What each of so many threads returns, all of them let go at once."""
    barrier = threading.Barrier(threads)

    def one(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(one, range(threads)))


# --- Ids and names ---


def test_a_master_has_one_id_whoever_asks(call: Call, db: Database, second: Any) -> None:
    first = call(find_master_id, "host:/base")
    assert call(find_master_id, "host:/base") == first
    assert db.masters.thdFindMasterId("host:/base") == first
    assert db.masters.findMasterId("host:/base").result(timeout=60) == first
    assert find_master_id(second, "host:/base") == first
    assert _count(second) == 1


def test_a_new_master_is_inactive(call: Call, second: Any) -> None:
    masterid = call(find_master_id, "host:/base")
    found = get_master(second, masterid)
    assert found is not None
    assert (found.id, found.name, found.active) == (masterid, "host:/base", False)
    assert call(get_master, masterid) == found


def test_asking_for_its_id_changes_nothing_about_a_master(
    call: Call, masterid: int, second: Any
) -> None:
    before = _row(second, masterid, "active, incarnation, heartbeats, last_active")
    assert call(find_master_id, "host:/base") == masterid
    assert _row(second, masterid, "active, incarnation, heartbeats, last_active") == before


def test_the_id_of_a_forgotten_master_is_never_used_again(call: Call) -> None:
    ids = set()
    for _ in range(3):
        masterid = call(find_master_id, "host:/base")
        ids.add(masterid)
        assert call(forget_master, masterid) is True
    assert len(ids) == 3


def test_many_threads_get_one_new_id_by_whatever_way_they_ask(
    db: Database, application: Connect, second: Any
) -> None:
    patience: dict[str, Any] = {}
    if hasattr(second, "interrupt"):
        patience = {"timeout": 60}  # sqlite3 waits for five seconds otherwise
    own = {number: application(autocommit=True, **patience) for number in range(0, 24, 3)}

    def ask(number: int) -> int:
        if number in own:
            return find_master_id(own[number], "host:/base")
        if number % 3 == 1:
            return db.masters.thdFindMasterId("host:/base")
        return db.masters.findMasterId("host:/base").result(timeout=60)

    used: set[int] = set()
    for _ in range(3):
        (found,) = set(_together(ask, 24))
        assert found not in used
        used.add(found)
        assert get_masters(second)[0].id == found
        assert db.masters.thdForgetMaster(found) is True


def test_no_id_is_used_twice_while_many_threads_ask_and_forget(db: Database) -> None:
    def work(number: int) -> list[int]:
        forgotten = []
        for _ in range(15):
            masterid = db.masters.thdFindMasterId("host:/base")
            if db.masters.forgetMaster(masterid).result(timeout=60):
                forgotten.append(masterid)
        return forgotten

    forgotten = [masterid for ids in _together(work, 8) for masterid in ids]
    assert len(forgotten) == len(set(forgotten)) >= 15


NAMES = [
    *(
        "a",
        "A",
        "á",
        "à",
        "a\u0301",
        "\uff41",
        "a ",
        "a  ",
        " a",
        "a\t",
        "ß",
        "ss",
        "SS",
        "İ",
        "i",
        "\u0131",
    ),
    *(
        "\u00e9",
        "e\u0301",
        "ﬁ",
        "fi",
        "😀",
        "\U0001f601",
        "a\u200b",
        "'",
        '"',
        "\\",
        "%",
        "_",
        "a;b",
    ),
]


def test_names_that_differ_in_one_byte_are_those_of_different_masters(
    call: Call, second: Any
) -> None:
    ids = [call(find_master_id, name) for name in NAMES]
    assert len(set(ids)) == len(NAMES)
    assert [call(find_master_id, name) for name in NAMES] == ids
    assert [one.name for one in get_masters(second)] == NAMES
    assert [get_masters(second, ResultSpec([Filter("name", "eq", [name])])) for name in NAMES] == [
        [one] for one in get_masters(second)
    ]


def test_names_of_64_kib_are_stored_whole(call: Call, second: Any) -> None:
    names = ["x" * 65_536, "x" * 65_535 + "y", "é" * 32_768, "x" * 65_535]
    ids = [call(find_master_id, name) for name in names]
    assert len(set(ids)) == len(names)
    for masterid, name in zip(ids, names, strict=True):
        found = get_master(second, masterid)
        assert found is not None
        assert found.name == name
        assert call(get_master, masterid) == found


REFUSED_NAMES: list[tuple[Any, type[Exception], str]] = [
    ("", InvalidNameError, "a master's name is empty"),
    ("a\0b", InvalidNameError, "a master's name holds a NUL"),
    ("\0", InvalidNameError, "a master's name holds a NUL"),
    ("a\ud800", InvalidNameError, "a master's name holds a lone surrogate"),
    ("x" * 65_537, InvalidNameError, "a master's name has 65537 bytes"),
    ("é" * 32_769, InvalidNameError, "a master's name has 65538 bytes"),
    (None, InvalidTypeError, "a master's name is a str, not NoneType"),
    (b"a", InvalidTypeError, "a master's name is a str, not bytes"),
    (7, InvalidTypeError, "a master's name is a str, not int"),
    (["a"], InvalidTypeError, "a master's name is a str, not list"),
]


def test_what_cannot_be_a_name_is_refused_before_any_sql(
    watched: Watched, call: Call, second: Any
) -> None:
    call(get_masters)
    watched.statements.clear()
    for name, error, message in REFUSED_NAMES:
        with pytest.raises(error, match=message):
            call(find_master_id, name)
    assert watched.statements == []
    assert _count(second) == 0


MASTERID_OPERATIONS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (set_master_state, (True,)),
    (set_master_state, (False,)),
    (get_master, ()),
    (forget_master, ()),
    (claim, ("scheduler", "nightly")),
    (release, ("scheduler", "nightly")),
    (get_claims, ("scheduler",)),
]


def test_a_masterid_that_is_no_int_is_a_type_error(watched: Watched, call: Call) -> None:
    call(get_masters)
    watched.statements.clear()
    for function, arguments in MASTERID_OPERATIONS:
        for masterid in (1.0, "1", b"1", True, [1], datetime.now(timezone.utc)):
            with pytest.raises(InvalidTypeError, match="a masterid is an int, not"):
                call(function, masterid, *arguments)
    assert watched.statements == []


# --- One master ---


def test_of_a_master_that_does_not_exist_nothing_can_be_said_or_changed(
    call: Call, second: Any
) -> None:
    there = find_master_id(second, "host:/base")
    before = _row(second, there, "active, incarnation, last_active")
    for masterid in (UNKNOWN, 0, -1, 2**63, -(2**63), 2**80):
        assert call(get_master, masterid) is None
        assert call(set_master_state, masterid, True) is False
        assert call(set_master_state, masterid, False) is False
        assert call(forget_master, masterid) is False
        assert call(get_claims, masterid) == []
    assert _count(second) == 1
    assert _row(second, there, "active, incarnation, last_active") == before


def test_setting_says_whether_it_changed(call: Call, second: Any) -> None:
    masterid = call(find_master_id, "host:/base")
    for active, changed in (
        (False, False),
        (True, True),
        (True, False),
        (False, True),
        (False, False),
        (True, True),
    ):
        assert call(set_master_state, masterid, active) is changed
        assert _is_active(second, masterid) is active


def test_only_the_one_master_is_set(call: Call, second: Any) -> None:
    ids = [call(find_master_id, name) for name in "abc"]
    call(set_master_state, ids[1], True)
    assert [one.active for one in get_masters(second)] == [False, True, False]
    for masterid in ids:
        call(set_master_state, masterid, True)
    call(set_master_state, ids[1], False)
    assert [one.active for one in get_masters(second)] == [True, False, True]


def test_activation_is_seen_now_by_the_databases_clock(
    engine: Engine, call: Call, second: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    masterid = call(find_master_id, "host:/base")
    # The host's clock goes wrong by hours, for whoever looks at it.
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    before = _now_there(engine, second)
    call(set_master_state, masterid, True)
    after = _now_there(engine, second)
    found = get_master(second, masterid)
    assert found is not None
    rounding = timedelta(milliseconds=1)
    assert before - rounding <= found.last_active <= after + rounding
    assert call(get_master, masterid) == found


def test_an_active_master_is_seen_again_by_being_set_active(
    engine: Engine, call: Call, masterid: int, second: Any
) -> None:
    _silence(second, masterid, 3600)
    before = _now_there(engine, second)
    assert call(set_master_state, masterid, True) is False
    found = get_master(second, masterid)
    assert found is not None
    assert found.last_active >= before - timedelta(milliseconds=1)


def test_an_active_masters_own_number_counts_from_when_it_was_set_active(
    call: Call, masterid: int, second: Any
) -> None:
    _give_own_number(second, masterid, 100)
    _silence(second, masterid, 3600)
    call(set_master_state, masterid, True)
    last_active, due = _row(second, masterid, "last_active, due")
    assert abs(due - last_active - 100 * SECOND) < SECOND
    call(set_master_state, masterid, False)
    assert _row(second, masterid, "due, expire_after") == (None, 100 * SECOND)


def test_deactivation_leaves_when_it_was_last_seen(call: Call, masterid: int, second: Any) -> None:
    _silence(second, masterid, 5)
    before = get_master(second, masterid)
    assert before is not None
    call(set_master_state, masterid, False)
    assert get_master(second, masterid) == MasterModel(
        masterid, "host:/base", False, before.last_active
    )


def test_times_are_aware_in_utc_and_finer_than_seconds(
    call: Call, masterid: int, second: Any
) -> None:
    times = []
    for _ in range(4):
        call(set_master_state, masterid, True)
        times += [call(get_master, masterid).last_active, call(get_masters)[0].last_active]
    assert {one.tzinfo for one in times} == {timezone.utc}
    # One in a thousand falls on a whole second by chance; four do not.
    assert any(one.microsecond for one in times)
    _set(second, masterid, "last_active = 1234567890123456")
    exact = datetime(2009, 2, 13, 23, 31, 30, 123456, tzinfo=timezone.utc)
    assert call(get_master, masterid).last_active == exact


def test_what_is_no_bool_marks_nobody(
    watched: Watched, call: Call, masterid: int, second: Any
) -> None:
    watched.statements.clear()
    for active in (1, 0, None, "yes", b"", [True]):
        with pytest.raises(InvalidTypeError, match="active is a bool, not"):
            call(set_master_state, masterid, active)
    assert watched.statements == []
    assert _is_active(second, masterid) is True


def test_deactivation_deletes_every_link_to_the_master_and_no_other(
    call: Call, masterid: int, second: Any
) -> None:
    other = call(find_master_id, "other")
    call(set_master_state, other, True)
    for name in "abc":
        call(claim, masterid, "scheduler", name)
        call(claim, masterid, "builder", name)
    kept = call(claim, other, "scheduler", "other's")
    call(set_master_state, masterid, False)
    assert get_claims(second) == [kept]
    # Nor do they come back.
    call(set_master_state, masterid, True)
    assert get_claims(second) == [kept]


def test_deactivation_and_its_links_end_are_one_transaction(
    watched: Watched, call: Call, masterid: int, second: Any
) -> None:
    held = call(claim, masterid, "scheduler", "nightly")

    watched.plan("UPDATE statedb_claims", fail)
    with pytest.raises((Planned, DatabaseError), match="as planned"):
        call(set_master_state, masterid, False)
    assert watched.done
    assert _is_active(second, masterid) is True
    assert get_claims(second) == [held]
    assert call(set_master_state, masterid, False) is True
    assert get_claims(second) == []


def test_every_change_from_inactive_to_active_is_a_new_incarnation(call: Call, second: Any) -> None:
    masterid = call(find_master_id, "host:/base")
    seen = [_incarnation(second, masterid)]
    for active in (True, True, False, False, True, False, True):
        call(set_master_state, masterid, active)
        seen.append(_incarnation(second, masterid))
    assert [one - seen[0] for one in seen] == [0, 1, 1, 1, 1, 2, 2, 3]


def test_after_an_expiry_activation_is_a_new_incarnation(
    call: Call, masterid: int, second: Any
) -> None:
    before = _incarnation(second, masterid)
    call(expire_masters, 0)
    assert _incarnation(second, masterid) == before
    call(set_master_state, masterid, True)
    assert _incarnation(second, masterid) == before + 1


# --- Many masters ---

#: Names, whether they are active, and when they were last seen, in microseconds since 1970.
CROWD = [
    ("b", True, 1_700_000_000_000_000),
    ("a", False, 1_700_000_000_000_001),
    ("B", True, 0),
    ("é'%_\\", False, 1_700_000_000_000_000),
    ("a ", True, 1_700_000_000_999_999),
    ('50% off\\"; --', True, 1),
    ("😀", False, 1_800_000_000_000_000),
    ("a\u0301", True, 1_700_000_000_000_001),
    ("ab/*c*/%(filter_0)s?:x", False, 0),
]


@pytest.fixture
def crowd(db: Database, second: Any) -> list[MasterModel]:
    models = []
    for name, active, last_active in CROWD:
        masterid = db.masters.thdFindMasterId(name)
        _set(second, masterid, f"active = {int(active)}, last_active = {last_active}")
        moment = EPOCH + timedelta(microseconds=last_active)
        models.append(MasterModel(masterid, name, active, moment))
    return models


def test_masters_come_by_id_where_no_order_is_given(call: Call, crowd: list[MasterModel]) -> None:
    assert call(get_masters) == crowd
    assert call(get_masters, None) == crowd
    assert call(get_masters, ResultSpec()) == crowd
    assert call(get_masters, resultSpec=ResultSpec()) == crowd
    assert [call(get_master, one.id) for one in crowd] == crowd


def _comparable(value: Any) -> Any:
    """Text is compared by its bytes."""
    return value.encode() if isinstance(value, str) else value


def _meets(master: MasterModel, one: Filter) -> bool:
    """What a filter means, said in Python."""
    own = _comparable(getattr(master, one.field))
    values = [_comparable(value) for value in one.values]
    if one.operator in ("eq", "in"):
        return own in values
    if one.operator in ("ne", "notin"):
        return own not in values
    if one.operator == "contains":
        return any(value in own for value in values)
    (value,) = values
    meets: bool = getattr(operator, one.operator)(own, value)
    return meets


def _expected(crowd: list[MasterModel], *filters: Filter) -> list[MasterModel]:
    return [one for one in crowd if all(_meets(one, each) for each in filters)]


IN_BERLIN = timezone(timedelta(hours=1))
VALUES: dict[str, list[Any]] = {
    "name": [
        *(name for name, _, _ in CROWD),
        *("", "A", "a", "aa", "é", "'", '"', "%", "_", "\\", "\\\\", "%%", "--", "*", "\0", "b;"),
        *("%s", "%(filter_0)s", "/*filters*/", "?", "x" * 70_000),
    ],
    "active": [True, False],
    "last_active": [
        *(EPOCH + timedelta(microseconds=moment) for _, _, moment in CROWD),
        EPOCH + timedelta(microseconds=1_700_000_000_000_500),
        (EPOCH + timedelta(microseconds=1_700_000_000_000_001)).astimezone(IN_BERLIN),
        datetime.min.replace(tzinfo=timezone.utc),
        datetime.max.replace(tzinfo=timezone.utc),
    ],
}
OPERATORS = ["eq", "ne", "lt", "le", "gt", "ge", "in", "notin"]


@pytest.mark.parametrize("field", ["id", "name", "active", "last_active"])
def test_every_operator_finds_what_it_means(
    call: Call, crowd: list[MasterModel], field: str
) -> None:
    values = VALUES.get(field) or [
        *(one.id for one in crowd),
        *(0, -1, 2**63 - 1, 2**63, -(2**63), -(2**80), 2**80, crowd[-1].id + 1),
    ]
    found_some = False
    for name in [*OPERATORS, *(["contains"] if field == "name" else [])]:
        for value in values:
            one = Filter(field, name, [value])
            found = call(get_masters, ResultSpec([one]))
            assert found == _expected(crowd, one), one
            found_some = found_some or 0 < len(found) < len(crowd)
    assert found_some


@pytest.mark.parametrize("field", ["id", "name", "active", "last_active"])
def test_several_values_mean_any_of_them_or_none(
    call: Call, crowd: list[MasterModel], field: str
) -> None:
    own = [getattr(one, field) for one in crowd]
    names = ["eq", "in", "ne", "notin", *(["contains"] if field == "name" else [])]
    for name, count in itertools.product(names, (0, 1, 2, 5, len(own))):
        for values in (
            own[:count],
            tuple(own[-count:] if count else ()),
            (own[:count] * 100)[:500],
        ):
            one = Filter(field, name, values)
            assert call(get_masters, ResultSpec([one])) == _expected(crowd, one), one


def test_all_filters_must_be_met(call: Call, crowd: list[MasterModel]) -> None:
    choices = [
        Filter("active", "eq", [True]),
        Filter("active", "ne", [True]),
        Filter("name", "contains", ["a", "%"]),
        Filter("name", "ge", ["a"]),
        Filter("name", "lt", ["é"]),
        Filter("last_active", "gt", [EPOCH]),
        Filter("last_active", "le", [crowd[1].last_active]),
        Filter("id", "notin", [crowd[0].id, crowd[4].id]),
    ]
    for filters in itertools.combinations(choices, 3):
        assert call(get_masters, ResultSpec(filters)) == _expected(crowd, *filters), filters
    assert call(get_masters, ResultSpec([choices[0], choices[1]])) == []


def _ordered(masters: list[MasterModel], order: list[str]) -> list[tuple[Any, ...]]:
    """What the fields to sort by are in the end, said in Python."""
    for one in reversed(order):
        field = one.removeprefix("-")
        masters = sorted(
            masters,
            key=lambda master: _comparable(getattr(master, field)),
            reverse=one.startswith("-"),
        )
    return _keys(masters, order)


def _keys(masters: list[MasterModel], order: list[str]) -> list[tuple[Any, ...]]:
    return [tuple(getattr(master, one.removeprefix("-")) for one in order) for master in masters]


FIELDS = ["id", "name", "active", "last_active"]
ORDERS = [
    *([f"{sign}{field}"] for sign in ("", "-") for field in FIELDS),
    *(
        [first, second]
        for first, second in itertools.permutations(
            ["active", "-active", "last_active", "-last_active", "name", "-name", "-id"], 2
        )
        if first.removeprefix("-") != second.removeprefix("-")
    ),
    ["active", "-last_active", "name"],
    ["-active", "last_active", "-id"],
    ["last_active", "last_active"],
]


def test_masters_are_ordered_by_any_fields_in_both_directions(
    call: Call, crowd: list[MasterModel]
) -> None:
    for order in ORDERS:
        found = call(get_masters, ResultSpec(order=order))
        assert sorted(one.id for one in found) == [one.id for one in crowd]
        assert _keys(found, order) == _ordered(crowd, order), order


def test_masters_are_paged(call: Call, crowd: list[MasterModel]) -> None:
    for limit, offset in itertools.product((None, 0, 1, 4, 100, 2**70), (None, 0, 1, 8, 9, 2**70)):
        end = None if limit is None else (offset or 0) + limit
        found = call(get_masters, ResultSpec(limit=limit, offset=offset))
        assert found == crowd[offset or 0 : end], (limit, offset)


def test_pages_of_masters_that_are_alike_neither_overlap_nor_leave_gaps(
    call: Call, crowd: list[MasterModel]
) -> None:
    for order in (["active"], ["-active"], ["last_active"], ["-last_active"], ["active", "-name"]):
        pages = [
            call(get_masters, ResultSpec(order=order, limit=2, offset=offset))
            for offset in range(0, 10, 2)
        ]
        whole = [one for page in pages for one in page]
        assert whole == call(get_masters, ResultSpec(order=order))
        assert len(whole) == len(crowd)


def test_the_designs_own_example_of_a_page(call: Call, crowd: list[MasterModel]) -> None:
    spec = ResultSpec(
        filters=[Filter("active", "eq", [True])], order=["-last_active"], limit=2, offset=1
    )
    assert [one.name for one in call(get_masters, spec)] == ["a\u0301", "b"]


def test_who_pages_by_id_meets_everybody_once_while_others_join_and_leave(
    call: Call, crowd: list[MasterModel], second: Any
) -> None:
    joined: list[int] = []
    seen: list[int] = []
    while True:
        spec = ResultSpec([Filter("id", "gt", [seen[-1] if seen else 0])], limit=3)
        page = call(get_masters, spec)
        seen += [one.id for one in page]
        if len(page) < 3:
            break
        if len(joined) < 10:
            joined += [find_master_id(second, f"new {len(seen)} {number}") for number in range(2)]
        # One that was met already leaves: by offset, the next page would begin one too late.
        set_master_state(second, seen[-3], False)
        assert forget_master(second, seen[-3]) is True
    assert seen == [one.id for one in crowd] + joined
    assert len(joined) == 10


LEGAL_OPERATORS = "it can by eq, ne, lt, le, gt, ge, in, notin"
LEGAL_FIELDS = "there are id, name, active, last_active"


REFUSED: list[tuple[ResultSpec, str]] = [
    (ResultSpec([Filter("nam", "eq", ["a"])]), f"no field 'nam'; {LEGAL_FIELDS}"),
    (ResultSpec([Filter("incarnation", "eq", [1])]), f"'incarnation'; {LEGAL_FIELDS}"),
    (ResultSpec([Filter("", "eq", [1])]), f"no field ''; {LEGAL_FIELDS}"),
    (ResultSpec([Filter("-id", "eq", [1])]), f"no field '-id'; {LEGAL_FIELDS}"),
    (ResultSpec([Filter("id; DROP TABLE x", "eq", [1])]), LEGAL_FIELDS),
    (ResultSpec([Filter(["id"], "eq", [1])]), LEGAL_FIELDS),  # type: ignore[arg-type]
    (ResultSpec([Filter(None, "eq", [1])]), LEGAL_FIELDS),  # type: ignore[arg-type]
    (ResultSpec([Filter("name", "like", ["a"])]), f"by 'like'; {LEGAL_OPERATORS}, contains"),
    (ResultSpec([Filter("name", "EQ", ["a"])]), f"by 'EQ'; {LEGAL_OPERATORS}, contains"),
    (ResultSpec([Filter("name", "", ["a"])]), f"by ''; {LEGAL_OPERATORS}, contains"),
    (
        ResultSpec([Filter("name", ["eq"], ["a"])]),  # type: ignore[arg-type]
        f"by ['eq']; {LEGAL_OPERATORS}, contains",
    ),
    (ResultSpec([Filter("id", "contains", [1])]), f"by 'contains'; {LEGAL_OPERATORS}"),
    (ResultSpec([Filter("active", "contains", [True])]), f"'contains'; {LEGAL_OPERATORS}"),
    (
        ResultSpec([Filter("last_active", "contains", [EPOCH])]),
        f"'contains'; {LEGAL_OPERATORS}",
    ),
    (ResultSpec([Filter("id", "eq", ["1"])]), "'1' is no value for id: it takes an int"),
    (ResultSpec([Filter("id", "eq", [True])]), "True is no value for id: it takes an int"),
    (ResultSpec([Filter("id", "in", [1, 1.0])]), "1.0 is no value for id: it takes an int"),
    (ResultSpec([Filter("id", "eq", [None])]), "None is no value for id: it takes an int"),
    (ResultSpec([Filter("name", "eq", [1])]), "1 is no value for name: it takes a str"),
    (ResultSpec([Filter("name", "contains", [b"a"])]), "no value for name: it takes a str"),
    (ResultSpec([Filter("name", "eq", ["\ud800"])]), "is no value for name"),
    (ResultSpec([Filter("active", "eq", [1])]), "1 is no value for active: it takes a bool"),
    (ResultSpec([Filter("active", "eq", ["yes"])]), "for active: it takes a bool"),
    (
        ResultSpec([Filter("last_active", "gt", [datetime(2020, 1, 1)])]),  # noqa: DTZ001
        "for last_active: it takes an aware datetime, such as datetime.now(timezone.utc)",
    ),
    (ResultSpec([Filter("last_active", "gt", [0])]), "last_active: it takes a datetime"),
    (ResultSpec([Filter("last_active", "gt", ["2020-01-01"])]), "it takes a datetime"),
    (ResultSpec([Filter("last_active", "gt", [EPOCH.date()])]), "it takes a datetime"),
    (ResultSpec([Filter("name", "eq", "a")]), "takes a list of values, not 'a'"),
    (ResultSpec([Filter("name", "eq", None)]), "a list of values"),  # type: ignore[arg-type]
    (ResultSpec([Filter("id", "eq", 1)]), "a list of values, not 1"),  # type: ignore[arg-type]
    (ResultSpec([Filter("id", "in", {1})]), "a list of values, not {1}"),  # type: ignore[arg-type]
    (ResultSpec([Filter("name", "lt", ["a", "b"])]), "lt of name takes one value, not 2"),
    (ResultSpec([Filter("id", "ge", [])]), "ge of id takes one value, not 0"),
    (ResultSpec(order=["name DESC"]), f"no field 'name DESC'; {LEGAL_FIELDS}"),
    (ResultSpec(order=["--name"]), f"no field '-name'; {LEGAL_FIELDS}"),
    (ResultSpec(order=["+name"]), f"no field '+name'; {LEGAL_FIELDS}"),
    (ResultSpec(order=["-"]), f"no field ''; {LEGAL_FIELDS}"),
    (ResultSpec(order=[1]), "an order is a field's name, not 1"),  # type: ignore[list-item]
    (ResultSpec(order="name"), "list of fields' names, not 'name'"),
    (ResultSpec(order=None), "list of fields' names, not None"),  # type: ignore[arg-type]
    (
        ResultSpec(Filter("id", "eq", [1])),  # type: ignore[arg-type]
        "filters is a list of Filters, not Filter(",
    ),
    (ResultSpec(None), "filters is a list of Filters, not None"),  # type: ignore[arg-type]
    (ResultSpec(limit=-1), "limit is an int from 0 on, not -1"),
    (ResultSpec(limit=1.0), "limit is an int from 0 on"),  # type: ignore[arg-type]
    (ResultSpec(limit="1"), "limit is an int from 0 on"),  # type: ignore[arg-type]
    (ResultSpec(offset=True), "offset is an int from 0 on, not True"),
    (ResultSpec(offset=-(2**80)), "offset is an int from 0 on"),
]


def test_what_cannot_be_asked_for_is_a_value_error_that_says_what_can(
    watched: Watched, call: Call
) -> None:
    call(get_masters)
    watched.statements.clear()
    for spec, message in REFUSED:
        with pytest.raises(InvalidResultSpecError) as raised:
            call(get_masters, spec)
        assert isinstance(raised.value, ValueError)
        assert message in str(raised.value)
    assert watched.statements == []


def test_what_is_no_result_spec_or_no_filter_is_a_type_error(call: Call) -> None:
    specs: list[Any] = [1, "active", [], {}, Filter("id", "eq", [1]), ResultSpec]
    for spec in specs:
        with pytest.raises(InvalidTypeError, match="a resultSpec is a ResultSpec, not"):
            call(get_masters, spec)
    others: list[Any] = [("id", "eq", [1]), "id", None, {"field": "id"}]
    for one in others:
        with pytest.raises(InvalidTypeError, match="a filter is a Filter, not"):
            call(get_masters, ResultSpec([one]))


# --- All masters active long time ago ---


def test_all_masters_are_active_and_last_seen_at_the_epoch(
    call: Call, crowd: list[MasterModel], second: Any
) -> None:
    before = {one.id: _incarnation(second, one.id) for one in crowd}
    assert call(set_all_masters_active_long_time_ago) is None
    assert get_masters(second) == [MasterModel(one.id, one.name, True, EPOCH) for one in crowd]
    for one in crowd:
        assert _incarnation(second, one.id) == before[one.id] + (not one.active)


def test_the_next_look_expires_them_all(call: Call, crowd: list[MasterModel], second: Any) -> None:
    # Whatever they say themselves: nobody's number reaches back to 1970.
    for seconds, one in zip((1, 600, 86_400, 10**9), crowd, strict=False):
        _give_own_number(second, one.id, seconds)
    call(set_all_masters_active_long_time_ago)
    expired = call(expire_masters, 10**9)
    assert sorted(expired, key=lambda one: one.id) == get_masters(second)
    assert not any(one.active for one in get_masters(second))
    assert len(expired) == len(crowd)


def test_without_masters_there_is_nothing_to_do_for_those_who_do_it_to_all(call: Call) -> None:
    assert call(set_all_masters_active_long_time_ago) is None
    assert call(expire_masters) == []
    assert call(get_masters) == []


@pytest.mark.parametrize("change", [set_master_state, set_all_masters_active_long_time_ago])
def test_each_change_is_one_heartbeat_and_only_from_inactive_an_incarnation(
    call: Call, second: Any, change: Callable[..., Any]
) -> None:
    masterid = call(find_master_id, "host:/base")
    _set(second, masterid, "incarnation = 5, heartbeats = 9")
    arguments = (masterid, True) if change is set_master_state else ()
    call(change, *arguments)
    assert _row(second, masterid, "incarnation, heartbeats") == (6, 10)
    call(change, *arguments)
    assert _row(second, masterid, "incarnation, heartbeats") == (6, 11)


# --- Expiry ---


#: A master's own number, the argument, how long it was silent, and whether that is too long.
SILENCES: list[tuple[int | None, tuple[float | None, ...], float, bool]] = [
    (None, (), 500, False),
    (None, (), 601, True),
    (None, (None,), 500, False),
    (None, (None,), 601, True),
    (None, (1000,), 800, False),
    (None, (1000.0,), 1001, True),
    (None, (100,), 101, True),
    (None, (0,), 0, True),
    (None, (0.25,), 0.3, True),
    (None, (10**9,), 10**8, False),
    (100, (), 101, True),
    (100, (10**6,), 101, True),
    (1000, (), 800, False),
    (1000, (1,), 800, False),
    (1000, (0,), 800, False),
    (1000, (None,), 1001, True),
]


def test_too_long_is_its_own_number_else_the_argument_else_600_seconds(
    call: Call, second: Any
) -> None:
    for own, argument, silent, expires in SILENCES:
        masterid = call(find_master_id, f"{own} {argument} {silent}")
        call(set_master_state, masterid, True)
        if own is not None:
            _give_own_number(second, masterid, own)
        _silence(second, masterid, silent)
        case = (own, argument, silent)
        assert [one.id for one in call(expire_masters, *argument)] == [masterid] * expires, case
        assert _is_active(second, masterid) is not expires, case
        set_master_state(second, masterid, False)


def test_where_nobody_is_overdue_a_look_is_one_statement(
    watched: Watched, call: Call, second: Any
) -> None:
    names = ("seen", "seen with its own", "away", "away with its own", "expired", "left")
    ids = {name: find_master_id(second, name) for name in names}
    for name, masterid in ids.items():
        set_master_state(second, masterid, True)
        if name not in ("seen", "away"):
            _give_own_number(second, masterid, 1000)
        if not name.startswith("seen"):
            _silence(second, masterid, 10**6)
    for name in ("away", "away with its own"):
        set_master_state(second, ids[name], False)
    leave_place(adapt(second), Place(ids["left"], 1))
    assert [one.name for one in call(expire_masters)] == ["expired"]
    watched.statements.clear()
    assert call(expire_masters) == []
    assert len(watched.statements) == 1


def test_what_is_no_length_of_time_expires_nobody(
    watched: Watched, call: Call, masterid: int, second: Any
) -> None:
    _silence(second, masterid, 10**8)
    watched.statements.clear()
    numbers = [
        float("nan"),
        float("inf"),
        float("-inf"),
        -1,
        -1e-9,
        10**9 + 1,
        10**400,
        -(10**5000),
    ]
    others = ["600", b"600", True, False, [600], {}, timedelta(seconds=600), 600j]
    for error, refused in ((ValueError, numbers), (TypeError, others)):
        for expire_after in refused:
            with pytest.raises(error, match="expire_after is"):
                call(expire_masters, expire_after)
    assert watched.statements == []
    assert _is_active(second, masterid) is True


def test_the_expired_are_returned_as_they_are_now(call: Call, second: Any) -> None:
    ids = [call(find_master_id, name) for name in ("gone", "é😀 ", "alive", "away")]
    for masterid in ids[:3]:
        call(set_master_state, masterid, True)
    _silence(second, ids[0], 700)
    _silence(second, ids[1], 800)
    before = get_masters(second)
    expired = call(expire_masters)
    assert expired == [MasterModel(one.id, one.name, False, one.last_active) for one in before[:2]]
    assert get_masters(second) == [*expired, *before[2:]]


def test_what_the_expired_held_is_free(call: Call, masterid: int, second: Any) -> None:
    alive = call(find_master_id, "alive")
    call(set_master_state, alive, True)
    kept = call(claim, alive, "scheduler", "alive's")
    for name in "abc":
        call(claim, masterid, "scheduler", name)
    _silence(second, masterid, 700)
    assert [one.id for one in call(expire_masters)] == [masterid]
    assert get_claims(second) == [kept]
    assert claim(second, alive, "scheduler", "a").token > 1


def test_an_expiry_and_its_links_end_are_one_transaction(
    watched: Watched, call: Call, masterid: int, second: Any
) -> None:
    held = call(claim, masterid, "scheduler", "nightly")
    _silence(second, masterid, 700)

    watched.plan("UPDATE statedb_claims", fail)
    with pytest.raises((Planned, DatabaseError), match="as planned"):
        call(expire_masters)
    assert watched.done
    assert _is_active(second, masterid) is True
    assert get_claims(second) == [held]
    assert [one.id for one in call(expire_masters)] == [masterid]


def test_nobody_is_expired_twice(call: Call, masterid: int, second: Any) -> None:
    _silence(second, masterid, 700)
    assert len(call(expire_masters)) == 1
    assert call(expire_masters) == []
    assert call(expire_masters, 0) == []
    call(set_master_state, masterid, True)
    assert len(call(expire_masters, 0)) == 1


def test_of_many_who_look_at_once_each_expiry_is_told_to_one(
    db: Database, application: Connect, second: Any
) -> None:
    ids = {db.masters.thdFindMasterId(f"host{number}") for number in range(40)}
    patience: dict[str, Any] = {}
    if hasattr(second, "interrupt"):
        patience = {"timeout": 60}  # sqlite3 waits for five seconds otherwise
    own = {number: application(autocommit=True, **patience) for number in range(0, 9, 3)}

    def look(number: int) -> list[MasterModel]:
        if number in own:
            return expire_masters(own[number])
        if number % 3 == 1:
            return db.masters.thdExpireMasters()
        return db.masters.expireMasters().result(timeout=60)

    for _ in range(5):
        second.cursor().execute("UPDATE statedb_masters SET active = 1, last_active = 0")
        told = [one.id for reports in _together(look, 9) for one in reports]
        # Nobody waits, so all may have left one to each other; the next look finds it.
        told += [one.id for one in expire_masters(second)]
        assert sorted(told) == sorted(ids)


@pytest.fixture
def six_hundred(db: Database, second: Any) -> list[int]:
    with db.transaction() as conn:
        ids = [find_master_id(conn, f"host{number}") for number in range(600)]
    second.cursor().execute("UPDATE statedb_masters SET active = 1, incarnation = 1")
    for number in (0, 255, 256, 511, 512, 599):
        claim(second, ids[number], "scheduler", f"s{number}")
    second.cursor().execute("UPDATE statedb_masters SET last_active = id")
    return ids


def test_six_hundred_masters_are_expired_in_one_call(
    call: Call, six_hundred: list[int], second: Any
) -> None:
    expired = call(expire_masters)
    assert [one.id for one in expired] == six_hundred
    assert expired == get_masters(second)
    assert not any(one.active for one in expired)
    assert get_claims(second) == []


def test_one_of_six_hundred_that_cannot_be_expired_keeps_all_from_it(
    watched: Watched, call: Call, six_hundred: list[int], second: Any
) -> None:
    def fail_at_the_second_part() -> None:
        watched.plan("UPDATE statedb_claims", fail)

    watched.plan("UPDATE statedb_claims", fail_at_the_second_part)
    with pytest.raises((Planned, DatabaseError), match="as planned"):
        call(expire_masters)
    assert watched.done
    assert all(one.active for one in get_masters(second))
    assert len(get_claims(second)) == 6


def test_a_check_in_that_commits_first_saves_its_master(
    engine: Engine, watched: Watched, call: Call, masterid: int, second: Any
) -> None:
    other = call(find_master_id, "other")
    call(set_master_state, other, True)
    for one in (masterid, other):
        _silence(second, one, 700)
    # Between our looking who is overdue and our locking them.
    watched.plan(
        "BEGIN" if engine.name == "sqlite" else "FOR UPDATE SKIP LOCKED",
        lambda: set_master_state(second, masterid, True),
    )
    assert [one.id for one in call(expire_masters)] == [other]
    assert watched.done
    assert _is_active(second, masterid) is True


def _lock_the_master(own: Any, held: Claim) -> None:
    own.cursor().execute(f"SELECT id FROM statedb_masters WHERE id = {held.masterid} FOR UPDATE")


def _check_in(own: Any, held: Claim) -> None:
    own.cursor().execute(
        f"UPDATE statedb_masters SET heartbeats = heartbeats + 1 WHERE id = {held.masterid}"
    )


def _claim_more(own: Any, held: Claim) -> None:
    claim(own, held.masterid, held.kind, "another")


def _release(own: Any, held: Claim) -> None:
    assert release(own, held.masterid, held.kind, held.name) is True


@pytest.mark.parametrize(
    "lock",
    [hold_claim, _lock_the_master, _check_in, _claim_more, _release],
    ids=lambda one: one.__name__,
)
def test_what_somebody_has_locked_is_left_for_the_next_round(
    engine: Engine,
    call: Call,
    masterid: int,
    application: Connect,
    second: Any,
    lock: Callable[[Any, Claim], None],
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's only lock is on the database: expiry waits for that")
    other = call(find_master_id, "other")
    call(set_master_state, other, True)
    held = call(claim, masterid, "scheduler", "nightly")
    call(claim, masterid, "scheduler", "free to lock")
    call(claim, other, "scheduler", "other's")
    for one in (masterid, other):
        _silence(second, one, 700)
    frozen = application()
    lock(frozen, held)
    # Nobody ends the transaction of the frozen one meanwhile: to wait would be to wait for ever.
    assert [one.id for one in call(expire_masters)] == [other]
    assert _is_active(second, masterid) is True
    assert {one.masterid for one in get_claims(second)} == {masterid}
    frozen.rollback()
    assert [one.id for one in call(expire_masters)] == [masterid]
    assert get_claims(second) == []


# --- Forgetting ---


def test_an_inactive_master_is_forgotten(call: Call, second: Any) -> None:
    kept = call(find_master_id, "kept")
    masterid = call(find_master_id, "host:/base")
    assert call(forget_master, masterid) is True
    assert get_master(second, masterid) is None
    assert [one.id for one in get_masters(second)] == [kept]
    assert call(forget_master, masterid) is False
    assert call(get_master, masterid) is None


def test_an_active_master_is_not_forgotten(call: Call, masterid: int, second: Any) -> None:
    held = call(claim, masterid, "scheduler", "nightly")
    before = get_master(second, masterid)
    with pytest.raises(MasterActiveError, match=f"master {masterid} is active") as raised:
        call(forget_master, masterid)
    assert isinstance(raised.value, ValueError)
    assert get_master(second, masterid) == before
    assert get_claims(second) == [held]


def test_an_expired_master_can_be_forgotten(call: Call, masterid: int, second: Any) -> None:
    call(claim, masterid, "scheduler", "nightly")
    call(expire_masters, 0)
    assert call(forget_master, masterid) is True
    assert get_masters(second) == []
    assert get_claims(second) == []


# --- Order ---


def test_futures_on_one_master_are_done_in_the_order_in_which_they_were_submitted(
    db: Database, second: Any
) -> None:
    masterid = db.masters.thdFindMasterId("host:/base")
    masters = db.masters
    for turn in range(20):
        futures: list[Future[Any]] = [
            masters.setMasterState(masterid, True),
            masters.claim(masterid, "scheduler", "nightly"),
            masters.getClaims(masterid),
            masters.release(masterid, "scheduler", "nightly"),
            masters.getClaims(masterid),
            masters.claim(masterid, "scheduler", "nightly"),
            masters.getClaims(),
            masters.getMaster(masterid),
            masters.setMasterState(masterid, False),
            masters.getClaims(masterid),
            masters.getClaims(),
            masters.getMasters(),
        ]
        results: list[Any] = [future.result(timeout=60) for future in futures]
        first = Claim("scheduler", "nightly", masterid, 2 * turn + 1)
        again = Claim("scheduler", "nightly", masterid, 2 * turn + 2)
        assert results[:7] == [True, first, [first], True, [], again, [again]]
        assert results[7].active is True
        assert results[8:11] == [True, [], []]
        assert [one.active for one in results[11]] == [False]
    assert get_claims(second) == []


def test_a_check_in_that_waits_lets_that_of_another_master_by(
    engine: Engine, db: Database, application: Connect
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's only lock is on the database: every check-in waits for that")
    masterid, other = map(db.masters.thdFindMasterId, ("host:/base", "other"))
    db.masters.thdSetMasterState(masterid, True)
    frozen = application()
    _lock_the_master(frozen, db.masters.thdClaim(masterid, "scheduler", "nightly"))
    waiting = db.masters.setMasterState(masterid, True)
    assert db.masters.setMasterState(other, True).result(timeout=20) is True
    assert not waiting.done()
    frozen.rollback()
    assert waiting.result(timeout=60) is False


def test_futures_on_all_masters_keep_their_place_among_those_on_one(
    db: Database, second: Any
) -> None:
    masterid = db.masters.thdFindMasterId("host:/base")
    masters = db.masters
    for _ in range(10):
        futures: list[Future[Any]] = [
            masters.setAllMastersActiveLongTimeAgo(),
            masters.claim(masterid, "scheduler", "nightly"),
            masters.expireMasters(),
            masters.getClaims(),
            masters.setMasterState(masterid, True),
            masters.expireMasters(),
            masters.setMasterState(masterid, False),
        ]
        _, _, expired, claims, changed, nobody, again = (
            future.result(timeout=60) for future in futures
        )
        assert [one.id for one in expired] == [masterid]
        assert (claims, changed, nobody, again) == ([], True, [], True)
    assert masters.forgetMaster(masterid).result(timeout=60) is True
    assert get_masters(second) == []
