"""MySQL's and MariaDB's sessions: what each is told, and how it is waited for and ended."""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

import pymysql
from pymysql.cursors import Cursor

from statedb.dialects.mysql_errors import code
from statedb.sqlfiles import Statements

#: Of wsrep_sync_wait: before SELECT and BEGIN (1), UPDATE and DELETE (2), INSERT (4).
_BEFORE_ALL = 7
_UNKNOWN_VARIABLE, _READ_ONLY = 1193, 1836
#: In seconds, what the server takes at most for tables, and PyMySQL for connecting: a year.
LONGEST = 31_536_000
#: For rows, and for tables, which a backup or an ALTER TABLE may lock.
_LOCK_WAITS = "innodb_lock_wait_timeout = %s, lock_wait_timeout = %s"


class OwnConnection(pymysql.Connection):
    """A connection whose session has a name on its server."""

    session: str | None = None


def set_up(raw: OwnConnection, timeout: float) -> None:
    """Name the session, and tell it all that statedb relies on."""
    raw.session = f"statedb {secrets.token_hex(8)}"
    settings = (
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',"
        f" time_zone = '+00:00', {_LOCK_WAITS}, @statedb_session = GET_LOCK(%s, 0)"
    )
    parameters = [*2 * [_whole_seconds(timeout)], raw.session]
    with raw.cursor(Cursor) as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        try:
            # A node of Galera first applies what the others have committed before: else it would
            # not show what was acknowledged, and a check-in, say, would find no row.
            cursor.execute(f"{settings}, wsrep_sync_wait = {_BEFORE_ALL}", parameters)
        except pymysql.MySQLError as error:
            if code(error) != _UNKNOWN_VARIABLE:
                raise
            cursor.execute(settings, parameters)


def check_serves(raw: OwnConnection) -> None:
    """Raise what the server would say later, unless it takes writes: another may."""
    with raw.cursor(Cursor) as cursor:
        cursor.execute("SHOW VARIABLES WHERE Variable_name IN ('read_only', 'innodb_read_only')")
        if any(value != "OFF" for _, value in cursor.fetchall()):
            raise pymysql.OperationalError(_READ_ONLY, f"{raw.host}:{raw.port} is read-only")
        # A node of Galera without a quorum answers the above, but not this.
        cursor.execute("COMMIT")


def end_session(cursor: Any, sql: Statements, session: str) -> bool:
    cursor.execute(sql["select_session_id"], {"session": session})
    ((session_id,),) = cursor.fetchall()
    if session_id is None:
        return True
    with contextlib.suppress(pymysql.OperationalError):  # it is over just now
        cursor.execute(sql["kill_session"], {"session_id": session_id})
    cursor.execute(sql["select_session_awaited"], {"session": session})
    return False


def limit_lock_wait(raw: pymysql.Connection[Any], seconds: float) -> None:
    outlast(raw, seconds)
    with raw.cursor(Cursor) as cursor:
        cursor.execute(f"SET SESSION {_LOCK_WAITS}", 2 * [_whole_seconds(seconds)])


def outlast(raw: Any, seconds: float) -> None:
    """Have PyMySQL wait for an answer a little longer than the server waits for a lock.

    A silent server is noticed earlier, by the call's deadline.
    """
    bound_answers(raw, max(seconds, _whole_seconds(seconds)) + 1)


def bound_answers(raw: Any, seconds: float) -> None:
    """For how long PyMySQL waits for each answer."""
    # PyMySQL has no public way to change this.
    raw._read_timeout = raw._write_timeout = seconds


def _whole_seconds(seconds: float) -> int:
    return min(max(1, int(seconds)), LONGEST)
