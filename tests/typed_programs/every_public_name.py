"""A user's program that mypy --strict has nothing to say about, though it calls all there is."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from types import ModuleType
from typing import Any

import psycopg
import pymysql

import statedb
from statedb import Claim, MasterModel, ObjectModel, ResultSpec, dialects, errors, masters, state


def everywhere(url: str) -> None:
    db: statedb.Database = statedb.connect(url, pool_size=2, timeout=5.0, max_pending=10)
    with db as same:
        operations: statedb.StateConnector = same.state
        closed: bool = same.closed
        cluster: statedb.MastersConnector = same.masters
        print(operations, cluster, closed)
        synchronously(db)
        masters_synchronously(db)
        with_futures(db)
        masters_with_futures(db)
        as_a_member(db)
        with_functions_of_a_connection(db)
        db.upgrade()
        stats: statedb.Stats = db.stats()
        print(stats.operations, stats.queue_time)
    db.close(cancel_futures=True)


def synchronously(db: statedb.Database) -> None:
    objectid: int = db.state.thdGetObjectId("nightly", class_name="Scheduler")
    value: Any = db.state.thdGetState(objectid, "last")
    value = db.state.thdGetState(objectid, "last", None)
    value = db.state.thdGetState(objectid, name="last", default=statedb.NO_DEFAULT)
    value = db.state.thdSetState(objectid, "last", {"build": [value]})
    value = db.state.thdAtomicCreateState(objectid, "secret", lambda: "drawn once")
    value = db.state.thdUpdateState(objectid, "count", _increase, default=0)
    values: dict[str, Any] = db.state.thdGetStates(objectid)
    values = db.state.thdGetStates(objectid, names=("last", "count"))
    values = db.state.thdSetStates(objectid, {**values, "last": 1})
    models: list[ObjectModel] = db.state.thdGetObjects()
    models = db.state.thdGetObjects(resultSpec=a_page_of_schedulers())
    deleted: bool = db.state.thdDeleteState(objectid, "last")
    deleted = db.state.thdDeleteObject(objectid)
    print(value, models[0].id + 1, models[0].name.upper(), models[0].class_name.upper(), deleted)


def with_futures(db: statedb.Database) -> None:
    id_found: Future[int] = db.state.getObjectId("nightly", "Scheduler")
    objectid: int = id_found.result()
    value: Future[Any] = db.state.getState(objectid, "last")
    value = db.state.getState(objectid, "last", default={})
    value = db.state.setState(objectid, "last", ["2026-11-21", None])
    value = db.state.atomicCreateState(objectid, "secret", thd_create_callback=dict)
    value = db.state.updateState(objectid, "count", thd_update_callback=_increase)
    values: Future[dict[str, Any]] = db.state.getStates(objectid, ["last"])
    values = db.state.setStates(objectid, {"last": 1})
    models: Future[list[statedb.ObjectModel]] = db.state.getObjects(a_page_of_schedulers())
    deleted: Future[bool] = db.state.deleteState(objectid, "last")
    deleted = db.state.deleteObject(objectid)
    print(value.result(timeout=1), values.result(), models.result(), deleted.result())


def masters_synchronously(db: statedb.Database) -> None:
    masterid: int = db.masters.thdFindMasterId("host:/srv/master")
    changed: bool = db.masters.thdSetMasterState(masterid, active=True)
    found: MasterModel | None = db.masters.thdGetMaster(masterid)
    models: list[MasterModel] = db.masters.thdGetMasters()
    models = db.masters.thdGetMasters(resultSpec=who_is_here())
    nothing: None = db.masters.thdSetAllMastersActiveLongTimeAgo()
    models = db.masters.thdExpireMasters()
    models = db.masters.thdExpireMasters(expire_after=30.0)
    taken: Claim = db.masters.thdClaim(masterid, "scheduler", "nightly")
    taken = db.masters.thdClaim(masterid, kind="scheduler", name="nightly", incarnation=7)
    claims: list[Claim] = db.masters.thdGetClaims()
    claims = db.masters.thdGetClaims(masterid, kind="scheduler")
    with db.transaction():
        db.masters.thdHoldClaim(taken)
    released: bool = db.masters.thdRelease(masterid, "scheduler", "nightly")
    forgotten: bool = db.masters.thdForgetMaster(masterid)
    since: datetime = models[0].last_active
    print(changed, found, nothing, claims, released, forgotten, since, models[0].active)
    print(taken.kind.upper(), taken.name.upper(), taken.masterid + taken.token)


def masters_with_futures(db: statedb.Database) -> None:
    id_found: Future[int] = db.masters.findMasterId(name="host:/srv/master")
    masterid: int = id_found.result()
    changed: Future[bool] = db.masters.setMasterState(masterid, True)
    found: Future[MasterModel | None] = db.masters.getMaster(masterid)
    models: Future[list[statedb.MasterModel]] = db.masters.getMasters(who_is_here())
    nothing: Future[None] = db.masters.setAllMastersActiveLongTimeAgo()
    models = db.masters.expireMasters(60)
    taken: Future[statedb.Claim] = db.masters.claim(masterid, "scheduler", "nightly")
    claims: Future[list[Claim]] = db.masters.getClaims(kind="scheduler")
    held: Future[None] = db.masters.holdClaim(taken.result())
    released: Future[bool] = db.masters.release(masterid, "scheduler", "nightly")
    forgotten: Future[bool] = db.masters.forgetMaster(masterid)
    print(changed, found, models, nothing, claims, held, released, forgotten)


def as_a_member(db: statedb.Database) -> None:
    def on_expired(silent: list[MasterModel]) -> None:
        print([master.name for master in silent])

    def on_lost(lost: statedb.Member) -> None:
        print(lost.id)

    with db.masters.join("host:/srv/master", interval=1.0, expire_after=5.0) as member:
        taken: Claim = member.claim("scheduler", "nightly")
        member.check()
        released: bool = member.release(taken)
        events: tuple[threading.Event, threading.Event] = (member.lost, member.in_doubt)
        lengths: tuple[float, float] = (member.interval, member.expire_after)
        numbers: tuple[int, int] = (member.id, member.incarnation)
        print(member.name.upper(), released, events, lengths, numbers)
    other: statedb.Member = db.masters.join("other", on_expired=on_expired, on_lost=on_lost)
    other.leave()


def with_functions_of_a_connection(db: statedb.Database) -> None:
    here: int = db.run(state.get_object_id, "nightly", class_name="Scheduler")
    on_a_worker: Future[bool] = db.submit(state.delete_state, here, "last")
    counted: int = db.run(_count_objects, at_least=3)
    block: AbstractContextManager[statedb.Connection] = db.transaction()
    block = db.snapshot()
    with block as conn:
        directly(conn)
        with conn.transaction():
            state.delete_object(conn, here)
    print(on_a_worker.result(), counted)


def on_connections_of_the_application() -> None:
    directly(sqlite3.connect("application.sqlite"))
    masters_directly(sqlite3.connect("application.sqlite"))
    directly(psycopg.connect("dbname=application", autocommit=True))
    directly(pymysql.connect(database="application"))


def directly(
    conn: statedb.Connection
    | sqlite3.Connection
    | psycopg.Connection[Any]
    | pymysql.Connection[Any],
) -> None:
    objectid: int = state.get_object_id(conn, "nightly", "Scheduler")
    value: Any = state.get_state(conn, objectid, "last", default=None)
    value = state.set_state(conn, objectid, "last", value)
    value = state.atomic_create_state(conn, objectid, "secret", list)
    value = state.update_state(conn, objectid, "count", _increase, 0)
    values: dict[str, Any] = state.get_states(conn, objectid, {"last"})
    values = state.set_states(conn, objectid, values)
    models: list[ObjectModel] = state.get_objects(conn, ResultSpec(limit=1))
    deleted: bool = state.delete_state(conn, objectid, "last")
    deleted = state.delete_object(conn, objectid)
    print(value, models, deleted)


def masters_directly(conn: sqlite3.Connection | psycopg.Connection[Any]) -> None:
    masterid: int = masters.find_master_id(conn, "host:/srv/master")
    changed: bool = masters.set_master_state(conn, masterid, True)
    found: MasterModel | None = masters.get_master(conn, masterid)
    models: list[MasterModel] = masters.get_masters(conn, who_is_here())
    masters.set_all_masters_active_long_time_ago(conn)
    models = masters.expire_masters(conn, 600)
    taken: Claim = masters.claim(conn, masterid, "scheduler", "nightly")
    masters.hold_claim(conn, taken)
    claims: list[Claim] = masters.get_claims(conn, masterid)
    released: bool = masters.release(conn, masterid, "scheduler", "nightly")
    forgotten: bool = masters.forget_master(conn, masterid)
    print(changed, found, models, claims, released, forgotten)


def who_is_here() -> ResultSpec:
    wanted = [
        statedb.Filter("active", "eq", [True]),
        statedb.Filter("last_active", "ge", [datetime(2026, 1, 1, tzinfo=timezone.utc)]),
    ]
    return ResultSpec(wanted, ["-last_active"], limit=20)


def _increase(value: Any) -> Any:
    return value + 1


def _count_objects(conn: statedb.Connection, *, at_least: int) -> int:
    return max(at_least, len(state.get_objects(conn)))


def a_page_of_schedulers() -> ResultSpec:
    wanted = statedb.Filter("class_name", "eq", ["Scheduler"])
    return statedb.ResultSpec(filters=[wanted], order=["-name", "id"], limit=20, offset=40)


def what_went_wrong(act: Callable[[], None]) -> str:
    modules: tuple[ModuleType, ...] = (
        statedb.dialects,
        statedb.errors,
        statedb.masters,
        statedb.state,
    )
    try:
        act()
    except (statedb.NoSuchStateError, statedb.NoSuchObjectError) as error:
        missing: KeyError = error
        return f"not there: {missing}"
    except (statedb.InvalidTypeError, statedb.InvalidValueError, statedb.StoredValueError) as error:
        mistyped: TypeError = error
        return f"of a wrong type: {mistyped}"
    except (
        statedb.InvalidNameError,
        statedb.InvalidResultSpecError,
        statedb.InvalidSettingError,
        statedb.InvalidURLError,
        statedb.MasterActiveError,
        statedb.UnusableConnectionError,
        statedb.ValueTooLargeError,
    ) as error:
        refused: ValueError = error
        return f"not taken: {refused}"
    except statedb.AlreadyClaimedError as error:
        return f"taken by {error.owner + 0}"
    except (
        statedb.ClaimLostError,
        statedb.MasterInDoubtError,
        statedb.MasterLostError,
        statedb.PoolClosedError,
        statedb.QueueFullError,
    ) as error:
        untimely: RuntimeError = error
        return f"not now: {untimely}"
    except statedb.CallTimeoutError as error:
        late: TimeoutError = error
        return f"not in time: {late}"
    except statedb.DriverMissingError as error:
        absent: ImportError = error
        return f"not installed: {absent}"
    except (statedb.ConflictError, statedb.OutcomeUnknownError) as error:
        failed: statedb.DatabaseError = error
        return f"not done: {failed}"
    except (statedb.SchemaError, errors.Error) as error:
        ours: statedb.Error = error
        known: tuple[dialects.Dialect, ...] = dialects.registered()
        return f"{ours} {modules} {[one.name for one in known]}"
    return "nothing"


def main() -> None:
    print(what_went_wrong(on_connections_of_the_application))
    everywhere("sqlite:///cluster.sqlite")
