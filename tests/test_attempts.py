"""Attempts, by made-up errors: what is tried again, when, and what the caller is told otherwise."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from statedb import attempts
from statedb.attempts import FIRST_WAIT, LONGEST_WAIT, TIME_TO_CONNECT, Attempts
from statedb.connection import Connection
from statedb.dialects import Dialect, Failure
from statedb.dialects.sqlite import DIALECT
from statedb.errors import (
    CallTimeoutError,
    ConflictError,
    DatabaseError,
    InvalidValueError,
    OutcomeUnknownError,
    PoolClosedError,
)
from statedb.operation import operation
from statedb.pool import Pool

pytestmark = pytest.mark.once

TIMEOUT = 10.0
NOW = 1_000.0


class _Met(Exception):
    """A driver's error, which says itself what it means."""

    def __init__(
        self, failure: Failure | None, *, spoils: bool = False, lasting: bool = False
    ) -> None:
        super().__init__("it happened")
        self.failure = failure
        self.spoils = spoils
        self.lasting = lasting


def _dialect(least_lock_wait: float = 0.0) -> Dialect:
    return dataclasses.replace(
        DIALECT,
        failure=lambda error: getattr(error, "failure", None),
        spoils=lambda error: getattr(error, "spoils", False),
        is_lasting=lambda target, raw, error: getattr(error, "lasting", False),
        remedy=lambda error: "turn it off and on again" if str(error) == "dark" else None,
        least_lock_wait=least_lock_wait,
        in_memory=lambda target: False,
    )


def _pool(*, timeout: float = TIMEOUT, least_lock_wait: float = 0.0) -> Pool:
    """One that knows how it would connect, and never does."""
    dialect = _dialect(least_lock_wait)
    return Pool(
        dialect, "example://db", size=1, timeout=timeout, prepare=lambda conn: None, known={}
    )


@pytest.fixture(autouse=True)
def _no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "time", SimpleNamespace(monotonic=lambda: NOW))


@pytest.fixture
def pool() -> Pool:
    return _pool()


@pytest.fixture
def conn() -> Iterator[Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        yield Connection(raw, _dialect())


@operation(reads=True)
def reads(conn: Connection) -> None:
    raise AssertionError("nobody runs it")


@operation(repeatable=True)
def writes_repeatably(conn: Connection) -> None:
    raise AssertionError("nobody runs it")


@operation()
def writes_once(conn: Connection) -> None:
    raise AssertionError("nobody runs it")


def of_a_user(conn: Connection) -> None:
    raise AssertionError("nobody runs it")


FUNCTIONS = (reads, writes_repeatably, writes_once, of_a_user)
Function = Callable[[Connection], None]


def _begin(
    function: Function, pool: Pool, left: float = TIMEOUT, *, in_doubt: bool = False
) -> Attempts:
    return Attempts(function, pool, NOW + left, in_doubt)


def _meet(
    attempts: Attempts,
    conn: Connection | None,
    error: Exception,
    *,
    in_doubt: bool = False,
    committed: bool = False,
) -> None:
    """A try that meets an error, which its connection has noted."""
    if conn is not None:
        conn.error, conn.in_doubt, conn.committed = error, in_doubt, committed
    attempts.failed(error, conn)


# --- What is tried again ---


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("failure", list(Failure))
def test_what_has_surely_changed_nothing_is_tried_again(
    function: Function, failure: Failure, pool: Pool, conn: Connection
) -> None:
    one = _begin(function, pool)
    _meet(one, conn, _Met(failure))
    assert not one.in_doubt
    assert pool.chronicle.stats() == {
        "operations": 0,
        "failures": 0,
        "reconnects": 0,
        "retries": 1,
    }


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("left", [TIMEOUT, 0.0])
def test_what_waiting_does_not_mend_is_told_at_once(
    left: float, function: Function, pool: Pool, conn: Connection
) -> None:
    error = _Met(None)
    with pytest.raises(DatabaseError) as raised:
        _meet(_begin(function, pool, left), conn, error)
    assert type(raised.value) is DatabaseError
    assert raised.value.__cause__ is error
    assert str(raised.value) == (f"{function.__name__} failed in example://db: _Met: it happened")
    assert pool.chronicle.stats()["failures"] == 1
    assert pool.chronicle.stats()["retries"] == 0


@pytest.mark.parametrize("function", [reads, writes_repeatably])
def test_a_lost_answer_is_asked_for_again_where_that_does_no_harm(
    function: Function, pool: Pool, conn: Connection
) -> None:
    one = _begin(function, pool)
    _meet(one, conn, _Met(Failure.LOST), in_doubt=True)
    assert one.in_doubt == (function is not reads)


@pytest.mark.parametrize("function", [writes_once, of_a_user])
@pytest.mark.parametrize("before", [{"in_doubt": True}, {"committed": True}])
@pytest.mark.parametrize("failure", list(Failure))
def test_what_may_have_been_done_is_not_done_again_where_that_would_do_harm(
    function: Function, before: dict[str, bool], failure: Failure, pool: Pool, conn: Connection
) -> None:
    error = _Met(failure)
    with pytest.raises(OutcomeUnknownError, match=f"the answer to {function.__name__} was") as told:
        _meet(_begin(function, pool), conn, error, **before)
    assert told.value.__cause__ is error


def test_what_is_committed_already_stays_so_where_a_later_statement_cannot_succeed(
    pool: Pool, conn: Connection
) -> None:
    with pytest.raises(DatabaseError) as raised:
        _meet(_begin(of_a_user, pool), conn, _Met(None), committed=True)
    assert type(raised.value) is DatabaseError


def test_what_is_repeatable_is_repeated_though_a_part_is_committed(
    pool: Pool, conn: Connection
) -> None:
    one = _begin(writes_repeatably, pool)
    _meet(one, conn, _Met(Failure.BUSY), committed=True)
    assert not one.in_doubt


def test_what_is_done_but_may_not_last_is_not_found_and_taken_for_good(
    pool: Pool, conn: Connection
) -> None:
    with pytest.raises(OutcomeUnknownError):
        _meet(_begin(writes_repeatably, pool), conn, _Met(Failure.UNSETTLED), in_doubt=True)


def test_a_doubt_stays_through_all_tries(pool: Pool, conn: Connection) -> None:
    one = _begin(writes_repeatably, pool)
    _meet(one, conn, _Met(Failure.LOST), in_doubt=True)
    _meet(one, conn, _Met(Failure.BUSY))
    assert one.in_doubt
    with pytest.raises(OutcomeUnknownError):
        _meet(one, conn, _Met(None))


# --- For how long ---


@pytest.mark.parametrize(("least_lock_wait", "needed"), [(0.0, 0.1), (1.0, 1.1)])
@pytest.mark.parametrize("failure", [Failure.BUSY, Failure.CONFLICT])
def test_a_lock_is_waited_for_once_more_where_the_server_has_time_to_answer(
    failure: Failure, least_lock_wait: float, needed: float, conn: Connection
) -> None:
    pool = _pool(least_lock_wait=least_lock_wait)
    _meet(_begin(reads, pool, needed + 0.001), conn, _Met(failure))
    with pytest.raises(CallTimeoutError) as raised:
        _meet(_begin(reads, pool, needed - 0.001), conn, _Met(failure))
    assert str(raised.value) == (
        "reads did not get done within 10 s, in one try: _Met: it happened"
    )


@pytest.mark.parametrize(("timeout", "needed"), [(TIMEOUT, TIME_TO_CONNECT), (1.0, 0.2)])
@pytest.mark.parametrize("failure", [Failure.LOST, Failure.REFUSED])
def test_a_new_connection_is_asked_where_there_is_time_for_one(
    failure: Failure, timeout: float, needed: float, conn: Connection
) -> None:
    pool = _pool(timeout=timeout, least_lock_wait=3.0)
    _meet(_begin(reads, pool, needed + 0.001), conn, _Met(failure))
    with pytest.raises(CallTimeoutError, match=f"within {timeout:g} s, in one try"):
        _meet(_begin(reads, pool, needed - 0.001), conn, _Met(failure))


def test_who_runs_out_of_time_hears_how_often_it_was_tried(pool: Pool, conn: Connection) -> None:
    one = _begin(writes_repeatably, pool)
    for _ in range(2):
        _meet(one, conn, _Met(Failure.BUSY))
    one.deadline = NOW
    with pytest.raises(CallTimeoutError, match="in 3 tries: _Met: it happened"):
        _meet(one, conn, _Met(Failure.BUSY))


def test_who_runs_out_of_time_in_doubt_is_not_told_that_nothing_happened(
    pool: Pool, conn: Connection
) -> None:
    with pytest.raises(OutcomeUnknownError, match="the answer to writes_repeatably was lost"):
        _meet(_begin(writes_repeatably, pool, 0.0), conn, _Met(Failure.LOST), in_doubt=True)


def test_waits_are_drawn_below_bounds_that_double(
    pool: Pool, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []

    def longest(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", longest)
    one = _begin(reads, pool)
    waits = []
    for _ in range(20):
        _meet(one, conn, _Met(Failure.BUSY))
        waits.append(one.wait)
    assert waits == [min(LONGEST_WAIT, FIRST_WAIT * 2**tries) for tries in range(1, 21)]
    assert drawn == [(0, wait) for wait in waits]


def test_no_wait_takes_the_time_that_the_next_try_needs(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
    one = _begin(reads, _pool(least_lock_wait=1.0), left=1.5)
    _meet(one, conn, _Met(Failure.BUSY))
    assert one.wait == pytest.approx(0.4)


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.REFUSED])
def test_who_has_lost_the_server_while_it_is_closed_tries_no_more(
    failure: Failure, pool: Pool, conn: Connection
) -> None:
    one = _begin(reads, pool)
    one.closing = True
    with pytest.raises(DatabaseError) as raised:
        _meet(one, conn, _Met(failure))
    assert type(raised.value) is DatabaseError


def test_who_meets_a_lock_while_it_is_closed_goes_on(pool: Pool, conn: Connection) -> None:
    one = _begin(reads, pool)
    one.closing = True
    _meet(one, conn, _Met(Failure.BUSY))
    assert pool.chronicle.stats()["retries"] == 1


# --- Whose error it is ---


@pytest.mark.parametrize("in_doubt", [False, True])
def test_what_a_callers_own_code_raised_is_his(
    in_doubt: bool, pool: Pool, conn: Connection
) -> None:
    # Of the same driver's type, even.
    error = _Met(Failure.LOST)
    with pytest.raises(_Met) as raised:
        _begin(of_a_user, pool, in_doubt=in_doubt).failed(error, conn)
    assert raised.value is error
    assert pool.chronicle.stats()["operations"] == 1
    assert pool.chronicle.stats()["failures"] == 0


def test_an_error_of_ours_that_a_drivers_error_caused_is_judged_by_that(
    pool: Pool, conn: Connection
) -> None:
    conn.error = _Met(Failure.CONFLICT)
    ours = DatabaseError("told in other words")
    ours.__cause__ = conn.error
    one = _begin(of_a_user, pool)
    one.failed(ours, conn)
    assert pool.chronicle.stats()["retries"] == 1
    # Another error's cause is what its raiser was dealing with.
    other = InvalidValueError("not this")
    other.__cause__ = conn.error
    with pytest.raises(InvalidValueError, match="not this"):
        one.failed(other, conn)


@pytest.mark.parametrize("in_doubt", [False, True])
@pytest.mark.parametrize("kind", [CallTimeoutError, PoolClosedError])
def test_who_gets_no_connection_is_told_so_unless_an_earlier_try_is_in_doubt(
    kind: type[Exception], in_doubt: bool, pool: Pool
) -> None:
    with pytest.raises(OutcomeUnknownError if in_doubt else kind, match="none was free") as raised:
        _begin(reads, pool, in_doubt=in_doubt).failed(kind("none was free"))
    assert isinstance(raised.value, kind) or isinstance(raised.value.__cause__, kind)


def test_an_error_of_ours_that_comes_of_no_wait_is_told_though_an_earlier_try_is_in_doubt(
    pool: Pool,
) -> None:
    with pytest.raises(InvalidValueError):
        _begin(reads, pool, in_doubt=True).failed(InvalidValueError("not this"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_who_cannot_connect_is_told_whereto(function: Function, pool: Pool) -> None:
    with pytest.raises(DatabaseError, match="failed: cannot open example://db: _Met: it happened"):
        _begin(function, pool).failed(_Met(None))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_who_cannot_connect_yet_tries_again(function: Function, pool: Pool) -> None:
    one = _begin(function, pool)
    one.failed(_Met(Failure.REFUSED))
    one.deadline = NOW
    with pytest.raises(CallTimeoutError, match="in 2 tries: cannot open example://db: _Met: it"):
        one.failed(_Met(Failure.REFUSED))


def test_an_error_says_what_to_do_about_it(pool: Pool, conn: Connection) -> None:
    with pytest.raises(DatabaseError, match="ValueError: dark; turn it off and on again"):
        _meet(_begin(reads, pool), conn, ValueError("dark"))


# --- Whether it is the connection's fault ---


@pytest.mark.parametrize(
    ("function", "committed"),
    [(of_a_user, False), (writes_repeatably, False), (writes_repeatably, True), (reads, False)],
)
def test_what_a_connection_may_be_at_fault_for_is_tried_once_on_another_at_once(
    function: Function, committed: bool, pool: Pool, conn: Connection
) -> None:
    one = _begin(function, pool, 0.0)
    _meet(one, conn, _Met(None, spoils=True), committed=committed)
    assert one.wait == 0.0
    with pytest.raises(DatabaseError):
        _meet(one, conn, _Met(None, spoils=True), committed=committed)


def test_a_users_function_that_has_committed_is_not_done_anew_on_another_connection(
    pool: Pool, conn: Connection
) -> None:
    with pytest.raises(DatabaseError):
        _meet(_begin(of_a_user, pool), conn, _Met(None, spoils=True), committed=True)


def test_who_could_not_even_connect_has_no_connection_that_could_be_at_fault(pool: Pool) -> None:
    with pytest.raises(DatabaseError):
        _begin(reads, pool).failed(_Met(None, spoils=True))


def test_a_refusal_that_will_stay_is_told_at_once(pool: Pool, conn: Connection) -> None:
    with pytest.raises(DatabaseError, match="reads failed in example://db: _Met: it happened"):
        _meet(_begin(reads, pool), conn, _Met(Failure.REFUSED, lasting=True))
    # It is asked about refusals, and of a connection that there is.
    _meet(_begin(reads, pool), conn, _Met(Failure.LOST, lasting=True))
    _begin(reads, pool).failed(_Met(Failure.REFUSED, lasting=True))
    assert pool.chronicle.stats()["retries"] == 2


def test_a_conflict_that_may_not_be_tried_again_is_one_for_its_caller() -> None:
    error = attempts.database_error(reads, _dialect(), None, _Met(Failure.CONFLICT))
    assert type(error) is ConflictError
    assert str(error) == "reads failed: _Met: it happened"
    assert type(attempts.database_error(reads, _dialect(), None, _Met(None))) is DatabaseError


def test_a_function_without_a_name_is_shown() -> None:
    class Nameless:
        def __call__(self, conn: Any) -> None: ...

        def __repr__(self) -> str:
            return "<nameless>"

    assert attempts.name_of(Nameless()) == "<nameless>"
