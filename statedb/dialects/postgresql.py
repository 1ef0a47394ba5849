"""PostgreSQL, through psycopg 3."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from statedb.dialects import Dialect, Failure, Transaction
from statedb.dialects.sockets import readability_check, shut_down
from statedb.dialects.urls import check_percent_encoded, check_port
from statedb.errors import InvalidURLError
from statedb.sqlfiles import shipped

_FORM = "postgresql://user:password@host1:5432,host2:5432/database?target_session_attrs=read-write"


@dataclass(frozen=True)
class PostgreSQLTarget:
    """libpq's own parameters."""

    parameters: dict[str, Any] = field(repr=False)

    def __str__(self) -> str:
        shown = {key: self.parameters.get(key) for key in ("user", "host", "port", "dbname")}
        user = f"{shown['user']}@" if shown["user"] else ""
        hosts = str(shown["host"] or "").split(",")
        ports = str(shown["port"] or "").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        places = (
            f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)
        )
        return f"postgresql://{user}{','.join(places)}/{shown['dbname'] or ''}"

    def __hash__(self) -> int:
        return hash(str(self))


def parse(url: str) -> PostgreSQLTarget:
    check_percent_encoded(url, _FORM)
    scheme, _, rest = url.partition("://")
    parameters = None
    with contextlib.suppress(psycopg.Error, UnicodeDecodeError):
        parameters = conninfo_to_dict(f"{scheme.lower()}://{rest}")
    if parameters is None:
        # Not even as its context: libpq quotes the part that it cannot read, perhaps the password.
        raise InvalidURLError(
            f"libpq cannot read this URL; the form is {_FORM}, with special characters"
            f" percent-encoded and libpq's own parameters after '?'"
        )
    target = PostgreSQLTarget(parameters)
    hosts, ports = (str(parameters.get(key) or "").split(",") for key in ("host", "port"))
    if len(ports) not in (1, len(hosts)):
        raise InvalidURLError(f"a URL has one port, or one for each host: {_FORM}")
    for port in ports:
        # libpq would find out when it connects, and take it for a passing trouble of the network.
        if port:
            check_port(port, _FORM)
    return target


def connect(target: PostgreSQLTarget, timeout: float) -> psycopg.Connection[Any]:
    parameters = dict(target.parameters)
    hosts = str(parameters.get("host") or "").count(",") + 1
    own_limit = float(parameters.get("connect_timeout") or timeout)
    # libpq gives each host this many whole seconds, and never fewer than two.
    parameters["connect_timeout"] = max(2, int(min(own_limit, timeout / hosts)))
    parameters["options"] = " ".join(
        (
            str(parameters.get("options") or ""),
            "-c default_transaction_isolation=read\\ committed -c TimeZone=UTC",
            f"-c lock_timeout={_milliseconds(timeout)}",
        )
    ).strip()
    parameters.setdefault("application_name", "statedb")
    parameters["client_encoding"] = "utf8"
    return psycopg.connect(**parameters, autocommit=True)


def limit_lock_wait(raw: psycopg.Connection[Any], seconds: float) -> None:
    raw.execute(f"SET lock_timeout = {_milliseconds(seconds)}")


def _milliseconds(seconds: float) -> int:
    return min(max(1, int(seconds * 1000)), 2**31 - 1)


# libpq reports no SQLSTATE for a refused connection. These say that waiting will not help; in
# another language than English they are tried again until the time is up.
_HOPELESS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied for database",
    "not permitted to log in",
    "does not support SSL",
    "certificate verify failed",
    "server certificate for",
)
# Class 08 is a connection's failure, 57P a server that shuts down; 25P03 and 57P05 end idle ones.
_LOST = ("08", "57P", "25P03")
_CONFLICT = ("40001", "40P01", "55P03")
_REFUSED = ("25006", "53300")


def failure(error: BaseException) -> Failure | None:
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate
    if state is None:
        lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        hopeless = any(phrase in str(error) for phrase in _HOPELESS)
        return Failure.LOST if lost and not hopeless else None
    if state in _CONFLICT:
        return Failure.CONFLICT
    if state in _REFUSED:
        return Failure.REFUSED
    return Failure.LOST if state.startswith(_LOST) else None


def is_unique_violation(error: BaseException) -> bool:
    return isinstance(error, psycopg.errors.UniqueViolation)


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
    cursor=lambda raw: psycopg.Cursor(raw, row_factory=tuple_row),
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
    contains="POSITION({value} IN {field}) > 0",
)
