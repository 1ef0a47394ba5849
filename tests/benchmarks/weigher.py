"""A process that weighs one thing, and says what it found.

``python -m benchmarks.weigher driver URL``: bytes of memory with the engine's driver and a
connection of it; ``database URL``: with a Database instead, that has done something; ``pending URL
COUNT``: what so many futures take that cannot begin.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

#: Futures that keep the workers busy; as many as a Database has by default.
WORKERS = 4


def memory() -> int:
    """Bytes of memory that are this process's own."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()
    fields = [line.split() for line in lines]
    return sum(int(field[1]) * 1024 for field in fields if field[0].startswith("Private_"))


def driver(url: str) -> int:
    connection = _connected(url)
    connection.cursor().execute("SELECT 1")
    weight = memory()
    connection.close()
    return weight


def _connected(url: str) -> Any:
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        import sqlite3

        return sqlite3.connect(url.removeprefix("sqlite:///"))
    import urllib.parse

    if scheme == "postgresql":
        import psycopg

        return psycopg.connect(url)
    import pymysql

    parts = urllib.parse.urlsplit(url)
    return pymysql.connect(
        host=parts.hostname, port=parts.port or 3306, user=parts.username, database=parts.path[1:]
    )


def database(url: str) -> int:
    import statedb

    with statedb.connect(url) as db:
        objectid = db.state.thdGetObjectId("weight", "Scheduler")
        db.state.thdSetState(objectid, "key", 1)
        assert db.state.getState(objectid, "key").result() == 1
        return memory()


def pending(url: str, count: str) -> int:
    import statedb

    go_on = threading.Event()
    with statedb.connect(url) as db:
        objectid = db.state.thdGetObjectId("weight", "Scheduler")
        db.state.thdSetState(objectid, "key", 1)
        blocking: list[Future[Any]] = [db.submit(lambda conn: go_on.wait()) for _ in range(WORKERS)]
        before = memory()
        get = db.state.getState
        waiting = [get(objectid, "key") for _ in range(int(count) - WORKERS)]
        weight = memory() - before
        assert not any(future.done() for future in waiting)
        go_on.set()
        assert all(future.result() == 1 for future in waiting)
        assert all(future.result() for future in blocking)
    return weight


def main() -> None:
    kind, *arguments = sys.argv[1:]
    kinds: dict[str, Callable[..., int]] = {
        "driver": driver,
        "database": database,
        "pending": pending,
    }
    result = kinds[kind](*arguments)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
