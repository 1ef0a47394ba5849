"""A PostgreSQL that is to wait for a synchronous standby, and has none that answers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import ENGINES
from proxy import Proxy
from servers import PostgreSQL

import statedb
from statedb import Database, OutcomeUnknownError

#: Lets a connection commit without the standby.
ALONE = "?options=-c%20synchronous_commit%3Dlocal"
#: Sessions that have committed and wait for the standby.
WAITING = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE wait_event = 'SyncRep' AND backend_type = 'client backend'"
)

pytestmark = [
    pytest.mark.once,
    pytest.mark.parametrize(
        "engine",
        [one for one in ENGINES if one.name == "postgresql"],
        indirect=True,
        ids=lambda one: str(one.name),
    ),
]


class Lonely(PostgreSQL):
    """It waits for a standby that is not there."""

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self._execute(statement)


@pytest.fixture(scope="module")
def server() -> Iterator[Lonely]:
    with Lonely(durable=True, options=["-c", "fsync=off"]) as server:
        server.create_database("lonely")
        with statedb.connect(server.url("lonely")) as db:
            db.upgrade()
        server.ask("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.ask("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 60
        while server.ask("SHOW synchronous_standby_names") != [("nobody",)]:
            assert time.monotonic() < deadline
        yield server


@pytest.fixture
def alone(server: Lonely) -> Iterator[Database]:
    with statedb.connect(server.url("lonely") + ALONE) as db:
        yield db


WRITES: dict[str, Callable[[Database, int], Any]] = {
    "set": lambda db, objectid: db.state.setState(objectid, "k", 2).result(),
    "create": lambda db, objectid: db.state.thdAtomicCreateState(objectid, "new", lambda: 2),
    "update": lambda db, objectid: db.state.thdUpdateState(objectid, "k", lambda value: value + 1),
    "delete": lambda db, objectid: db.state.thdDeleteState(objectid, "k"),
    "a user's own of many rows": lambda db, objectid: db.run(
        lambda conn: conn.execute_many(
            "UPDATE statedb_states SET value = 2 WHERE objectid = %s", [[objectid]]
        )
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize("how", ["cancel", "terminate"])
def test_a_write_whose_wait_for_a_standby_is_ended_is_not_acknowledged(
    server: Lonely, alone: Database, write: Callable[[Database, int], Any], how: str, engine: object
) -> None:
    objectid = alone.state.thdGetObjectId(f"{how} {write}", "Scheduler")
    alone.state.thdSetState(objectid, "k", 1)
    with (
        statedb.connect(server.url("lonely"), timeout=2) as db,
        ThreadPoolExecutor() as threads,
    ):
        call = threads.submit(write, db, objectid)
        ended = 0
        # Again and again: a further try finds what the first has left here, and waits as well.
        while not call.done():
            ended += len(server.ask(WAITING.replace("pid", f"pg_{how}_backend(pid)", 1)))
            time.sleep(0.01)
        assert ended > 0
        with pytest.raises(OutcomeUnknownError):
            call.result()


def test_a_lost_write_that_waits_for_a_standby_is_not_ended_and_nobody_sees_it(
    server: Lonely, alone: Database, engine: object
) -> None:
    objectid = alone.state.thdGetObjectId("lost", "Scheduler")
    alone.state.thdSetState(objectid, "k", 1)
    with (
        Proxy(server.port, server.protocol) as proxy,
        statedb.connect(server.url("lonely", port=proxy.port), timeout=2) as db,
        ThreadPoolExecutor() as threads,
    ):
        call = threads.submit(db.state.thdSetState, objectid, "k", 2)
        while not server.ask(WAITING):
            time.sleep(0.01)
        proxy.cut_all()
        with pytest.raises(OutcomeUnknownError):
            call.result()
        assert db.stats().reconnects == 1
    assert alone.state.thdGetState(objectid, "k") == 1
    # Again and again: a further try may have waited for the first's lock, and wait for the standby
    # when that is gone.
    while server.ask(WAITING.replace("pid", "pg_terminate_backend(pid)", 1)):
        time.sleep(0.01)
    assert alone.state.thdGetState(objectid, "k") == 2


def test_an_expiry_is_reported_though_two_answers_are_lost(far_url: str, proxy: Proxy) -> None:
    with statedb.connect(far_url) as db:
        masterid = db.masters.thdFindMasterId("host:/base")
        db.masters.thdSetMasterState(masterid, True)
        db.masters.thdSetAllMastersActiveLongTimeAgo()
        proxy.cut_after(re.compile("^COMMIT$"))
        # By this it makes sure of what it has found.
        proxy.cut_before("pg_logical_emit_message")
        proxy.cut_after("pg_logical_emit_message")
        assert [one.id for one in db.masters.thdExpireMasters()] == [masterid]
        assert sum("pg_logical_emit_message" in one for one in proxy.statements) == 3
        assert db.masters.thdExpireMasters() == []
