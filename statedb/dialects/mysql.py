"""MySQL and MariaDB, through PyMySQL."""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

import pymysql
from pymysql.constants import SERVER_STATUS
from pymysql.cursors import Cursor

from statedb.dialects import Dialect, Failure, Transaction, remedies
from statedb.dialects.sockets import readability_check, shut_down
from statedb.dialects.urls import check_percent_encoded, check_port
from statedb.errors import InvalidURLError
from statedb.sqlfiles import hexadecimal_parameters, shipped

_FORM = "mysql://user:password@host1:3306,host2:3306/database"
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_TEXTS = ("unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password")
_SWITCHES = ("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity")


@dataclass(frozen=True)
class MySQLTarget:
    """The hosts in the order in which to try them, and what PyMySQL is told for each."""

    hosts: tuple[tuple[str, int], ...]
    user: str
    database: str
    options: dict[str, Any] = field(repr=False, hash=False)

    def __str__(self) -> str:
        user = f"{urllib.parse.quote(self.user)}@" if self.user else ""
        hosts = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )
        return f"mysql://{user}{hosts}/{urllib.parse.quote(self.database)}"


def parse(url: str) -> MySQLTarget:
    check_percent_encoded(url, _FORM)
    rest, _, query = url.partition("://")[2].partition("?")
    authority, _, database = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    user, _, password = (urllib.parse.unquote(part) for part in credentials.partition(":"))
    database = urllib.parse.unquote(database)
    if not database or "/" in database:
        raise InvalidURLError(f"a MySQL URL names one database: {_FORM}")
    if "\0" in user + database:
        # It would end the name in the packet that logs in, and begin what follows.
        raise InvalidURLError(f"the user and database in a MySQL URL hold no NUL: {_FORM}")
    options = _options(query)
    if password:
        # PyMySQL encodes a str in latin-1, which is no server's default.
        options["password"] = password.encode()
    return MySQLTarget(tuple(_host(host) for host in hosts.split(",")), user, database, options)


def _host(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "3306"
    check_port(port, _FORM)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return urllib.parse.unquote(host) or "localhost", int(port)


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if name in _TEXTS:
            options[name] = value
        elif name in _SWITCHES and value.lower() in _FLAGS:
            options[name] = _FLAGS[value.lower()]
        else:
            raise InvalidURLError(
                f"after '?' a MySQL URL takes {', '.join(_TEXTS)} as text"
                f" and {', '.join(_SWITCHES)} as true or false"
            )
    return options


def connect(target: MySQLTarget, timeout: float) -> pymysql.Connection[Any]:
    deadline = time.monotonic() + timeout
    *others, last = target.hosts
    for left, (host, port) in zip(range(len(target.hosts), 1, -1), others, strict=True):
        share = max(0.1, (deadline - time.monotonic()) / left)
        try:
            return _connect(target, host, port, share, timeout)
        except pymysql.MySQLError as error:
            if failure(error) is None:
                raise
    return _connect(target, *last, max(0.1, deadline - time.monotonic()), timeout)


def _connect(
    target: MySQLTarget, host: str, port: int, share: float, timeout: float
) -> pymysql.Connection[Any]:
    raw = pymysql.connect(
        host=host,
        port=port,
        user=target.user or None,
        database=target.database,
        charset="utf8mb4",
        autocommit=True,
        # connect_timeout ends with TCP's handshake; read_timeout bounds the server's greeting.
        connect_timeout=share,
        read_timeout=share,
        write_timeout=share,
        **target.options,
    )
    try:
        with raw.cursor(Cursor) as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute(
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
                " time_zone = '+00:00', innodb_lock_wait_timeout = %s",
                [_whole_seconds(timeout)],
            )
    except BaseException:
        raw.close()
        raise
    _outlast(raw, timeout)
    return raw


def limit_lock_wait(raw: pymysql.Connection[Any], seconds: float) -> None:
    _outlast(raw, seconds)
    with raw.cursor(Cursor) as cursor:
        cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [_whole_seconds(seconds)])


def _outlast(raw: Any, seconds: float) -> None:
    """Have PyMySQL wait for an answer a little longer than the server waits for a lock.

    It has no public way to change this. A silent server is noticed earlier, by the call's deadline.
    """
    raw._read_timeout = raw._write_timeout = max(seconds, _whole_seconds(seconds)) + 1


def _whole_seconds(seconds: float) -> int:
    return min(max(1, int(seconds)), 2**30)


# Deadlock, lock wait, MariaDB's snapshot isolation, a group's certification at COMMIT.
_CONFLICT = {1213, 1205, 1020, 3101}
# No connection: refused, unknown host, too many, shutting down; Galera without a quorum; read-only
# servers; an idle connection that the server had ended before.
_REFUSED = {2002, 2003, 2005, 1040, 1203, 1047, 1290, 1836, 4031}
# Gone away, lost, killed, shut down, and a COMMIT in trouble.
_LOST = {0, 2006, 2013, 2055, 1053, 1077, 1079, 1080, 1927, 1180}


def _code(error: BaseException) -> int | None:
    code = error.args[0] if error.args else None
    return code if isinstance(code, int) else None


def failure(error: BaseException) -> Failure | None:
    if not isinstance(error, pymysql.MySQLError):
        return None
    code = _code(error)
    if code in _CONFLICT:
        return Failure.CONFLICT
    if code in _REFUSED:
        return Failure.REFUSED
    # An InternalError without a code is PyMySQL's own: packets came in a wrong order.
    torn = code is None and isinstance(error, pymysql.err.InternalError)
    return Failure.LOST if code in _LOST or torn else None


def remedy(error: BaseException) -> str | None:
    if not isinstance(error, pymysql.MySQLError):
        return None
    if _code(error) == 1146 and ".statedb_" in str(error):
        return remedies.TABLE
    return remedies.MYSQL.get(_code(error) or 0)


def spoils(error: BaseException) -> bool:
    """Whether it is a right that is missing: one to a whole database is looked up at its USE."""
    return isinstance(error, pymysql.MySQLError) and _code(error) in (1044, 1142, 1143, 1370)


def is_unique_violation(error: BaseException) -> bool:
    return isinstance(error, pymysql.err.IntegrityError) and _code(error) == 1062


def transaction(raw: Any) -> Transaction:
    if raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
        return Transaction.OPEN
    return Transaction.AUTOCOMMIT if raw.get_autocommit() else Transaction.IMPLICIT


def begin_implicit(raw: pymysql.Connection[Any], cursor: Any) -> None:
    cursor.execute("BEGIN")


def why_unusable(raw: Any) -> str | None:
    result = raw._result
    if result is not None and result.unbuffered_active:
        return "has a streaming cursor with unread rows, which a statement would throw away"
    return None


def _descriptor(raw: Any) -> int:
    descriptor: int = raw._sock.fileno() if raw._sock else -1
    return descriptor


def _cut(raw: pymysql.Connection[Any]) -> None:
    descriptor = _descriptor(raw)
    if descriptor >= 0:
        shut_down(descriptor)


def new_id(cursor: Any) -> int | None:
    return cursor.lastrowid if cursor.rowcount == 1 else None


DIALECT = Dialect(
    name="mysql",
    schemes=("mysql", "mariadb"),
    driver="pymysql",
    sql=(shipped("common"), shipped("mysql")),
    parse=parse,
    connect=connect,
    cursor=Cursor,
    failure=failure,
    is_unique_violation=is_unique_violation,
    transaction=transaction,
    begin_implicit=begin_implicit,
    why_unusable=why_unusable,
    death_check=lambda raw: readability_check(_descriptor(raw)),
    cut=_cut,
    limit_lock_wait=limit_lock_wait,
    new_id=new_id,
    now="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    to_driver=hexadecimal_parameters,
    binary=bytes.hex,
    least_lock_wait=1.0,
    locks_gaps=True,
    remedy=remedy,
    spoils=spoils,
)
