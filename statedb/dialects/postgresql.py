"""PostgreSQL, through psycopg 3."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from statedb.dialects import Dialect, Failure, Transaction, remedies
from statedb.dialects.postgresql_connection import (
    NotCommitted,
    NotReplicated,
    OwnConnection,
    OwnCursor,
    PooledConnection,
    PooledCursor,
)
from statedb.dialects.postgresql_hosts import NotConnected, split
from statedb.dialects.postgresql_sessions import Pooler, open_session
from statedb.dialects.sockets import readability_check, shut_down
from statedb.dialects.urls import check_percent_encoded, check_port, part_query
from statedb.errors import InvalidURLError
from statedb.sqlfiles import Statements, shipped

_FORM = "postgresql://user:password@host1:5432,host2:5432/database?target_session_attrs=read-write"


@dataclass(frozen=True)
class PostgreSQLTarget:
    """libpq's own parameters, and what stands between."""

    parameters: dict[str, Any] = field(repr=False)
    pooler: Pooler = Pooler.NONE

    def __str__(self) -> str:
        shown = {key: self.parameters.get(key) for key in ("user", "host", "port", "dbname")}
        user = f"{shown['user']}@" if shown["user"] else ""
        hosts = str(shown["host"] or self.parameters.get("hostaddr") or "").split(",")
        ports = str(shown["port"] or "").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        places = (
            f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)
        )
        return f"postgresql://{user}{','.join(places)}/{shown['dbname'] or ''}"


def parse(url: str) -> PostgreSQLTarget:
    check_percent_encoded(url, _FORM)
    scheme, _, rest = url.partition("://")
    rest, pooler = _without_pooler(rest)
    parameters = None
    with contextlib.suppress(psycopg.Error, UnicodeDecodeError):
        parameters = conninfo_to_dict(f"{scheme.lower()}://{rest}")
    if parameters is None:
        # Not even as its context: libpq quotes the part that it cannot read, perhaps the password.
        raise InvalidURLError(
            f"libpq cannot read this URL; the form is {_FORM}, with special characters"
            f" percent-encoded and libpq's own parameters after '?'"
        )
    several = None
    with contextlib.suppress(ValueError):
        if math.isfinite(float(parameters.get("connect_timeout") or 0)):
            several = len(split(parameters)) > 1
    if several is None:
        raise InvalidURLError(
            "a URL has as many ports as hosts, or one for all, and its connect_timeout is a number"
            " of seconds"
        )
    if several and "PGTARGETSESSIONATTRS" not in os.environ:
        # Who names several means the one of them that takes writes, whichever it is now.
        parameters.setdefault("target_session_attrs", "read-write")
    for port in str(parameters.get("port") or "").split(","):
        # libpq would find out when it connects, and take it for a passing trouble of the network.
        if port:
            check_port(port, _FORM)
    return PostgreSQLTarget(parameters, pooler)


def _without_pooler(rest: str) -> tuple[str, Pooler]:
    """What follows a URL's scheme without the parameter that is not libpq's; and what it says."""
    place, query = part_query(rest)
    words = query.split("&")
    told = [word.partition("=")[2] for word in words if word.partition("=")[0] == "pooler"]
    if not told:
        return rest, Pooler.NONE
    if told[1:] or told[0] not in ("session", "transaction"):
        raise InvalidURLError(
            "pooler in a PostgreSQL URL is session or transaction, and there once"
        )
    kept = "&".join(word for word in words if word.partition("=")[0] != "pooler")
    return f"{place}?{kept}" if kept else place, Pooler(told[0])


def connect(target: PostgreSQLTarget, timeout: float) -> psycopg.Connection[Any]:
    return open_session(target.parameters, target.pooler, _milliseconds(timeout), timeout)


def end_session(cursor: psycopg.Cursor[Any], sql: Statements, session: str) -> bool:
    cursor.execute(sql["select_sessions_ended"].encode(), {"session": session})
    return not cursor.fetchall()


def limit_lock_wait(raw: psycopg.Connection[Any], seconds: float) -> None:
    if isinstance(raw, PooledConnection):
        raw.lock_timeout = _milliseconds(seconds)
    else:
        raw.execute(f"SET lock_timeout = {_milliseconds(seconds)}")


def _milliseconds(seconds: float) -> int:
    return min(max(1, int(seconds * 1000)), 2**31 - 1)


# Class 08 is a connection's failure, 57P a server that shuts down, 40003 that it does not know.
_LOST = ("08", "57P", "40003")
_CONFLICT = ("40001", "40P01", "55P03")
_REFUSED = ("25006", "53300")


def failure(error: BaseException) -> Failure | None:
    if not isinstance(error, psycopg.Error):
        return None
    if isinstance(error, NotConnected):
        return None if error.hopeless else Failure.LOST
    if remedies.PER_STATEMENT in str(error):
        return None
    if isinstance(error, NotCommitted):
        return Failure.REFUSED
    if isinstance(error, NotReplicated):
        return Failure.UNSETTLED
    state = error.sqlstate
    if state is None:
        lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        return Failure.LOST if lost else None
    # Whatever it is called: after that the server has closed the connection.
    if error.diag.severity_nonlocalized in ("FATAL", "PANIC") or state.startswith(_LOST):
        return Failure.LOST
    if state in _CONFLICT:
        return Failure.CONFLICT
    return Failure.REFUSED if state in _REFUSED else None


def remedy(error: BaseException) -> str | None:
    if not isinstance(error, psycopg.Error):
        return None
    if isinstance(error, psycopg.errors.UndefinedTable) and '"statedb_' in str(error):
        return remedies.TABLE
    if error.sqlstate is not None and remedies.PER_STATEMENT not in str(error):
        return remedies.POSTGRESQL.get(error.sqlstate)
    text = str(error)
    return next((what for phrase, what in remedies.LIBPQ.items() if phrase in text), None)


def is_lasting(
    target: PostgreSQLTarget, raw: psycopg.Connection[Any], error: BaseException
) -> bool:
    """Whether it is the account, or the database, that is to write nothing, not a standby.

    Where there are several hosts it is one that has stepped down, for another.
    """
    read_only = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
    if not read_only or raw.closed or len(split(target.parameters)) > 1:
        return False
    if target.pooler is not Pooler.NONE:
        return False  # it would say what it heard when it met the server
    return raw.info.parameter_status("in_hot_standby") == "off"


def is_unique_violation(error: BaseException) -> bool:
    return isinstance(error, psycopg.errors.UniqueViolation)


def cursor(raw: psycopg.Connection[Any]) -> psycopg.Cursor[Any]:
    if isinstance(raw, PooledConnection):
        return PooledCursor(raw)
    if isinstance(raw, OwnConnection):
        return OwnCursor(raw)
    return psycopg.Cursor(raw, row_factory=tuple_row)


def transaction(raw: psycopg.Connection[Any]) -> Transaction:
    status = raw.pgconn.transaction_status
    if status == pq.TransactionStatus.IDLE:
        return Transaction.AUTOCOMMIT if raw.autocommit else Transaction.IMPLICIT
    return Transaction.OPEN if status == pq.TransactionStatus.INTRANS else Transaction.FAILED


def begin_implicit(raw: psycopg.Connection[Any], cursor: psycopg.Cursor[Any]) -> None:
    """psycopg sends BEGIN before the next statement by itself."""


def why_unusable(raw: Any) -> str | None:
    if not isinstance(raw, psycopg.Connection):
        return "is not a blocking psycopg.Connection"
    if raw.pgconn.pipeline_status != pq.PipelineStatus.OFF:
        return "is in pipeline mode, in which no statement's result can be known at once"
    return None


def new_id(cursor: psycopg.Cursor[Any]) -> int | None:
    row = cursor.fetchone()
    return row[0] if row else None


DIALECT = Dialect(
    name="postgresql",
    schemes=("postgresql", "postgres"),
    driver="psycopg",
    sql=(shipped("common"), shipped("postgresql")),
    parse=parse,
    connect=connect,
    cursor=cursor,
    # What only reads has committed nothing.
    query=lambda cursor: partial(psycopg.Cursor.execute, cursor),
    failure=failure,
    is_unique_violation=is_unique_violation,
    transaction=transaction,
    begin_implicit=begin_implicit,
    why_unusable=why_unusable,
    death_check=lambda raw: readability_check(raw.fileno()),
    cut=lambda raw: shut_down(raw.fileno()),
    limit_lock_wait=limit_lock_wait,
    new_id=new_id,
    # now() stands still within a transaction. A subquery, or no index could be used to compare it.
    now="(SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS bigint))",
    to_driver=str,
    # As it was asked for: what stands between may give many sessions one name of its own.
    session=lambda raw: raw.session,
    end_session=end_session,
    remedy=remedy,
    is_lasting=is_lasting,
    # The moment is that of the first query.
    begin_snapshot=("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "VALUES (1)"),
    contains="POSITION({value} IN {field}) > 0",
)
