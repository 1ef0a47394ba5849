"""What runs in Buildbot's environment: its state and masters connectors, asked over stdin.

It uses the real DBConnector with its thread pool, on the real reactor. What it leaves out of a
Buildbot master is what has nothing to do with the database. Each request is an operation and its
arguments; the answer says how many seconds it took, and what it gave.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import buildbot
import sqlalchemy as sa
import twisted
from buildbot.config.master import DBConfig
from buildbot.db.connector import DBConnector
from buildbot.process.cache import CacheManager
from buildbot.util import epoch2datetime
from buildbot.util.sautils import hash_columns
from twisted.internet import defer, stdio, task
from twisted.internet import reactor as installed_reactor
from twisted.protocols.basic import LineReceiver

from benchmarks.workload import CLASS, OBJECT, OPERATIONS, Value, stored_before

reactor: Any = installed_reactor

#: Seconds of silence after which Buildbot's data layer expires a master.
EXPIRE_AFTER = 600


class Config:
    """What the database connector asks of a master's configuration."""

    def __init__(self, url: str) -> None:
        self.db = DBConfig(url)


class Master:
    """What the database connector asks of a master."""

    basedir = "."

    def __init__(self, url: str) -> None:
        self.reactor = reactor
        self.config = Config(url)
        self.caches = CacheManager()

    def get_db_config(self, config: Config) -> Any:
        return defer.succeed(config.db)


class Store:
    """The methods that operations name; each gives a Deferred."""

    def __init__(self, db: Any, objectid: int) -> None:
        self._state = db.state
        self._objectid = objectid

    def get(self, key: str) -> Any:
        return self._state.getState(self._objectid, key)

    def put(self, key: str, value: Value) -> Any:
        return self._state.setState(self._objectid, key, value)

    put_new = put

    def object_id(self, name: str) -> Any:
        return self._state.getObjectId(name, CLASS)

    def create(self, key: str, value: Value) -> Any:
        return self._state.atomicCreateState(self._objectid, key, lambda: value)

    def get_many(self, keys: Sequence[str]) -> Any:
        together = defer.gatherResults([self.get(key) for key in keys])
        return together.addCallback(lambda values: dict(zip(keys, values, strict=True)))

    def put_many(self, values: dict[str, Value]) -> Any:
        return defer.gatherResults([self.put(key, value) for key, value in values.items()])


class Requests(LineReceiver):
    """Each request's operation is a method of this."""

    delimiter = b"\n"

    def __init__(self, db: Any) -> None:
        self._db = db
        self._store: Store
        self._made: Counter[str] = Counter()
        self._masters: list[int] = []

    def lineReceived(self, line: bytes) -> None:
        defer.ensureDeferred(self._answer(**json.loads(line))).addErrback(self._fail)

    async def _answer(self, operation: str, **arguments: Any) -> None:
        begun = time.perf_counter()
        result = await getattr(self, operation)(**arguments)
        seconds = time.perf_counter() - begun
        self.sendLine(json.dumps({"seconds": seconds, "result": result}).encode())

    def _fail(self, failure: Any) -> None:
        self.sendLine(json.dumps({"error": failure.getTraceback()}).encode())

    def connectionLost(self, reason: Any = None) -> None:
        if reactor.running:
            reactor.stop()

    # --- State ---

    async def prepare(self) -> None:
        await self._db.model.upgrade()
        objectid = await self._db.state.getObjectId(OBJECT, CLASS)
        self._store = Store(self._db, objectid)
        rows = [
            {"objectid": objectid, "name": key, "value_json": json.dumps(value)}
            for key, value in stored_before().items()
        ]
        await self._execute(self._db.model.object_state.insert(), rows)

    async def run(self, name: str, calls: int, window: int) -> float:
        """What the next so many calls of a workload's operation took."""
        operation = OPERATIONS[name]
        first = self._made[name]
        self._made[name] += calls
        numbers = range(first, first + calls)
        arguments = [operation.arguments(number) for number in numbers]
        seconds, results = await in_flight(
            getattr(self._store, operation.method), arguments, window
        )
        assert operation.right(numbers, results), name
        if operation.leaves is not None:
            key, value = operation.leaves(numbers[-1])
            assert await self._store.get(key) == value, name
        return seconds

    # --- Masters ---

    async def fill_masters(self, count: int) -> None:
        """So many masters, every other one active, and all seen just now."""
        now = int(time.time())
        table = self._db.model.masters
        names = [f"host{number}.example.com:/srv/master" for number in range(count)]
        rows = [
            {"name": name, "name_hash": hash_columns(name), "active": n % 2, "last_active": now}
            for n, name in enumerate(names)
        ]
        await self._execute(table.delete(), {})
        await self._execute(table.insert(), rows)
        self._masters = [one.id for one in await self._db.masters.getMasters() if one.active]

    async def check_in(self, calls: int, window: int) -> float:
        """What it took so many of the active masters, in turn, to be marked so again."""
        masters = [(self._masters[n % len(self._masters)], True) for n in range(calls)]
        seconds, results = await in_flight(self._db.masters.setMasterState, masters, window)
        assert not any(results)
        return seconds

    async def silence(self, count: int) -> None:
        """Have so many active masters be overdue."""
        table = self._db.model.masters
        silent = table.c.id.in_(self._masters[:count])
        await self._execute(sa.update(table).where(silent).values(active=1, last_active=0), {})

    async def expire(self) -> int:
        """What its data layer does to expire masters, as far as it is these connectors'."""
        too_old = epoch2datetime(reactor.seconds() - EXPIRE_AFTER)
        expired = 0
        for one in await self._db.masters.getMasters():
            if one.last_active < too_old:
                expired += await self._db.masters.setMasterState(masterid=one.id, active=False)
        return expired

    # --- Both ---

    async def version(self) -> str:
        return f"{buildbot.version} (Twisted {twisted.__version__}, SQLAlchemy {sa.__version__})"

    async def _execute(self, statement: Any, parameters: Any) -> None:
        def execute(connection: Any) -> None:
            connection.execute(statement, parameters)
            connection.commit()

        await self._db.pool.do(execute)


async def in_flight(
    start: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], window: int
) -> tuple[float, list[Any]]:
    """What the calls took, and gave; the next starts when one of so many has its result."""
    results: list[Any] = [None] * len(arguments)
    waiting: Iterator[tuple[int, tuple[Any, ...]]] = iter(enumerate(arguments))

    async def lane() -> None:
        for number, each in waiting:
            results[number] = await start(*each)

    begun = time.perf_counter()
    await defer.gatherResults([defer.ensureDeferred(lane()) for _ in range(window)])
    return time.perf_counter() - begun, results


async def serve(url: str) -> None:
    db = DBConnector(".")
    await db.set_master(Master(url))
    await db.setup(check_version=False)
    stdio.StandardIO(Requests(db))
    print(json.dumps({"ready": True}), flush=True)
    await defer.Deferred()  # until the input ends


if __name__ == "__main__":
    task.react(lambda _: defer.ensureDeferred(serve(sys.argv[1])))
