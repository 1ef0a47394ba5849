"""Bench: what the examples of a state machine's run share: connections, and a count of events."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from engines import Engine
from onlooker import Onlooker

import statedb
from faults.model import Model
from statedb import Connection, Database, state

_TABLES = ("statedb_states", "statedb_objects", "statedb_claims", "statedb_masters")
_COLUMNS = "id, name, active, incarnation, heartbeats, last_active, expire_after, due"
#: The application on its connections, in autocommit and not; and both ways through a Database.
CALLERS = ("plain", "implicit", "sync", "future")
Rows = dict[Any, Any]


class Bench:
    """Connections to one database: a Database's, an application's two, and one that looks on."""

    def __init__(self, db: Database, connect: Callable[..., Any]) -> None:
        self.db = db
        #: An application's in autocommit, and one whose driver begins transactions by itself.
        self.plain = connect(autocommit=True)
        self.implicit = connect()
        self.second = connect(autocommit=True)
        self.onlooker = Onlooker(self.second)
        #: How often each rule ran, each kind of caller called, each error was raised, and so on.
        self.events: Counter[str] = Counter()
        #: The ids that the Database has found for a pair, and may remember.
        self.remembered: dict[tuple[str, str], set[int]] = {}

    def call(self, caller: str, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call an operation as one of the callers does."""
        if caller == "plain":
            return operation(self.plain, *args, **kwargs)
        if caller == "implicit":
            try:
                return operation(self.implicit, *args, **kwargs)
            finally:
                self.implicit.commit()
        if caller == "sync":
            return self.bound(operation, sync=True)(*args, **kwargs)
        return self.bound(operation)(*args, **kwargs).result(timeout=60)

    def bound(self, operation: Callable[..., Any], *, sync: bool = False) -> Callable[..., Any]:
        """The connectors' method for an operation."""
        name = "".join(word.capitalize() for word in operation.__name__.split("_"))
        connector = self.db.state if operation.__name__ in state.__all__ else self.db.masters
        method: Callable[..., Any]
        method = getattr(connector, f"thd{name}" if sync else name[0].lower() + name[1:])
        return method

    def empty(self) -> None:
        """Have nothing in the tables, and nothing remembered of what was there."""
        for ids in self.remembered.values():
            for objectid in ids:
                self.db.state.thdDeleteObject(objectid)
        self.remembered.clear()
        for table in _TABLES:
            self.second.cursor().execute(f"DELETE FROM {table}")

    def look(self, within: Any = None) -> dict[str, Rows]:
        """What is in the tables, as the second connection sees it, or the one given."""
        rows = _reader(self.second if within is None else within)
        return {
            "objects": {
                one: (_text(name), _text(class_name))
                for one, name, class_name in rows(
                    "SELECT id, name, class_name FROM statedb_objects"
                )
            },
            "values": {
                (objectid, _text(name)): _text(value)
                for objectid, name, value in rows(
                    "SELECT objectid, name, value FROM statedb_states"
                )
            },
            "masters": {
                row[0]: (_text(row[1]), *row[2:])
                for row in rows(f"SELECT {_COLUMNS} FROM statedb_masters")
            },
            "claims": {
                (_text(kind), _text(name)): (owner, token)
                for kind, name, owner, token in rows(
                    "SELECT kind, name, masterid, token FROM statedb_claims"
                )
            },
        }


def _reader(conn: Any) -> Callable[[str], Any]:
    if isinstance(conn, Connection):
        return conn.fetch_all

    def read(sql: str) -> Any:
        cursor = conn.cursor()
        cursor.execute(sql)
        return cursor.fetchall()

    return read


def _text(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else bytes(stored).decode()


def in_tables(model: Model) -> dict[str, Rows]:
    """What is to be in the tables."""
    return {
        "objects": dict(model.objects),
        "values": {
            (objectid, name): json.dumps(value)
            for objectid, values in model.values.items()
            for name, value in values.items()
        },
        "masters": {
            one.id: (
                one.name,
                int(one.active),
                one.incarnation,
                one.heartbeats,
                one.last_active,
                one.expire_after,
                one.due,
            )
            for one in model.masters.values()
        },
        "claims": dict(model.claims),
    }


@contextlib.contextmanager
def bench_of(engine: Engine, url: str) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:

        def connect(**settings: Any) -> Any:
            return stack.enter_context(contextlib.closing(engine.connect(url, **settings)))

        yield Bench(stack.enter_context(statedb.connect(url, pool_size=2)), connect)
