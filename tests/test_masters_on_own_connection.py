"""The masters' direct functions on an application's own connection, whatever its settings."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from engines import Engine
from interposed import interpose, watch
from test_application_connection import _odd_settings, _prepare_oddly

from statedb import (
    AlreadyClaimedError,
    Claim,
    ClaimLostError,
    Filter,
    InvalidNameError,
    InvalidResultSpecError,
    InvalidTypeError,
    MasterActiveError,
    MasterLostError,
    ResultSpec,
    UnusableConnectionError,
)
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

Connect = Callable[..., Any]
UNKNOWN = 987_654_321


def _is_postgresql(engine: Engine) -> bool:
    return engine.name.startswith("postgresql")


def _is_mysql(engine: Engine) -> bool:
    return engine.name.startswith(("mariadb", "mysql"))


def _be_impatient(engine: Engine, own: Any) -> None:
    postgresql = _is_postgresql(engine)
    own.cursor().execute(
        "SET lock_timeout = 500" if postgresql else "SET innodb_lock_wait_timeout = 1"
    )


@pytest.fixture
def masterid(second: Any) -> int:
    return _active(second, "host:/base")


@pytest.fixture
def rival(second: Any) -> int:
    return _active(second, "rival:/base")


def _active(own: Any, name: str) -> int:
    masterid = find_master_id(own, name)
    set_master_state(own, masterid, True)
    return masterid


def _silence(own: Any, masterid: int) -> None:
    own.cursor().execute(f"UPDATE statedb_masters SET last_active = 0 WHERE id = {masterid}")


def _own_rows(own: Any) -> list[str]:
    cursor = own.cursor()
    cursor.execute("SELECT name FROM own ORDER BY name")
    return [row[0] for row in cursor.fetchall()]


def _everything(own: Any) -> dict[str, Any]:
    """What is there, but for times and ids."""
    masters = {one.id: one for one in get_masters(own)}
    return {
        "masters": [(one.name, one.active) for one in masters.values()],
        "claims": [
            (one.kind, one.name, masters[one.masterid].name, one.token) for one in get_claims(own)
        ],
    }


def _write_everything(own: Any) -> None:
    """Every operation that writes, each with an effect."""
    masterid = find_master_id(own, "the application's")
    assert find_master_id(own, "the application's") == masterid
    assert set_master_state(own, masterid, True) is True
    assert set_master_state(own, masterid, True) is False
    held = claim(own, masterid, "scheduler", "nightly")
    assert claim(own, masterid, "scheduler", "nightly") == held
    other = find_master_id(own, "other")
    with pytest.raises(MasterLostError):
        claim(own, other, "scheduler", "weekly")
    assert set_master_state(own, other, True) is True
    with pytest.raises(AlreadyClaimedError):
        claim(own, other, "scheduler", "nightly")
    assert release(own, masterid, "scheduler", "nightly") is True
    assert release(own, masterid, "scheduler", "nightly") is False
    assert claim(own, other, "scheduler", "nightly").token > held.token
    assert set_master_state(own, other, False) is True
    assert forget_master(own, other) is True
    assert forget_master(own, other) is False
    again = claim(own, masterid, "scheduler", "nightly")
    assert get_claims(own, masterid) == [again]
    silent = find_master_id(own, "silent")
    assert set_master_state(own, silent, True) is True
    claim(own, silent, "scheduler", "silent's")
    _silence(own, silent)
    assert [(one.id, one.active) for one in expire_masters(own)] == [(silent, False)]


WRITTEN = {
    "masters": [("the application's", True), ("silent", False)],
    "claims": [("scheduler", "nightly", "the application's", 3)],
}
NOTHING: dict[str, Any] = {"masters": [], "claims": []}


# --- Whose transaction it is ---


@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
def test_what_is_written_ends_with_the_applications_transaction(
    application: Connect, own_table: None, second: Any, ends: str, begun: bool
) -> None:
    own = application()
    if begun:
        own.cursor().execute("INSERT INTO own VALUES ('before')")
    _write_everything(own)
    own.cursor().execute("INSERT INTO own VALUES ('later')")
    assert _everything(second) == NOTHING
    getattr(own, ends)()
    if ends == "commit":
        assert _everything(second) == WRITTEN
        assert _own_rows(second) == ["before"] * begun + ["later"]
    else:
        assert _everything(second) == NOTHING
        assert _own_rows(second) == []


#: What each operation writes first of all in a transaction, and whether it can be seen.
WRITES: dict[str, tuple[Callable[[Any, int], Any], Callable[[Any, int], bool]]] = {
    "find": (
        lambda own, masterid: find_master_id(own, "new"),
        lambda own, masterid: len(get_masters(own)) == 2,
    ),
    "set": (
        lambda own, masterid: set_master_state(own, masterid, False),
        lambda own, masterid: not get_masters(own)[0].active,
    ),
    "claim": (
        lambda own, masterid: claim(own, masterid, "scheduler", "new"),
        lambda own, masterid: len(get_claims(own)) == 2,
    ),
    "release": (
        lambda own, masterid: release(own, masterid, "scheduler", "nightly"),
        lambda own, masterid: get_claims(own) == [],
    ),
    "all active": (
        lambda own, masterid: set_all_masters_active_long_time_ago(own),
        lambda own, masterid: get_masters(own)[0].last_active.year == 1970,
    ),
    "expire": (
        lambda own, masterid: expire_masters(own, 0),
        lambda own, masterid: not get_masters(own)[0].active,
    ),
}


@pytest.mark.parametrize("what", WRITES)
def test_the_first_write_begins_the_transaction_that_the_driver_would_begin(
    application: Connect, masterid: int, second: Any, what: str
) -> None:
    write, is_seen = WRITES[what]
    claim(second, masterid, "scheduler", "nightly")
    own = application()
    for ends in (own.rollback, own.commit):
        write(own, masterid)
        assert is_seen(own, masterid)
        assert not is_seen(second, masterid)
        ends()
        assert is_seen(second, masterid) is (ends == own.commit)


def test_forgetting_first_of_all_is_undone_by_the_applications_rollback(
    application: Connect, second: Any
) -> None:
    masterid = find_master_id(second, "host:/base")
    own = application()
    assert forget_master(own, masterid) is True
    own.rollback()
    assert get_master(second, masterid) is not None
    assert forget_master(own, masterid) is True
    own.commit()
    assert get_master(second, masterid) is None


def test_in_autocommit_each_operation_is_a_transaction_of_its_own(
    application: Connect, second: Any
) -> None:
    _write_everything(application(autocommit=True))
    assert _everything(second) == WRITTEN


def test_within_a_transaction_begun_by_hand_in_autocommit_nothing_is_committed(
    application: Connect, second: Any
) -> None:
    own = application(autocommit=True)
    own.cursor().execute("BEGIN")
    _write_everything(own)
    assert _everything(own) == WRITTEN
    own.cursor().execute("ROLLBACK")
    assert _everything(second) == NOTHING


def test_within_a_savepoint_of_the_applications_only_that_is_undone(
    application: Connect, masterid: int, second: Any
) -> None:
    own = application(autocommit=True)
    cursor = own.cursor()
    cursor.execute("BEGIN")
    kept = claim(own, masterid, "scheduler", "kept")
    cursor.execute("SAVEPOINT the_application_s")
    claim(own, masterid, "scheduler", "undone")
    set_master_state(own, masterid, False)
    cursor.execute("ROLLBACK TO SAVEPOINT the_application_s")
    kept_too = claim(own, masterid, "scheduler", "kept too")
    cursor.execute("COMMIT")
    assert get_claims(second) == [kept, kept_too]


class Planned(Exception):
    """A fault in the midst of an operation."""


def _fail(sql: str) -> None:
    # The second or a later statement of what deactivates and of what expires.
    if "UPDATE statedb_claims" in sql:
        raise Planned


HALF_DONE: dict[str, Callable[[Any, int], Any]] = {
    "deactivation": lambda own, masterid: set_master_state(own, masterid, False),
    "expiry": lambda own, masterid: expire_masters(own, 0),
}


@pytest.mark.parametrize("what", HALF_DONE)
@pytest.mark.parametrize("mode", ["autocommit", "begun by hand", "implicit"])
def test_a_half_done_operation_is_undone_and_nothing_else(
    application: Connect, masterid: int, second: Any, own_table: None, what: str, mode: str
) -> None:
    held = claim(second, masterid, "scheduler", "nightly")
    own = application(autocommit=mode != "implicit")
    if mode == "begun by hand":
        own.cursor().execute("BEGIN")
    own.cursor().execute("INSERT INTO own VALUES ('before')")
    with watch(_fail), pytest.raises(Planned):
        HALF_DONE[what](own, masterid)
    found = get_master(own, masterid)
    assert found is not None
    assert found.active is True
    own.cursor().execute("INSERT INTO own VALUES ('later')")
    own.commit()
    found = get_master(second, masterid)
    assert found is not None
    assert found.active is True
    assert get_claims(second) == [held]
    assert _own_rows(second) == ["before", "later"]
    # And what it had locked it has let go.
    assert set_master_state(second, masterid, False) is True


@pytest.mark.parametrize("mode", ["begun by hand", "implicit"])
def test_an_error_of_ours_leaves_the_transaction_usable(
    application: Connect, own_table: None, masterid: int, rival: int, second: Any, mode: str
) -> None:
    held = claim(second, masterid, "scheduler", "nightly")
    lost = claim(second, masterid, "scheduler", "lost")
    release(second, masterid, "scheduler", "lost")
    inactive = find_master_id(second, "inactive")
    own = application(autocommit=mode != "implicit")
    if mode == "begun by hand":
        own.cursor().execute("BEGIN")
    own.cursor().execute("INSERT INTO own VALUES ('before')")
    assert find_master_id(own, "before") > 0
    failing: list[tuple[type[Exception], Callable[[], object]]] = [
        (AlreadyClaimedError, lambda: claim(own, rival, "scheduler", "nightly")),
        (MasterLostError, lambda: claim(own, inactive, "scheduler", "weekly")),
        (MasterLostError, lambda: claim(own, UNKNOWN, "scheduler", "weekly")),
        (MasterLostError, lambda: claim(own, rival, "scheduler", "weekly", incarnation=99)),
        (MasterActiveError, lambda: forget_master(own, masterid)),
        (ClaimLostError, lambda: hold_claim(own, lost)),
        (InvalidNameError, lambda: find_master_id(own, "")),
        (InvalidNameError, lambda: release(own, masterid, "", "")),
        (InvalidTypeError, lambda: set_master_state(own, masterid, 1)),  # type: ignore[arg-type]
        (ValueError, lambda: expire_masters(own, -1)),
        (InvalidResultSpecError, lambda: get_masters(own, ResultSpec(limit=-1))),
    ]
    for error, fail in failing:
        with pytest.raises(error):
            fail()
        own.cursor().execute("INSERT INTO own VALUES ('still usable')")
    later = claim(own, rival, "scheduler", "weekly")
    own.commit()
    assert get_claims(second) == [held, later]
    assert [one.name for one in get_masters(second)][-1] == "before"
    assert len(_own_rows(second)) == 1 + len(failing)


def test_an_error_of_ours_after_a_lost_race_leaves_the_transaction_usable(
    engine: Engine, application: Connect, own_table: None, masterid: int, rival: int, second: Any
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's one writer is the application: no rival can write meanwhile")
    own = application()
    own.cursor().execute("INSERT INTO own VALUES ('before')")
    won: list[Claim] = []
    with (
        interpose(
            "INSERT INTO statedb_claims",
            lambda: won.append(claim(second, rival, "scheduler", "nightly")),
        ),
        pytest.raises(AlreadyClaimedError),
    ):
        claim(own, masterid, "scheduler", "nightly")
    own.cursor().execute("INSERT INTO own VALUES ('later')")
    own.commit()
    assert _own_rows(second) == ["before", "later"]
    assert get_claims(second) == won


def test_in_a_transaction_that_has_failed_the_error_is_the_drivers(
    engine: Engine, application: Connect, masterid: int
) -> None:
    if not _is_postgresql(engine):
        pytest.skip("only PostgreSQL has transactions that can but be rolled back")
    own = application()
    with pytest.raises(Exception, match="no_such_table"):
        own.execute("SELECT * FROM no_such_table")
    for operation in (
        lambda: claim(own, masterid, "scheduler", "nightly"),
        lambda: set_master_state(own, masterid, False),
        lambda: hold_claim(own, Claim("scheduler", "nightly", masterid, 1)),
        lambda: expire_masters(own),
    ):
        with pytest.raises(Exception, match="current transaction is aborted"):
            operation()
    own.rollback()
    assert claim(own, masterid, "scheduler", "nightly").masterid == masterid
    own.rollback()


def test_a_pipeline_is_refused(engine: Engine, application: Connect, masterid: int) -> None:
    if not _is_postgresql(engine):
        pytest.skip("psycopg only")
    own = application(autocommit=True)
    with own.pipeline():
        for operation in (get_master, forget_master):
            with pytest.raises(UnusableConnectionError, match="pipeline mode"):
                operation(own, masterid)
    assert set_master_state(own, masterid, True) is False


# --- Settings ---


def test_the_isolation_level_is_the_applications(
    engine: Engine, application: Connect, second: Any
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite's only level is serializable")
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "READ UNCOMMITTED"):
        own = application()
        session = "SET SESSION CHARACTERISTICS AS" if _is_postgresql(engine) else "SET SESSION"
        own.cursor().execute(f"{session} TRANSACTION ISOLATION LEVEL {level}")
        own.commit()
        _write_everything(own)
        assert _everything(own) == WRITTEN
        own.commit()
        assert _everything(second) == WRITTEN
        for table in ("masters", "claims"):
            second.cursor().execute(f"DELETE FROM statedb_{table}")


def test_dict_rows_are_the_applications_own_matter(
    engine: Engine, application: Connect, second: Any
) -> None:
    if _is_postgresql(engine):
        from psycopg.rows import dict_row

        own = application(row_factory=dict_row)
    elif _is_mysql(engine):
        from pymysql.cursors import DictCursor

        own = application(cursorclass=DictCursor)
    else:
        own = application()
        own.row_factory = lambda cursor, row: {"the": "application's"}
    _write_everything(own)
    assert _everything(own) == WRITTEN
    hold_claim(own, get_claims(own)[0])
    assert len(get_masters(own, ResultSpec([Filter("name", "contains", ["app"])]))) == 1
    own.commit()
    assert _everything(second) == WRITTEN


def test_odd_settings_of_a_driver_change_nothing(engine: Engine, application: Connect) -> None:
    names = ["é😀'\\%s", "plain", "\\", "a'b\"c`"]
    for settings in _odd_settings(engine):
        own = application(**settings)
        _prepare_oddly(engine, own)
        _write_everything(own)
        assert _everything(own) == WRITTEN
        for name in names:
            masterid = _active(own, name)
            assert find_master_id(own, name) == masterid
            held = claim(own, masterid, name, name)
            assert get_claims(own, masterid, name) == [held]
            hold_claim(own, held)
            for operator in ("eq", "contains", "ge"):
                spec = ResultSpec([Filter("name", operator, [name])], order=["-id"], limit=1)
                assert get_masters(own, spec)[0].name == name
            now = get_masters(own, ResultSpec([Filter("id", "eq", [masterid])]))[0].last_active
            recent = Filter("last_active", "ge", [now - timedelta(microseconds=1)])
            assert masterid in [one.id for one in get_masters(own, ResultSpec([recent]))]
        own.rollback()


def test_whether_a_row_changed_does_not_depend_on_found_rows(
    engine: Engine, application: Connect, masterid: int, second: Any
) -> None:
    if not _is_mysql(engine):
        pytest.skip("only MySQL counts as changed what was changed, or what was found")
    from pymysql.constants import CLIENT

    for flag in (0, CLIENT.FOUND_ROWS):
        own = application(autocommit=True, client_flag=flag)
        # The clock stands still: what is written is what was there.
        own.cursor().execute("SET timestamp = 1700000000")
        results = [set_master_state(own, masterid, active) for active in (True, True, False, False)]
        assert results == [False, False, True, False]
        assert forget_master(own, UNKNOWN) is False
        assert release(own, masterid, "scheduler", "nightly") is False
        assert set_master_state(second, masterid, True) is True


def test_sqlite3s_converters_are_not_for_our_columns(
    engine: Engine, application: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.name != "sqlite":
        pytest.skip("sqlite3 only")

    def spoil(value: bytes) -> bytes:
        return b"spoilt"

    for kind in ("TEXT", "BLOB", "INTEGER", "INT", "BIGINT", "NUMERIC", "TIMESTAMP"):
        monkeypatch.setitem(sqlite3.converters, kind, spoil)
    own = application(detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES)
    masterid = _active(own, "host:/base")
    held = claim(own, masterid, "scheduler", "nightly")
    assert [one.name for one in get_masters(own)] == ["host:/base"]
    assert get_claims(own) == [held]
    hold_claim(own, held)
    own.rollback()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has `autocommit` from 3.12 on")
@pytest.mark.parametrize("mode", [True, False])
def test_sqlite3s_new_modes(engine: Engine, url: str, second: Any, mode: bool) -> None:
    if engine.name != "sqlite":
        pytest.skip("sqlite3 only")
    connect: Any = sqlite3.connect
    with contextlib.closing(connect(url.removeprefix("sqlite:///"), autocommit=mode)) as own:
        _write_everything(own)
        if not mode:
            assert _everything(second) == NOTHING
            hold_claim(own, get_claims(own)[0])
            own.commit()
    assert _everything(second) == WRITTEN


def test_the_sessions_time_zone_changes_no_time(
    engine: Engine, application: Connect, masterid: int, second: Any
) -> None:
    if engine.name == "sqlite":
        pytest.skip("SQLite knows no time zones")
    quoted = "SET TIME ZONE '{}'" if _is_postgresql(engine) else "SET time_zone = '{}'"
    before = None
    for zone in ("+00:00", "+13:00", "-11:30"):
        own = application(autocommit=True)
        own.cursor().execute(quoted.format(zone))
        set_master_state(own, masterid, True)
        found = get_master(own, masterid)
        assert found is not None
        assert found == get_master(second, masterid)
        assert found.last_active.utcoffset() == timedelta(0)
        if before is not None:
            assert timedelta(0) <= found.last_active - before < timedelta(minutes=10)
        before = found.last_active
        # Nor is anybody expired by the zone of who looks.
        assert expire_masters(own) == []
        spec = ResultSpec([Filter("last_active", "eq", [before])])
        assert [one.id for one in get_masters(own, spec)] == [masterid]


def test_a_daylight_saving_zone_of_the_session_changes_no_time(
    engine: Engine, application: Connect, masterid: int, second: Any
) -> None:
    if not _is_mysql(engine):
        pytest.skip("only MySQL's clock can be set for a session")
    own = application(autocommit=True)
    own.cursor().execute("SET time_zone = SYSTEM")
    # The hour that Berlin had twice.
    for moment in (1_698_537_600.25, 1_698_541_200.25):
        own.cursor().execute(f"SET timestamp = {moment}")
        set_master_state(own, masterid, True)
        found = get_master(second, masterid)
        assert found is not None
        # By the database's clock, as this session has it, and not by the host's.
        assert found.last_active.timestamp() == moment


# --- Snapshots ---


@pytest.fixture
def snapshot(engine: Engine, application: Connect) -> Connect:
    """A transaction of the application's whose plain reads see what was there when it began."""
    if engine.name == "sqlite":
        pytest.skip("on SQLite who has an old snapshot cannot write: see test_claims.py")

    def begin() -> Any:
        own = application(autocommit=True)
        _be_impatient(engine, own)
        if _is_postgresql(engine):
            own.cursor().execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        else:
            own.cursor().execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            own.cursor().execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        get_masters(own)
        get_claims(own)
        return own

    return begin


def _is_serialization_failure(error: Exception) -> bool:
    # 40001 is PostgreSQL's, 1020 that of MariaDB from 11.6 on.
    return getattr(error, "sqlstate", None) == "40001" or error.args[:1] == (1020,)


def _outcome(own: Any, operation: Callable[[], Any]) -> Any:
    """What an operation and the commit give, or None where the engine says: begin again."""
    try:
        result = operation()
        own.cursor().execute("COMMIT")
    except (AlreadyClaimedError, MasterLostError, ClaimLostError) as error:
        own.cursor().execute("COMMIT")
        return error
    except Exception as error:
        own.cursor().execute("ROLLBACK")
        if not _is_serialization_failure(error):
            raise
        return None
    return result


def _make(was: str, own: Any, masterid: int) -> None:
    if was == "free":
        claim(own, masterid, "scheduler", "nightly")
        release(own, masterid, "scheduler", "nightly")


@pytest.mark.parametrize("was", ["never claimed", "free"])
def test_who_claims_by_a_snapshot_what_a_rival_has_meanwhile_is_told_so(
    engine: Engine, snapshot: Connect, masterid: int, rival: int, second: Any, was: str
) -> None:
    _make(was, second, masterid)
    own = snapshot()
    theirs = claim(second, rival, "scheduler", "nightly")
    outcome = _outcome(own, lambda: claim(own, masterid, "scheduler", "nightly"))
    if _is_postgresql(engine):
        assert outcome is None
    elif outcome is not None:
        assert isinstance(outcome, AlreadyClaimedError)
        assert outcome.owner == rival
    assert get_claims(second) == [theirs]


@pytest.mark.parametrize("was", ["never claimed", "free"])
def test_who_claims_by_a_snapshot_what_a_rival_takes_just_then_is_told_so(
    engine: Engine, snapshot: Connect, masterid: int, rival: int, second: Any, was: str
) -> None:
    _make(was, second, masterid)
    own = snapshot()
    won: list[Claim] = []
    statement = {"never claimed": "INSERT INTO statedb_claims", "free": "UPDATE statedb_claims"}
    with interpose(
        statement[was], lambda: won.append(claim(second, rival, "scheduler", "nightly"))
    ):
        outcome = _outcome(own, lambda: claim(own, masterid, "scheduler", "nightly"))
    if _is_postgresql(engine):
        assert outcome is None
    elif outcome is not None:
        assert isinstance(outcome, AlreadyClaimedError)
    assert get_claims(second) == won


@pytest.mark.parametrize("was", ["never claimed", "free"])
def test_what_a_rival_had_and_gave_back_since_the_snapshot_gets_a_larger_token(
    engine: Engine, snapshot: Connect, masterid: int, rival: int, second: Any, was: str
) -> None:
    _make(was, second, masterid)
    own = snapshot()
    for _ in range(3):
        theirs = claim(second, rival, "scheduler", "nightly")
        release(second, rival, "scheduler", "nightly")
    outcome = _outcome(own, lambda: claim(own, masterid, "scheduler", "nightly"))
    if _is_postgresql(engine):
        assert outcome is None
    if outcome is not None:
        assert outcome.token > theirs.token
    assert get_claims(second) == ([] if outcome is None else [outcome])


@pytest.mark.parametrize("what", ["claimed again", "held"])
def test_what_was_ones_own_by_the_snapshot_and_is_anothers_is_lost(
    engine: Engine, snapshot: Connect, masterid: int, rival: int, second: Any, what: str
) -> None:
    ours = claim(second, masterid, "scheduler", "nightly")
    own = snapshot()
    release(second, masterid, "scheduler", "nightly")
    theirs = claim(second, rival, "scheduler", "nightly")
    if what == "held":
        outcome = _outcome(own, lambda: (hold_claim(own, ours), "held"))
    else:
        outcome = _outcome(own, lambda: claim(own, masterid, "scheduler", "nightly"))
    assert outcome is None or isinstance(outcome, (AlreadyClaimedError, ClaimLostError))
    assert get_claims(second) == [theirs]


def test_a_master_that_was_active_by_the_snapshot_and_is_not_claims_nothing(
    engine: Engine, snapshot: Connect, masterid: int, second: Any
) -> None:
    own = snapshot()
    set_master_state(second, masterid, False)
    outcome = _outcome(own, lambda: claim(own, masterid, "scheduler", "nightly"))
    assert outcome is None or isinstance(outcome, MasterLostError)
    assert get_claims(second) == []


@pytest.mark.parametrize("what", HALF_DONE)
def test_a_master_that_ends_by_a_snapshot_holds_nothing_that_it_claimed_since(
    engine: Engine, snapshot: Connect, masterid: int, second: Any, what: str
) -> None:
    _make("free", second, masterid)
    _silence(second, masterid)
    own = snapshot()
    held = claim(second, masterid, "scheduler", "nightly")
    outcome = _outcome(own, lambda: HALF_DONE[what](own, masterid))
    found = get_master(second, masterid)
    assert found is not None
    # Either all of it or nothing: an inactive master holds nothing.
    assert (found.active, get_claims(second)) in ((True, [held]), (False, []))
    if not _is_postgresql(engine):
        assert outcome
        assert found.active is False


@pytest.mark.parametrize("claimed", ["before the snapshot", "after the snapshot"])
def test_who_holds_a_claim_is_not_expired_by_a_snapshot_older_than_that(
    engine: Engine,
    snapshot: Connect,
    application: Connect,
    masterid: int,
    second: Any,
    claimed: str,
) -> None:
    _silence(second, masterid)
    if claimed == "before the snapshot":
        held = claim(second, masterid, "scheduler", "nightly")
    own = snapshot()
    if claimed == "after the snapshot":
        held = claim(second, masterid, "scheduler", "nightly")
    frozen = application()
    hold_claim(frozen, held)
    if _is_mysql(engine) and claimed == "after the snapshot":
        # MySQL counts the claims by the snapshot, and then meets the lock on one that it missed.
        with pytest.raises(Exception, match=r"Lock wait timeout|Record has changed"):
            expire_masters(own)
        own.rollback()
    else:
        assert _outcome(own, lambda: expire_masters(own)) in ([], None)
    found = get_master(second, masterid)
    assert found is not None
    assert found.active is True
    assert get_claims(second) == [held]
    frozen.rollback()


def test_a_master_found_by_a_snapshot_is_the_one_that_a_rival_added(
    engine: Engine, snapshot: Connect, second: Any
) -> None:
    own = snapshot()
    theirs = find_master_id(second, "host:/base")
    assert _outcome(own, lambda: find_master_id(own, "host:/base")) in (theirs, None)
    assert [one.id for one in get_masters(second)] == [theirs]
