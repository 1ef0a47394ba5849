"""A program that asks Buildbot's own state connector and the example the same, and prints both.

It runs in a process of its own, which has a reactor. Its first argument is a URL for the example;
Buildbot's connector has a database in memory. It prints, as JSON, two lists of outcomes.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import buildbot_state
import sqlalchemy as sa
from buildbot.config.master import DBConfig
from buildbot.db.connector import DBConnector
from buildbot.process.cache import CacheManager
from twisted.internet import defer, reactor, task

import statedb

VALUES: tuple[Any, ...] = (
    None,
    False,
    0,
    -1.5,
    2**70,
    "",
    "text \u00e4 \U0001f600 \u0000",
    [],
    [1, [2]],
    {"a": {}},
)


class Config:
    """What the database connector asks of a master's configuration."""

    db = DBConfig("sqlite://")


class Master:
    """What the database connector asks of a master."""

    basedir = "."

    def __init__(self) -> None:
        self.reactor = reactor
        self.config = Config()
        self.caches = CacheManager()

    def get_db_config(self, config: Config) -> Any:
        return defer.succeed(config.db)


async def outcomes(state: Any, spoil: Callable[[int], Awaitable[None]]) -> list[Any]:
    """What the connector gives for each of many calls: a value, or an error's kind."""
    told: list[Any] = []

    async def ask(deferred: Any) -> Any:
        here = threading.get_ident()
        assert isinstance(deferred, defer.Deferred)
        try:
            value = await deferred
        except Exception as error:
            # Ours are children of the errors that Buildbot's callers catch.
            value = [base.__name__ for base in (KeyError, TypeError) if isinstance(error, base)]
            value = value or type(error).__name__
        assert threading.get_ident() == here, "it fired on another thread than the reactor's"
        told.append(value)
        return value

    nightly = await state.getObjectId("nightly", "Nightly")
    assert isinstance(nightly, int)
    told.append(await state.getObjectId("nightly", "Nightly") == nightly)
    told.append(await state.getObjectId("nightly", "Periodic") == nightly)
    told.append(await state.getObjectId("Nightly", "Nightly") == nightly)

    await ask(state.getState(nightly, "absent"))
    await ask(state.getState(nightly, "absent", None))
    await ask(state.getState(nightly, "absent", default=[1]))
    await ask(state.getState(nightly, "absent", state.Thunk))
    await ask(state.getState(999, "absent"))

    for number, value in enumerate(VALUES):
        name = f"value {number}"
        await state.setState(nightly, name, value)
        assert await ask(state.getState(nightly, name, "another")) == value
        await state.setState(nightly, name, [value])
        await ask(state.getState(nightly, name))
    await state.setState(nightly, "pair", (1, 2))
    await ask(state.getState(nightly, "pair"))
    await state.setState(nightly, "keys", {1: 2})
    await ask(state.getState(nightly, "keys"))

    for unfit in (object(), {1, 2}, b"bytes", {(1, 2): 3}):
        await ask(state.setState(nightly, "unfit", unfit))
        await ask(state.atomicCreateState(nightly, "unfit", lambda it=unfit: it))
        await ask(state.getState(nightly, "unfit"))

    called: list[str] = []

    def create(value: Any) -> Callable[[], Any]:
        def call() -> Any:
            called.append(value)
            return value

        return call

    await ask(state.atomicCreateState(nightly, "created", create("first")))
    await ask(state.atomicCreateState(nightly, "created", create("second")))
    await ask(state.getState(nightly, "created"))
    await ask(state.atomicCreateState(nightly, "value 4", create("third")))
    await state.setState(nightly, "null", None)
    await ask(state.atomicCreateState(nightly, "null", lambda: "not this"))
    told.append(called)
    await ask(state.atomicCreateState(nightly, "failed", lambda: 1 // 0))
    await ask(state.getState(nightly, "failed"))
    told.append("at once")
    together = [state.atomicCreateState(nightly, "once", create(f"{n}")) for n in range(50)]
    told.append(len(set(await defer.gatherResults(together))))

    await spoil(nightly)
    await ask(state.getState(nightly, "pair"))
    return told


async def of_buildbot() -> list[Any]:
    db = DBConnector(".")
    await db.set_master(Master())
    await db.setup(check_version=False)
    await db.model.upgrade()

    async def spoil(objectid: int) -> None:
        def write(connection: Any) -> None:
            table = db.model.object_state
            this = (table.c.objectid == objectid) & (table.c.name == "pair")
            connection.execute(sa.update(table).where(this).values(value_json="ff[1"))
            connection.commit()

        await db.pool.do(write)

    try:
        return await outcomes(db.state, spoil)
    finally:
        await db.pool.stop()


async def of_statedb(url: str) -> list[Any]:
    state = buildbot_state.State(url)
    await state.startService()

    async def spoil(objectid: int) -> None:
        with statedb.connect(url) as db:
            db.run(lambda conn: conn.execute("UPDATE statedb_states SET value = 'ff[1'"))

    try:
        return await outcomes(state, spoil)
    finally:
        await state.stopService()


async def main(url: str) -> None:
    print(json.dumps([await of_buildbot(), await of_statedb(url)]))


if __name__ == "__main__":
    task.react(lambda _: defer.ensureDeferred(main(sys.argv[1])))
