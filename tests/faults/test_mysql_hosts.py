"""Several hosts in one URL of MySQL's or MariaDB's: read-only ones, silent ones, vanished ones."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pymysql
import pytest
from conftest import ENGINES
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from engines import MySQL, OwnServer
from proxy import Proxy
from servers import Server, free_port

import statedb
from statedb import CallTimeoutError, Connection, Database, DatabaseError, dialects
from statedb.dialects import Failure, mysql_sessions

THESE = [one for one in ENGINES if isinstance(one, MySQL)]
# Where none of them is under test there is nothing here to collect.
__test__ = bool(THESE)

pytestmark = [
    pytest.mark.once,
    pytest.mark.parametrize("engine", THESE, ids=lambda one: one.name, indirect=True),
]

#: Has no right to write to a server that is read-only, as the superuser has.
ACCOUNT = "ordinary"


@pytest.fixture(scope="module")
def other(engine: MySQL) -> Iterator[Server]:
    """A second server, which knows nothing of the first; each test says which is read-only."""
    assert engine.server is not None
    with engine.new_server(durable=False) as second:
        for server in (engine.server, second):
            _tell(server, f"CREATE USER IF NOT EXISTS {ACCOUNT}@'127.0.0.1'")
        yield second
        _tell(engine.server, f"DROP USER {ACCOUNT}@'127.0.0.1'")


def _tell(server: Server, *statements: str) -> None:
    with contextlib.closing(
        pymysql.connect(host="127.0.0.1", port=server.port, user="root", autocommit=True)
    ) as own:
        for statement in statements:
            own.cursor().execute(statement)


@pytest.fixture
def pair(server_engine: OwnServer, other: Server, url: str) -> Iterator[tuple[Server, Server, str]]:
    """Two servers with a database of the same name, which it gives too; both can be written."""
    assert server_engine.server is not None
    name = url.rpartition("/")[2]
    other.create_database(name)
    for server in (server_engine.server, other):
        with statedb.connect(server.url(name)) as db:
            db.upgrade()
        _tell(server, f"GRANT ALL ON `{name}`.* TO {ACCOUNT}@'127.0.0.1'")
    yield server_engine.server, other, name
    for server in (server_engine.server, other):
        _tell(server, "SET GLOBAL read_only = 0")
    other.drop_database(name)


def _hosts(name: str, *ports: int, user: str = ACCOUNT) -> str:
    return f"mysql://{user}@{','.join(f'127.0.0.1:{port}' for port in ports)}/{name}"


def _objects(server: Server, name: str) -> list[str]:
    with statedb.connect(server.url(name)) as db:
        return [one.name for one in db.state.thdGetObjects()]


# --- Read-only hosts ---


@pytest.mark.parametrize("user", [ACCOUNT, "root"])
def test_a_host_that_is_read_only_is_passed_over(
    pair: tuple[Server, Server, str], user: str
) -> None:
    replica, primary, name = pair
    _tell(replica, "SET GLOBAL read_only = 1")
    with statedb.connect(_hosts(name, replica.port, primary.port, user=user)) as db:
        db.state.thdGetObjectId("a", "B")
    assert _objects(primary, name) == ["a"]
    assert _objects(replica, name) == []


def test_a_write_finds_the_host_that_takes_writes_now(pair: tuple[Server, Server, str]) -> None:
    first, second, name = pair
    _tell(second, "SET GLOBAL read_only = 1")
    with statedb.connect(_hosts(name, first.port, second.port), pool_size=4) as db:
        for future in [db.state.getObjectId(f"before {n}", "B") for n in range(20)]:
            future.result(timeout=60)
        _tell(first, "SET GLOBAL read_only = 1")
        _tell(second, "SET GLOBAL read_only = 0")
        for future in [db.state.getObjectId(f"after {n}", "B") for n in range(20)]:
            future.result(timeout=60)
    assert {one.split()[0] for one in _objects(first, name)} == {"before"}
    assert {one.split()[0] for one in _objects(second, name)} == {"after"}


def test_where_all_hosts_are_read_only_the_call_ends_with_an_error_that_says_so(
    pair: tuple[Server, Server, str],
) -> None:
    first, second, name = pair
    for server in (first, second):
        _tell(server, "SET GLOBAL read_only = 1")
    with (
        statedb.connect(_hosts(name, first.port, second.port), timeout=1.0) as db,
        pytest.raises(CallTimeoutError, match=rf"127.0.0.1:({first.port}|{second.port}) is read-o"),
    ):
        db.state.thdGetObjectId("a", "B")


def test_a_read_only_server_that_is_the_only_one_can_be_read(
    pair: tuple[Server, Server, str],
) -> None:
    only, _, name = pair
    with statedb.connect(_hosts(name, only.port)) as db:
        objectid = db.state.thdGetObjectId("a", "B")
    _tell(only, "SET GLOBAL read_only = 1")
    with statedb.connect(_hosts(name, only.port), timeout=1.0) as db:
        assert db.state.thdGetObjectId("a", "B") == objectid
        with pytest.raises(CallTimeoutError, match="read-only"):
            db.state.thdSetState(objectid, "k", 1)


# --- Hosts that say nothing ---


@contextlib.contextmanager
def _black_hole() -> Iterator[int]:
    """A port where connections neither come about nor are refused: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", free_port()))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@pytest.fixture(params=["accepts and says nothing", "swallows everything", "refuses"])
def useless(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[int]:
    """The port of a host that is of no use."""
    if request.param == "swallows everything":
        with _black_hole() as port:
            yield port
        return
    if request.param == "refuses":
        proxy.refuse()
    else:
        proxy.stall()
    yield proxy.port


def test_a_host_that_is_of_no_use_leaves_the_others_enough_time(
    server_engine: OwnServer, url: str, useless: int
) -> None:
    assert server_engine.server is not None
    name = url.rpartition("/")[2]
    hosts = _hosts(name, useless, server_engine.server.port, user="root")
    # Of hosts alike each would have half of it, of two useless ones a third.
    with statedb.connect(hosts, timeout=30.0) as db:
        began = time.monotonic()
        assert isinstance(db.state.thdGetObjectId("a", "B"), int)
        assert time.monotonic() - began < 14
    with statedb.connect(_hosts(name, useless, useless, user="root"), timeout=1.0) as db:
        began = time.monotonic()
        with pytest.raises(CallTimeoutError):
            db.state.thdGetObjectId("a", "B")
        assert time.monotonic() - began < 10


@contextlib.contextmanager
def _listening(respond: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of something that responds so to whoever connects, and no more."""
    accepted: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listener.accept()[0])
                    respond(accepted[-1])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Closing alone would not wake the thread.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in accepted:
                client.close()


def test_who_has_found_a_host_useless_goes_to_the_others_first(
    server_engine: OwnServer, url: str
) -> None:
    assert server_engine.server is not None
    name = url.rpartition("/")[2]
    tries: list[socket.socket] = []
    with _listening(tries.append) as silent:
        hosts = _hosts(name, silent, server_engine.server.port, user="root")
        with statedb.connect(hosts, pool_size=1) as db:
            for _ in range(4):
                db.run(_lose_the_connection)
    assert len(tries) == 1


def _lose_the_connection(conn: Connection) -> None:
    conn.broken = True


GREETING = (
    b"\x0a8.0.36\0"
    + (7).to_bytes(4, "little")
    + b"saltsalt\0"
    # What it can do: among others the 4.1 protocol, TLS, and plugins for authentication.
    + (0x8A09).to_bytes(2, "little")
    + b"\x2d\x02\0"
    + (0x0008).to_bytes(2, "little")
    + bytes([21])
    + bytes(10)
    + b"saltsaltsalt\0"
    + b"mysql_native_password\0"
)


def _greet(client: socket.socket) -> None:
    """What a server that would encrypt says first."""
    client.sendall(len(GREETING).to_bytes(3, "little") + b"\0" + GREETING)


@pytest.mark.parametrize("parameters", ["", "?ssl_verify_cert=false"])
def test_a_server_that_falls_silent_in_the_handshake_is_given_up(
    engine: MySQL, parameters: str
) -> None:
    with (
        _listening(_greet) as port,
        statedb.connect(_hosts("test", port) + parameters, timeout=1.0) as db,
    ):
        began = time.monotonic()
        with pytest.raises(CallTimeoutError):
            db.state.thdGetObjectId("a", "B")
        assert time.monotonic() - began < 10


def _self_signed(directory: Path) -> ssl.SSLContext:
    """What encrypts with a certificate that only it itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "server.pem").write_bytes(secret + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    return context


def test_a_certificate_that_is_not_to_be_trusted_is_an_error_at_once(
    engine: MySQL, tmp_path: Path
) -> None:
    handshakes = []
    context = _self_signed(tmp_path)

    def encrypt(client: socket.socket) -> None:
        handshakes.append(1)
        _greet(client)
        # That TLS is to begin, and no more: its first message may have come already.
        length = int.from_bytes(client.recv(4, socket.MSG_WAITALL)[:3], "little")
        client.recv(length, socket.MSG_WAITALL)
        with contextlib.suppress(OSError):
            context.wrap_socket(client, server_side=True).close()

    with (
        _listening(encrypt) as port,
        statedb.connect(_hosts("test", port) + "?ssl_verify_cert=true", timeout=20.0) as db,
        pytest.raises(DatabaseError, match="certificate verify failed") as raised,
    ):
        db.state.thdGetObjectId("a", "B")
    assert not isinstance(raised.value, CallTimeoutError)
    assert len(handshakes) == 1


def test_a_wrong_account_is_an_error_at_once_though_there_is_another_host(
    pair: tuple[Server, Server, str],
) -> None:
    first, second, name = pair
    hosts = _hosts(name, first.port, second.port, user="nobody")
    began = time.monotonic()
    with statedb.connect(hosts, timeout=20.0) as db, pytest.raises(DatabaseError, match="1045"):
        db.state.thdGetObjectId("a", "B")
    assert time.monotonic() - began < 10


def test_a_server_that_knows_nothing_of_galera_is_told_the_rest(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql_sessions, "_BEFORE_ALL", "0, no_such_variable = 1")
    with statedb.connect(url, timeout=7.0) as db:
        asked = "SELECT @@time_zone, @@sql_mode, @@innodb_lock_wait_timeout"
        found = db.run(lambda conn: conn.fetch_one(asked))
    assert found == ("+00:00", "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION", 6)


# --- Sockets that are no network's ---


def test_a_server_is_reached_by_its_socket_in_the_file_system(
    server_engine: OwnServer, url: str
) -> None:
    assert server_engine.server is not None
    socket_of_it = server_engine.server.directory / "socket"
    name = url.rpartition("/")[2]
    with statedb.connect(f"mysql://root@localhost/{name}?unix_socket={socket_of_it}") as db:
        objectid = db.state.thdGetObjectId("a", "B")
        assert db.run(lambda conn: conn.raw._sock.family) == socket.AF_UNIX
    with statedb.connect(url) as db:
        assert [one.id for one in db.state.thdGetObjects()] == [objectid]


# --- Peers that have vanished ---


def test_the_system_asks_within_a_minute_whether_an_idle_server_is_there(db: Database) -> None:
    with db.transaction() as conn:
        ours: socket.socket = conn.raw._sock

        def option(name: str) -> int:
            return ours.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        unanswered = option("TCP_KEEPINTVL") * option("TCP_KEEPCNT")
        assert option("TCP_KEEPIDLE") + unanswered <= 60
        assert 0 < option("TCP_USER_TIMEOUT") <= 60_000


def test_where_the_system_knows_less_it_asks_all_the_same(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with statedb.connect(url) as db, db.transaction() as conn:
        ours: socket.socket = conn.raw._sock
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60


# --- What errors mean ---

READ_ONLY = "The MySQL server is running with the --read-only option so it cannot execute this"
SECURE = "The MySQL server is running with the --secure-file-priv option so it cannot execute this"


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (Failure.CONFLICT, (1213, "Deadlock found when trying to get lock")),
        (Failure.CONFLICT, (1412, "Table definition has changed, please retry transaction")),
        (Failure.CONFLICT, (3101, "Plugin instructed the server to rollback the transaction")),
        (Failure.REFUSED, (1047, "WSREP has not yet prepared node for application use")),
        (Failure.REFUSED, (1226, "User has exceeded the 'max_user_connections' resource")),
        (Failure.REFUSED, (1290, READ_ONLY)),
        (None, (1290, SECURE)),
        (Failure.REFUSED, (1836, "Running in read-only mode")),
        (Failure.REFUSED, (3032, "The server is currently in offline mode")),
        (Failure.LOST, (1180, "Got error 6 during COMMIT")),
        (Failure.LOST, (3100, "Error on observer while running hook 'before_commit'")),
        (Failure.LOST, (1927, "Connection was killed")),
        (Failure.LOST, (1159, "Got timeout reading communication packets")),
        # Whoever has a statement ended does not want it done again.
        (None, (1317, "Query execution was interrupted")),
        (None, (1969, "Query execution was interrupted (max_statement_time exceeded)")),
        (None, (1045, "Access denied for user")),
        (None, (1146, "Table 'x' doesn't exist")),
    ],
)
def test_an_error_means_what_the_servers_mean_by_it(
    engine: MySQL, expected: Any, error: tuple[int, str]
) -> None:
    dialect = dialects.for_url("mysql://host/database")
    assert dialect.failure(pymysql.OperationalError(*error)) is expected
