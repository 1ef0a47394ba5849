"""A user's program that gives the functions what frameworks have, without a cast.

`tox -e types` checks it. Where something must not be taken, an ignore that is unused is an error.
"""

from __future__ import annotations

from django.db import connection, connections
from flask_sqlalchemy import SQLAlchemy
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from statedb import masters, schema, state


def in_django() -> None:
    state.set_state(connection, 7, "last", 1)
    state.set_state(connections["default"], 7, "last", 1)
    schema.upgrade(connection)


def with_sqlalchemy(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as conn:
        state.set_state(conn, 7, "last", 1)
        schema.upgrade(conn)
    with Session(engine) as session:
        state.set_state(session, 7, "last", 1)
    masters.get_masters(scoped_session(sessionmaker(engine)))
    state.set_state(engine.raw_connection(), 7, "last", 1)


def in_flask(db: SQLAlchemy, pool: ConnectionPool) -> None:
    state.set_state(db.session, 7, "last", 1)
    with pool.connection() as conn:
        state.set_state(conn, 7, "last", 1)


def what_is_not_taken(url: str, conn: AsyncConnection, session: AsyncSession) -> None:
    state.set_state(create_engine(url), 7, "last", 1)  # type: ignore[arg-type]
    state.set_state(conn, 7, "last", 1)  # type: ignore[arg-type]
    state.set_state(session, 7, "last", 1)  # type: ignore[arg-type]
