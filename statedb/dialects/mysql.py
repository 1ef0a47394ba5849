"""MySQL and MariaDB, through PyMySQL."""

from __future__ import annotations

import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

import pymysql
from pymysql.constants import SERVER_STATUS
from pymysql.cursors import Cursor

from statedb.dialects import Dialect, Transaction, mysql_tls
from statedb.dialects.mysql_errors import (
    failure,
    is_distrust,
    is_unique_violation,
    remedy,
    spoils,
)
from statedb.dialects.mysql_hosts import PATIENCE, Host, Hosts
from statedb.dialects.mysql_sessions import (
    LONGEST,
    OwnConnection,
    bound_answers,
    check_serves,
    end_session,
    limit_lock_wait,
    outlast,
    set_up,
)
from statedb.dialects.sockets import keep_alive, readability_check, shut_down
from statedb.dialects.urls import check_percent_encoded, check_port, part_query
from statedb.errors import InvalidURLError
from statedb.sqlfiles import hexadecimal_parameters, shipped

_FORM = "mysql://user:password@host1:3306,host2:3306/database"
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_TEXTS = ("unix_socket", *mysql_tls.TEXTS)
_SWITCHES = mysql_tls.SWITCHES


@dataclass(frozen=True)
class MySQLTarget:
    """The hosts in the order in which to try them, and what PyMySQL is told for each."""

    hosts: tuple[Host, ...]
    user: str
    database: str
    options: dict[str, Any] = field(repr=False, hash=False)
    #: How they have fared.
    known: Hosts = field(repr=False, compare=False)

    def __str__(self) -> str:
        user = f"{urllib.parse.quote(self.user)}@" if self.user else ""
        hosts = ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )
        return f"mysql://{user}{hosts}/{urllib.parse.quote(self.database)}"


def parse(url: str) -> MySQLTarget:
    check_percent_encoded(url, _FORM)
    rest, query = part_query(url.partition("://")[2])
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
    several = tuple(_host(host) for host in hosts.split(","))
    return MySQLTarget(several, user, database, options, Hosts(several))


def _host(text: str) -> Host:
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
    mysql_tls.check_parameters(options)
    return options


def connect(target: MySQLTarget, timeout: float) -> pymysql.Connection[Any]:
    deadline = time.monotonic() + timeout
    *others, last = target.known.in_turn()
    for left, host in zip(range(len(target.hosts), 1, -1), others, strict=True):
        share = max(0.1, (deadline - time.monotonic()) / left)
        try:
            return _try(target, host, min(share, PATIENCE), timeout)
        except pymysql.MySQLError as error:
            # Another may have a certificate that is in order.
            if failure(error) is None and not is_distrust(error):
                raise
    return _try(target, last, max(0.1, deadline - time.monotonic()), timeout)


def _try(target: MySQLTarget, host: Host, share: float, timeout: float) -> pymysql.Connection[Any]:
    try:
        raw = _connect(target, host, share, timeout)
    except pymysql.MySQLError:
        target.known.has_failed(host)
        raise
    target.known.has_served(host)
    return raw


def _connect(
    target: MySQLTarget, host: Host, share: float, timeout: float
) -> pymysql.Connection[Any]:
    deadline = time.monotonic() + share
    encryption, options = mysql_tls.split(target.options)
    raw = OwnConnection(
        host=host[0],
        port=host[1],
        user=target.user or None,
        database=target.database,
        charset="utf8mb4",
        autocommit=True,
        # connect_timeout ends with TCP's handshake; the others bound each of the server's answers,
        # and TLS.
        connect_timeout=min(share, LONGEST),
        read_timeout=share,
        write_timeout=share,
        **options,
        **mysql_tls.settings(encryption),
    )
    try:
        keep_alive(_descriptor(raw))
        bound_answers(raw, max(0.1, deadline - time.monotonic()))
        set_up(raw, timeout)
        if len(target.hosts) > 1:
            check_serves(raw)
    except BaseException:
        raw.close()
        raise
    outlast(raw, timeout)
    return raw


def transaction(raw: Any) -> Transaction:
    if raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
        return Transaction.OPEN
    return Transaction.AUTOCOMMIT if raw.get_autocommit() else Transaction.IMPLICIT


def begin_implicit(raw: pymysql.Connection[Any], cursor: Any) -> None:
    """The server begins it with the next statement by itself.

    A savepoint of the application's may be there already, though the server reports no transaction
    until a table is used: BEGIN would end it.
    """


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
    creating_commits=True,
    certification="SHOW VARIABLES LIKE 'wsrep_on'",
    locks_gaps=True,
    # At READ COMMITTED, which ours are at, the server would ignore what is said of a snapshot.
    begin_snapshot=(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ),
    session=lambda raw: raw.session,
    end_session=end_session,
    remedy=remedy,
    spoils=spoils,
)
