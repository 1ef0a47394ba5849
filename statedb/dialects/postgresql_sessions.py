"""PostgreSQL's sessions: what each is told, and when, with a pooler between or without one."""

from __future__ import annotations

import enum
import os
import secrets
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import Literal

from statedb.dialects import remedies
from statedb.dialects.postgresql_connection import OwnConnection, PooledConnection
from statedb.dialects.postgresql_hosts import Greeting, Parameters, connect_to_first

# A peer that has vanished is noticed by these, long before the system would: while its connection
# is idle, or while it does not acknowledge what it was sent.
_DEFAULTS: Parameters = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# The server is to notice it too: a client that has vanished may have locked something.
_SERVER_DEFAULTS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}
_SETTINGS = {"default_transaction_isolation": "read committed", "TimeZone": "UTC"}
#: What a server is to answer by target_session_attrs, asked for a setting. A pooler would answer
#: libpq by what it heard when it met the server.
_STANDINGS = {
    "read-write": ("transaction_read_only", "off"),
    "read-only": ("transaction_read_only", "on"),
    "primary": ("in_hot_standby", "off"),
    "standby": ("in_hot_standby", "on"),
}


class Pooler(enum.Enum):
    """What stands between, by how long a session of the server's is one client's."""

    NONE = None
    SESSION = "session"
    TRANSACTION = "transaction"


@dataclass(frozen=True)
class _Session:
    """What a new session is to be told."""

    name: str
    pooler: Pooler
    #: In milliseconds.
    lock_timeout: int

    def greet(self, place: Parameters) -> Greeting:
        if self.pooler is Pooler.NONE:
            return self._greet_server(place)
        asked = place.get("target_session_attrs") or os.environ.get("PGTARGETSESSIONATTRS")
        wanted = str(asked or "any")
        setting, answer = _STANDINGS.get(wanted, ("transaction_read_only", None))
        statements = f"SHOW {setting}"
        if self.pooler is Pooler.SESSION:
            settings = _SERVER_DEFAULTS | self._settings() | {"application_name": self.name}
            statements = "; ".join([*_assignments("SET", settings), statements])
        if wanted in _STANDINGS:
            place = place | {"target_session_attrs": "any"}
        return Greeting(place, statements, answer, f"the session is not {wanted}")

    def _greet_server(self, place: Parameters) -> Greeting:
        # By itself it means nothing; that it is there shows that the others are.
        mark = secrets.token_hex(8)
        own = _options(self._settings() | {"statedb.session": mark})
        options = (_options(_SERVER_DEFAULTS), str(place.get("options") or ""), own)
        place = place | {"options": " ".join(filter(None, options)), "application_name": self.name}
        return Greeting(place, "SHOW statedb.session", mark, remedies.UNTOLD)

    def opening(self) -> str:
        """Tells a transaction what its session has not been told."""
        settings = {"TimeZone": "UTC", "application_name": self.name}
        return "; ".join(_assignments("SET LOCAL", settings))

    def _settings(self) -> dict[str, str]:
        return _SETTINGS | {"lock_timeout": str(self.lock_timeout)}


def _options(settings: dict[str, str]) -> str:
    """As in libpq's parameter ``options``."""
    blank = "\\ "
    return " ".join(f"-c {name}={value.replace(' ', blank)}" for name, value in settings.items())


def _assignments(verb: str, settings: dict[str, str]) -> list[str]:
    # No connection is needed to quote these, in which no control character is left.
    return [f"{verb} {name} = {Literal(value).as_string()}" for name, value in settings.items()]


def open_session(
    parameters: Parameters, pooler: Pooler, lock_timeout: int, seconds: float
) -> psycopg.Connection[Any]:
    """A session of the first host that will do, told all that statedb relies on."""
    # What the URL says goes before what we take for good, not before what we rely on.
    parameters = _DEFAULTS | parameters | {"client_encoding": "utf8"}
    # No two sessions have the same name: see end_session. The server takes 63 bytes of ASCII, and
    # writes what is no letter in its own way.
    given = str(parameters.get("application_name") or os.environ.get("PGAPPNAME") or "statedb")
    plain = "".join(one if " " <= one <= "~" else "?" for one in given)
    parameters["application_name"] = plain
    session = _Session(f"{plain[:46]} {secrets.token_hex(8)}", pooler, lock_timeout)
    pgconn = connect_to_first(parameters, seconds, session.greet)
    pgconn.nonblocking = 1
    raw: OwnConnection | PooledConnection
    if pooler is Pooler.TRANSACTION:
        raw = PooledConnection(pgconn)
        raw.opening, raw.lock_timeout = session.opening(), lock_timeout
    else:
        raw = OwnConnection(pgconn)
    raw.session = session.name
    return raw
