"""SQLAlchemy Core with a ThreadPoolExecutor, as a careful user would write it.

Statements are built once; what is one statement runs in autocommit, whose end costs no round trip;
and there are as many connections as threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from benchmarks.peers.side import ThreadedSide
from benchmarks.workload import CLASS, OBJECT, Value, one_more, stored_before

DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
}

METADATA = sa.MetaData()
OBJECTS = sa.Table(
    "objects",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("class_name", sa.String(200), nullable=False),
    sa.UniqueConstraint("name", "class_name"),
)
STATES = sa.Table(
    "states",
    METADATA,
    sa.Column("objectid", sa.Integer, sa.ForeignKey("objects.id"), primary_key=True),
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
KEY = sa.and_(
    STATES.c.objectid == sa.bindparam("this_object"), STATES.c.name == sa.bindparam("this_name")
)
SELECT = sa.select(STATES.c.value).where(KEY)
SELECT_LOCKED = SELECT.with_for_update()
SELECT_MANY = sa.select(STATES.c.name, STATES.c.value).where(
    STATES.c.objectid == sa.bindparam("this_object"),
    STATES.c.name.in_(sa.bindparam("names", expanding=True)),
)
UPDATE = sa.update(STATES).where(KEY).values(value=sa.bindparam("new_value"))
SELECT_OBJECT = sa.select(OBJECTS.c.id).where(
    OBJECTS.c.name == sa.bindparam("this_name"), OBJECTS.c.class_name == sa.bindparam("this_class")
)


def _upsert(dialect: str) -> Any:
    if dialect == "mysql":
        insert = mysql.insert(STATES)
        return insert.on_duplicate_key_update(value=insert.inserted.value)
    kind = sqlite if dialect == "sqlite" else postgresql
    insert = kind.insert(STATES)
    keys = [STATES.c.objectid, STATES.c.name]
    return insert.on_conflict_do_update(index_elements=keys, set_={"value": insert.excluded.value})


class SQLAlchemyCore(ThreadedSide):
    name = "sqlalchemy"
    threads = 8

    def __init__(self, url: str, *, fill: bool = True) -> None:
        super().__init__()
        scheme, _, rest = url.partition("://")
        self._engine = sa.create_engine(
            f"{DRIVERS[scheme]}://{rest}",
            isolation_level="AUTOCOMMIT",
            skip_autocommit_rollback=True,
            pool_size=self.threads,
            max_overflow=0,
        )
        self._is_sqlite = scheme == "sqlite"
        if self._is_sqlite:
            sa.event.listen(self._engine, "connect", _make_durable)
        self._transactional = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._upsert = _upsert(scheme)
        METADATA.create_all(self._engine)
        self._objectid = self.object_id(OBJECT)
        if fill:
            self.put_many(stored_before())

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        if self._is_sqlite:
            # Begun as a writer's: one that has read cannot always become one.
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                connection.exec_driver_sql("COMMIT")
        else:
            with self._transactional.begin() as connection:
                yield connection

    def get(self, key: str) -> Value:
        with self._engine.connect() as connection:
            return json.loads(connection.execute(SELECT, self._key(key)).scalar_one())

    def put(self, key: str, value: Value) -> None:
        with self._engine.connect() as connection:
            done = connection.execute(UPDATE, {**self._key(key), "new_value": json.dumps(value)})
            if done.rowcount == 0:
                connection.execute(self._upsert, self._row(key, value))

    def put_new(self, key: str, value: Value) -> None:
        with self._engine.connect() as connection:
            connection.execute(self._upsert, self._row(key, value))

    def object_id(self, name: str) -> Any:
        key = {"this_name": name, "this_class": CLASS}
        with self._engine.connect() as connection:
            found = connection.execute(SELECT_OBJECT, key).scalar()
            if found is not None:
                return found
            try:
                done = connection.execute(sa.insert(OBJECTS), {"name": name, "class_name": CLASS})
            except sa.exc.IntegrityError:
                return connection.execute(SELECT_OBJECT, key).scalar_one()
            inserted = done.inserted_primary_key
            assert inserted is not None
            return inserted[0]

    def create(self, key: str, value: Value) -> Value:
        with self._engine.connect() as connection:
            found = connection.execute(SELECT, self._key(key)).scalar()
            if found is not None:
                return json.loads(found)
            try:
                connection.execute(sa.insert(STATES), self._row(key, value))
            except sa.exc.IntegrityError:
                return json.loads(connection.execute(SELECT, self._key(key)).scalar_one())
            return value

    def update(self, key: str) -> Value:
        with self._transaction() as connection:
            found = connection.execute(SELECT_LOCKED, self._key(key)).scalar_one()
            value = one_more(json.loads(found))
            connection.execute(UPDATE, {**self._key(key), "new_value": json.dumps(value)})
            return value

    def get_many(self, keys: list[str]) -> dict[str, Value]:
        with self._engine.connect() as connection:
            found = connection.execute(SELECT_MANY, {"this_object": self._objectid, "names": keys})
            return {name: json.loads(value) for name, value in found}

    def put_many(self, values: dict[str, Value]) -> None:
        # In one order for all, or two of them would deadlock.
        rows = [self._row(key, value) for key, value in sorted(values.items())]
        with self._transaction() as connection:
            connection.execute(self._upsert, rows)

    def _key(self, key: str) -> dict[str, Any]:
        return {"this_object": self._objectid, "this_name": key}

    def _row(self, key: str, value: Value) -> dict[str, Any]:
        return {"objectid": self._objectid, "name": key, "value": json.dumps(value)}

    def close(self) -> None:
        super().close()
        self._engine.dispose()


def _make_durable(raw: Any, _: Any) -> None:
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")
