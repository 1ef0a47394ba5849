"""PostgreSQL: the first host that will do, those that say nothing, and what errors mean."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conftest import ENGINES
from engines import OwnServer
from onlooker import Onlooker
from proxy import Proxy
from servers import free_port

import statedb
from statedb import CallTimeoutError, Connection, DatabaseError, InvalidURLError
from statedb.dialects import Failure
from statedb.dialects.postgresql import DIALECT
from statedb.dialects.postgresql_sessions import Pooler

pytestmark = pytest.mark.once
on_a_server = pytest.mark.parametrize(
    "engine",
    [one for one in ENGINES if one.name == "postgresql"],
    indirect=True,
    ids=lambda one: str(one.name),
)

#: What a call may take beyond its timeout, on a machine that is slow.
GRACE = 1.5

# --- Hosts that are of no use ---


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", 4 + len(content)) + content


def _fatal(code: bytes, text: bytes) -> bytes:
    return _message(b"E", b"SFATAL\0VFATAL\0C" + code + b"\0M" + text + b"\0\0")


WELCOME = _message(b"R", struct.pack("!i", 0))


def _greeting(standby: bytes) -> bytes:
    return (
        WELCOME
        + _message(b"S", b"server_version\x0015.1\0")
        + _message(b"S", b"default_transaction_read_only\0off\0")
        + _message(b"S", b"in_hot_standby\0" + standby + b"\0")
        + _message(b"Z", b"I")
    )


STANDBY, PRIMARY = _greeting(b"on"), _greeting(b"off")
SILENT, REFUSING = b"", None
STARTING = _fatal(b"57P03", b"the database system is starting up")
WRONG_PASSWORD = _fatal(b"28P01", b'password authentication failed for user "me"')
TLS = b"S"


class FakeHost:
    """Answers whoever connects, once he has said who he is, with the same bytes.

    And the greeting with these, if there are any; then nothing.
    """

    def __init__(self, answer: bytes | None, greeted: bytes = b"") -> None:
        self.port = free_port()
        self._answer = answer
        self._greeted = greeted
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> int:
        if self._answer is not None:
            listener = socket.create_server(("127.0.0.1", self.port))
            self._ends.append(listener)
            self._spawn(lambda: self._accept(listener))
        return self.port

    def __exit__(self, *_: object) -> None:
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def _spawn(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                self._ends.append(client)
                self._spawn(lambda client=client: self._talk(client))  # type: ignore[misc]

    def _talk(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            asks_for_tls = len(client.recv(1000)) == 8
            if asks_for_tls and self._answer not in (TLS, SILENT):
                client.sendall(b"N")
                client.recv(1000)
            assert self._answer is not None
            client.sendall(self._answer)
            if self._answer[:1] == b"E":
                client.shutdown(socket.SHUT_RDWR)
            client.recv(1000)
            client.sendall(self._greeted)
            client.recv(1000)


useless = pytest.mark.parametrize(
    "answer",
    [SILENT, REFUSING, TLS, WELCOME, STANDBY, STARTING, WRONG_PASSWORD],
    ids=["silent", "refusing", "TLS", "half", "standby", "starting", "wrong password"],
)


@on_a_server
@useless
def test_a_host_of_no_use_leaves_the_others_their_share_of_the_time(
    server_engine: OwnServer, url: str, answer: bytes | None
) -> None:
    _check_that_others_have_time(server_engine, url, FakeHost(answer))


@on_a_server
@pytest.mark.parametrize(
    "greeted", [_fatal(b"57P01", b"terminating connection"), b"T\0"], ids=["ends", "mumbles"]
)
def test_so_does_one_that_does_not_answer_the_greeting(
    server_engine: OwnServer, url: str, greeted: bytes
) -> None:
    _check_that_others_have_time(server_engine, url, FakeHost(PRIMARY, greeted))


def _check_that_others_have_time(server_engine: OwnServer, url: str, host: FakeHost) -> None:
    assert server_engine.server is not None
    good = server_engine.server.port
    name = url.rpartition("/")[2]
    with (
        host as bad,
        statedb.connect(f"postgresql://postgres@127.0.0.1:{bad},127.0.0.1:{good}/{name}") as db,
    ):
        began = time.monotonic()
        assert db.state.thdGetObjectId("a", "B") > 0
        assert time.monotonic() - began < 5


@on_a_server
def test_a_member_keeps_its_place_though_the_first_host_has_vanished(
    server_engine: OwnServer, url: str, second: Any
) -> None:
    assert server_engine.server is not None
    good = server_engine.server.port
    name = url.rpartition("/")[2]
    with (
        FakeHost(SILENT) as bad,
        statedb.connect(f"postgresql://postgres@127.0.0.1:{bad},127.0.0.1:{good}/{name}") as db,
        # Its check-ins have a second and a half each.
        db.masters.join("host:/base", interval=0.2, expire_after=3) as member,
    ):
        deadline = time.monotonic() + 20
        while Onlooker(second).masters()[member.id].heartbeats < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not member.in_doubt.is_set()


@pytest.mark.parametrize(
    "answer", [SILENT, TLS, WELCOME, STARTING], ids=["silent", "TLS", "half", "starting"]
)
def test_hosts_of_no_use_make_a_call_fail_within_the_timeout(answer: bytes) -> None:
    with FakeHost(answer) as one, FakeHost(SILENT) as other:
        hosts = f"127.0.0.1:{one},127.0.0.1:{other}"
        with statedb.connect(f"postgresql://me@{hosts}/db", timeout=1) as db:
            began = time.monotonic()
            with pytest.raises(CallTimeoutError, match="did not answer in time"):
                db.state.thdGetObjectId("a", "B")
            assert 0.8 < time.monotonic() - began < 1 + GRACE


@on_a_server
def test_a_host_that_comes_up_later_is_found_while_another_says_nothing(
    server_engine: OwnServer, url: str, proxy: Proxy
) -> None:
    proxy.refuse()
    name = url.rpartition("/")[2]
    with FakeHost(SILENT) as silent:
        hosts = f"127.0.0.1:{silent},127.0.0.1:{proxy.port}"
        with statedb.connect(f"postgresql://postgres@{hosts}/{name}", timeout=25) as db:
            future = db.state.getObjectId("a", "B")
            time.sleep(1)
            proxy.listen()
            listening = time.monotonic()
            assert future.result(timeout=30) > 0
            assert time.monotonic() - listening < 5


def test_a_wrong_password_is_told_at_once_but_not_while_another_host_may_yet_answer() -> None:
    with FakeHost(WRONG_PASSWORD) as one, FakeHost(WRONG_PASSWORD) as other:
        hosts = f"127.0.0.1:{one},127.0.0.1:{other}"
        with statedb.connect(f"postgresql://me@{hosts}/db") as db:
            began = time.monotonic()
            with pytest.raises(DatabaseError, match="password authentication failed") as raised:
                db.state.thdGetObjectId("a", "B")
            assert not isinstance(raised.value, CallTimeoutError)
            assert time.monotonic() - began < 10
    with FakeHost(WRONG_PASSWORD) as one, FakeHost(REFUSING) as other:
        hosts = f"127.0.0.1:{one},127.0.0.1:{other}"
        with (
            statedb.connect(f"postgresql://me@{hosts}/db", timeout=1) as db,
            pytest.raises(CallTimeoutError, match=r"(?s)authentication failed.*refused"),
        ):
            db.state.thdGetObjectId("a", "B")


def test_a_host_whose_name_is_unknown_is_named() -> None:
    url = "postgresql://me@no-such-host.invalid,also-not.invalid/db"
    with (
        statedb.connect(url, timeout=1) as db,
        pytest.raises(CallTimeoutError, match=r"(?s)'no-such-host.invalid'.*'also-not.invalid'"),
    ):
        db.state.thdGetObjectId("a", "B")


@pytest.mark.parametrize(
    ("rest", "asked_for"),
    [
        ("one,two/db", "read-write"),
        ("one,two/db?target_session_attrs=any", "any"),
        ("one/db", None),
        ("/db?hostaddr=127.0.0.1,127.0.0.2", "read-write"),
    ],
)
def test_who_names_several_hosts_means_the_one_that_takes_writes(
    rest: str, asked_for: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGTARGETSESSIONATTRS", raising=False)
    parameters = DIALECT.parse(f"postgresql://{rest}").parameters
    assert parameters.get("target_session_attrs") == asked_for
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "any")
    parameters = DIALECT.parse(f"postgresql://{rest}").parameters
    assert parameters.get("target_session_attrs") == (asked_for if asked_for == "any" else None)


@pytest.mark.parametrize(
    "rest",
    [
        "/db?host=a,b,c&port=1,2",
        "/db?host=a,b&hostaddr=127.0.0.1,127.0.0.2,127.0.0.3",
        "a/db?connect_timeout=soon",
        "a/db?connect_timeout=inf",
        "/db?port=1,2",
    ],
)
def test_a_url_that_does_not_fit_together_is_refused(rest: str) -> None:
    with pytest.raises(InvalidURLError, match="as many ports as hosts"):
        statedb.connect(f"postgresql://{rest}")


@pytest.mark.parametrize(
    ("rest", "pooler", "parameters"),
    [
        ("host/db", Pooler.NONE, {}),
        ("host/db?pooler=session", Pooler.SESSION, {}),
        ("host?pooler=transaction", Pooler.TRANSACTION, {}),
        (
            "u@host/db?sslmode=require&pooler=transaction",
            Pooler.TRANSACTION,
            {"sslmode": "require"},
        ),
        ("/db?pooler=session&host=/a@b?c", Pooler.SESSION, {"host": "/a@b?c"}),
        ("host?host=/a@b&pooler=session", Pooler.SESSION, {"host": "/a@b"}),
        ("u:a?pooler=b@host/db?pooler=session", Pooler.SESSION, {"password": "a?pooler=b"}),
    ],
)
def test_the_pooler_is_told_in_the_url_beside_libpqs_parameters(
    rest: str, pooler: Pooler, parameters: dict[str, str]
) -> None:
    target = DIALECT.parse(f"postgresql://{rest}")
    assert target.pooler is pooler
    assert parameters.items() <= target.parameters.items()
    assert "pooler" not in target.parameters


@pytest.mark.parametrize("query", ["pooler=", "pooler=pgbouncer", "pooler=session&pooler=session"])
def test_a_pooler_that_is_none_is_refused(query: str) -> None:
    with pytest.raises(InvalidURLError, match="is session or transaction"):
        statedb.connect(f"postgresql://host/db?{query}")


@pytest.mark.parametrize(
    "parameter",
    ["sslmode=x", "keepalives_idle=x", "target_session_attrs=x", "service=no-such-service"],
)
def test_a_parameter_that_libpq_refuses_is_told_at_once(parameter: str) -> None:
    with statedb.connect(f"postgresql://127.0.0.1:1/db?{parameter}") as db:
        began = time.monotonic()
        with pytest.raises(DatabaseError, match=r"invalid|no-such-service") as raised:
            db.state.thdGetObjectId("a", "B")
        assert not isinstance(raised.value, CallTimeoutError)
        assert time.monotonic() - began < 10


def test_a_host_gets_no_more_time_than_the_url_gives_it() -> None:
    with (
        FakeHost(SILENT) as silent,
        statedb.connect(f"postgresql://127.0.0.1:{silent}/db?connect_timeout=0.1", timeout=2) as db,
        pytest.raises(CallTimeoutError, match=r"in \d+ tries.*did not answer in time") as raised,
    ):
        db.state.thdGetObjectId("a", "B")
    assert " in 1 tries" not in str(raised.value)


def test_a_host_may_be_a_directory_of_sockets() -> None:
    with (
        statedb.connect("postgresql:///db?host=/no/such/directory", timeout=0.5) as db,
        pytest.raises(CallTimeoutError, match=r'socket "/no/such/directory/.s.PGSQL.5432" failed'),
    ):
        db.state.thdGetObjectId("a", "B")


@on_a_server
@pytest.mark.parametrize(
    "rest",
    ["?load_balance_hosts=random", "?target_session_attrs=prefer-standby", "?connect_timeout=5"],
)
def test_what_libpq_does_for_several_hosts_is_done(
    server_engine: OwnServer, url: str, rest: str
) -> None:
    assert server_engine.server is not None
    host = f"localhost:{server_engine.server.port}"
    name = url.rpartition("/")[2]
    with statedb.connect(f"postgresql://postgres@{host},{host}/{name}{rest}") as db:
        assert db.state.thdGetObjectId("a", "B") > 0


# --- Peers that vanish ---


@on_a_server
def test_a_peer_that_vanished_is_noticed_by_both_sides(url: str) -> None:
    def looked_at(conn: Connection) -> tuple[int, int, str]:
        with socket.socket(fileno=socket.dup(conn.raw.fileno())) as own:
            return (
                own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                conn.fetch_all("SHOW tcp_keepalives_idle")[0][0],
            )

    with statedb.connect(url) as db:
        assert db.run(looked_at) == (10, 10_000, "10")
    own = "?keepalives_idle=7&tcp_user_timeout=3000&options=-c%20tcp_keepalives_idle%3D8"
    with statedb.connect(url + own) as db:
        assert db.run(looked_at) == (7, 3000, "8")


@on_a_server
def test_a_server_that_stops_in_the_midst_of_its_answer_makes_a_call_fail_within_the_timeout(
    url: str,
) -> None:
    half = (
        "SELECT repeat('x', 1000), pg_sleep(CASE WHEN n = 500 THEN 6 ELSE 0 END)"
        " FROM generate_series(1, 1000) AS n ORDER BY n"
    )
    with statedb.connect(url, timeout=2, pool_size=1) as db:
        pid = db.run(lambda conn: conn.raw.info.backend_pid)
        began = time.monotonic()
        with pytest.raises(CallTimeoutError):
            db.run(lambda conn: conn.fetch_all(half))
        assert 1.5 < time.monotonic() - began < 2 + GRACE
        assert db.run(lambda conn: conn.raw.info.backend_pid) != pid


# --- What an error means ---

MEANINGS = {
    # Gone, and what became of the statement is unknown.
    "08000": Failure.LOST,
    "08006": Failure.LOST,
    "57P01": Failure.LOST,
    "57P02": Failure.LOST,
    "57P03": Failure.LOST,
    "40003": Failure.LOST,
    # Undone, and to be done again.
    "40001": Failure.CONFLICT,
    "40P01": Failure.CONFLICT,
    "55P03": Failure.CONFLICT,
    # Elsewhere, or later.
    "25006": Failure.REFUSED,
    "53300": Failure.REFUSED,
    # Not done, and no better the next time: cancelled, no memory or disk, a broken server or
    # transaction, no rights, no table, an error of the statement's own.
    **dict.fromkeys(("57014", "53100", "53200", "58000", "58030", "58P01", "XX000", "XX001")),
    **dict.fromkeys(("25P02", "0A000", "42501", "42P01", "23505", "22001", "P0001")),
}


@on_a_server
def test_an_error_means_what_its_code_says(application: Callable[..., Any]) -> None:
    own = application(autocommit=True)
    found = {}
    for code in MEANINGS:
        with pytest.raises(psycopg.Error) as raised:
            own.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
        found[code] = DIALECT.failure(raised.value)
    assert found == MEANINGS


@on_a_server
@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", "57P01"),
        ("SET idle_session_timeout = 1", "57P05"),
        ("SET idle_in_transaction_session_timeout = 1; BEGIN", "25P03"),
    ],
)
def test_a_server_that_has_ended_the_session_is_lost(
    application: Callable[..., Any], end: str, code: str
) -> None:
    own = application(autocommit=True)
    is_dead = DIALECT.death_check
    assert is_dead is not None
    with pytest.raises(psycopg.Error) as raised:
        own.execute(end)
        deadline = time.monotonic() + 20
        while not is_dead(own)():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        own.execute("SELECT 1")
    # psycopg 3.2 finds the connection closed before it reads why.
    assert raised.value.sqlstate in (code, None)
    assert DIALECT.failure(raised.value) is Failure.LOST
    with pytest.raises(psycopg.OperationalError) as raised:
        own.execute("SELECT 1")
    assert raised.value.sqlstate is None
    assert DIALECT.failure(raised.value) is Failure.LOST
