"""A user's program that mypy --strict has nothing to say about, though it calls all there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import psycopg
import pymysql

import statedb
from statedb import ObjectModel, ResultSpec, dialects, errors, state


def everywhere(url: str) -> None:
    db: statedb.Database = statedb.connect(url, pool_size=2, timeout=5.0, max_pending=10)
    with db as same:
        operations: statedb.StateConnector = same.state
        closed: bool = same.closed
        print(operations, closed)
        synchronously(db)
        with_futures(db)
        with_functions_of_a_connection(db)
        db.upgrade()
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


def with_functions_of_a_connection(db: statedb.Database) -> None:
    here: int = db.run(state.get_object_id, "nightly", class_name="Scheduler")
    on_a_worker: Future[bool] = db.submit(state.delete_state, here, "last")
    counted: int = db.run(_count_objects, at_least=3)
    block: AbstractContextManager[statedb.Connection] = db.transaction()
    with block as conn:
        directly(conn)
        with conn.transaction():
            state.delete_object(conn, here)
    print(on_a_worker.result(), counted)


def on_connections_of_the_application() -> None:
    directly(sqlite3.connect("application.sqlite"))
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


def _increase(value: Any) -> Any:
    return value + 1


def _count_objects(conn: statedb.Connection, *, at_least: int) -> int:
    return max(at_least, len(state.get_objects(conn)))


def a_page_of_schedulers() -> ResultSpec:
    wanted = statedb.Filter("class_name", "eq", ["Scheduler"])
    return statedb.ResultSpec(filters=[wanted], order=["-name", "id"], limit=20, offset=40)


def what_went_wrong(act: Callable[[], None]) -> str:
    modules: tuple[ModuleType, ...] = (statedb.dialects, statedb.errors, statedb.state)
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
        statedb.UnusableConnectionError,
        statedb.ValueTooLargeError,
    ) as error:
        refused: ValueError = error
        return f"not taken: {refused}"
    except (statedb.PoolClosedError, statedb.QueueFullError) as error:
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
