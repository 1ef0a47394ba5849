"""TLS to PostgreSQL and MariaDB: what is verified, and what a wrong certificate meets."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import documents
import psycopg
import pymysql
import pytest
from certificates import DAY, Authority
from conftest import ENGINES
from engines import OwnServer
from servers import MariaDB, PostgreSQL

import statedb
from statedb import CallTimeoutError, Connection, DatabaseError

pytestmark = [
    pytest.mark.once,
    pytest.mark.parametrize(
        "engine",
        [one for one in ENGINES if one.name in ("postgresql", "mariadb")],
        indirect=True,
        ids=lambda one: str(one.name),
    ),
]

SECRET = "hunter2"


class Secure:
    """A server that encrypts, and whose account wants a client to; its certificate can change."""

    #: What a URL says to have everything verified, the CA's certificate to be filled in.
    full: str
    #: What it says to have all but the host's name verified.
    without_name: str
    #: What it says to have nothing encrypted.
    plain: str
    #: How it names a client's certificate and key.
    client: str
    #: Which column of the how-to's table tells of it.
    column: int

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory, "authority")
        self.stranger = Authority(directory, "stranger")

    def url(self, host: str, query: str, *, user: str = "secured") -> str:
        scheme = type(self).__name__.lower()
        hosts = ",".join(f"{one}:{self.port}" for one in host.split(","))
        return f"{scheme}://{user}:{SECRET}@{hosts}/test?{query}"

    def verified(self, host: str = "localhost", *, user: str = "secured") -> str:
        return self.url(host, self.full.format(self.authority.path), user=user)

    @property
    def port(self) -> int:
        raise NotImplementedError

    @contextlib.contextmanager
    def showing(self, paths: tuple[Path, Path]) -> Iterator[None]:
        """Have the server show this certificate, of which it has the key, for a while."""
        self._show(paths)
        self._reload()
        try:
            yield
        finally:
            self._show(self.authority.sign(self.directory, "localhost"))
            self._reload()

    def _reload(self) -> None:
        raise NotImplementedError

    def _show(self, paths: tuple[Path, Path]) -> None:
        for path in paths:
            shown = self.directory / f"server{path.suffix}"
            shutil.copy(path, shown)
            shown.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(shown, self.account)

    #: The system's account that reads its files.
    account: str

    def running(self) -> contextlib.AbstractContextManager[None]:
        raise NotImplementedError

    def is_encrypted(self, conn: Connection) -> bool:
        raise NotImplementedError


class Postgresql(Secure):
    full = "sslmode=verify-full&sslrootcert={}"
    without_name = "sslmode=verify-ca&sslrootcert={}"
    plain = "sslmode=disable"
    client = "sslcert={}&sslkey={}"
    column = 0
    account = "postgres"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._show(self.authority.sign(self.directory, "localhost"))
        rules = self.directory / "pg_hba.conf"
        rules.write_text(
            "host all postgres 127.0.0.1/32 trust\n"
            "hostssl all secured 127.0.0.1/32 trust\n"
            "hostssl all certified 127.0.0.1/32 cert\n",
            "utf-8",
        )
        settings = {
            "ssl": "on",
            "ssl_cert_file": f"{self.directory}/server.pem",
            "ssl_key_file": f"{self.directory}/server.key",
            "ssl_ca_file": str(self.authority.path),
            "hba_file": str(rules),
        }
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        with PostgreSQL(options=options) as self._server:
            for account in ("secured", "certified"):
                self._run(f"CREATE ROLE {account} SUPERUSER LOGIN")
            self._server.create_database("test")
            yield

    @property
    def port(self) -> int:
        return self._server.port

    def _run(self, statement: str) -> Any:
        own = psycopg.connect(self._server.url("postgres"), autocommit=True)
        with contextlib.closing(own):
            cursor = own.execute(statement.encode())
            return cursor.fetchall() if cursor.description else None

    def _reload(self) -> None:
        before = self._run("SELECT pg_conf_load_time()")
        self._run("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 20
        while self._run("SELECT pg_conf_load_time()") == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def is_encrypted(self, conn: Connection) -> bool:
        statement = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        return bool(conn.fetch_all(statement)[0][0])


class Mariadb(Secure):
    full = "ssl_ca={}&ssl_verify_cert=true&ssl_verify_identity=true"
    # One who names a CA wants the certificate verified by it.
    without_name = "ssl_ca={}"
    plain = "ssl_disabled=true"
    client = "ssl_cert={}&ssl_key={}"
    column = 1
    account = "mysql"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._show(self.authority.sign(self.directory, "localhost"))
        options = [
            f"--ssl-ca={self.authority.path}",
            f"--ssl-cert={self.directory}/server.pem",
            f"--ssl-key={self.directory}/server.key",
        ]
        with MariaDB(options=options) as self._server:
            self._server.create_database("test")
            for account, wants in (("secured", "SSL"), ("certified", "X509")):
                self._run(f"CREATE USER {account} IDENTIFIED BY '{SECRET}' REQUIRE {wants}")
                self._run(f"GRANT ALL ON test.* TO {account}")
            yield

    @property
    def port(self) -> int:
        return self._server.port

    def _run(self, statement: str) -> None:
        own = pymysql.connect(host="127.0.0.1", port=self.port, user="root")
        with contextlib.closing(own), own.cursor() as cursor:
            cursor.execute(statement)

    def _reload(self) -> None:
        self._run("FLUSH SSL")

    def is_encrypted(self, conn: Connection) -> bool:
        return bool(conn.fetch_all("SHOW STATUS LIKE 'Ssl_cipher'")[0][1])


@pytest.fixture(scope="module")
def secure(engine: OwnServer) -> Iterator[Secure]:
    """A server with a certificate for ``localhost``, which is signed by a CA of its own."""
    directory = Path(tempfile.mkdtemp(prefix="statedb-tls-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        one = {"postgresql": Postgresql, "mariadb": Mariadb}[engine.name](directory)
        with one.running():
            with statedb.connect(one.verified()) as db:
                db.upgrade()
            yield one
    finally:
        shutil.rmtree(directory)


def refused(url: str, expected: str) -> None:
    """That a call is an error at once, in one line that says what to do, and no password."""
    with statedb.connect(url) as db:
        began = time.monotonic()
        with pytest.raises(DatabaseError, match=expected) as raised:
            db.state.thdGetObjectId("a", "B")
        assert time.monotonic() - began < 15
    assert not isinstance(raised.value, CallTimeoutError)
    assert "\n" not in str(raised.value)
    assert SECRET not in "".join(traceback.format_exception(raised.value)).replace(url, "")


def test_what_is_verified_is_encrypted(secure: Secure) -> None:
    with statedb.connect(secure.verified()) as db:
        assert db.run(secure.is_encrypted) is True
        objectid = db.state.thdGetObjectId("a", "B")
        db.state.thdSetState(objectid, "x", 1)
        with statedb.connect(secure.verified()) as other:
            assert other.state.thdGetState(objectid, "x") == 1


def test_a_certificate_of_an_unknown_authority_is_refused(secure: Secure) -> None:
    for query in (secure.full, secure.without_name):
        wrong = secure.url("localhost", query.format(secure.stranger.path))
        refused(
            wrong, r"certificate verify failed.*the CA that has signed the server's certificate"
        )


def test_a_certificate_of_another_host_is_refused(secure: Secure) -> None:
    refused(secure.verified("127.0.0.1"), "name the host in the URL as the server's certificate")


def test_a_certificate_that_has_expired_is_refused(secure: Secure) -> None:
    yesterdays = secure.authority.sign(secure.directory, "localhost", lasts=-DAY)
    with secure.showing(yesterdays):
        refused(secure.verified(), "certificate verify failed.*renew the server's certificate")
    with statedb.connect(secure.verified()) as db:
        assert db.run(secure.is_encrypted) is True


def test_a_name_is_verified_only_where_that_is_asked_for(secure: Secure) -> None:
    url = secure.url("127.0.0.1", secure.without_name.format(secure.authority.path))
    with statedb.connect(url) as db:
        assert db.run(secure.is_encrypted) is True


def test_a_host_whose_certificate_is_wrong_is_passed_over_for_one_that_has_a_right_one(
    secure: Secure,
) -> None:
    with statedb.connect(secure.verified("127.0.0.1,localhost")) as db:
        assert db.run(secure.is_encrypted) is True
    refused(secure.verified("127.0.0.1,127.0.0.1"), "name the host in the URL as the server's")


def test_a_server_that_does_not_encrypt_is_refused(secure: Secure, url: str) -> None:
    plain = url.partition("?")[0]
    refused(f"{plain}?{secure.full.format(secure.authority.path)}", "let the server take TLS")


def test_an_account_that_is_to_encrypt_is_refused_without(secure: Secure) -> None:
    refused(secure.url("localhost", secure.plain), "correct the user and the password")


def test_a_file_that_is_not_there_is_named(secure: Secure, tmp_path: Path) -> None:
    missing = secure.directory / "no-such-file"
    refused(secure.url("localhost", secure.full.format(missing)), "no-such-file.* in PEM")
    certificate, _ = secure.authority.sign(tmp_path, "certified")
    client = secure.client.format(certificate, missing)
    refused(f"{secure.verified(user='certified')}&{client}", "no-such-file.* in PEM")


def test_an_account_can_be_known_by_its_certificate(secure: Secure, tmp_path: Path) -> None:
    certificate = secure.authority.sign(tmp_path, "certified")
    url = secure.verified(user="certified")
    with statedb.connect(f"{url}&{secure.client.format(*certificate)}") as db:
        assert db.run(secure.is_encrypted) is True
    refused(url, "certificate|log in")
    stranger = secure.stranger.sign(tmp_path, "certified")
    refused(f"{url}&{secure.client.format(*stranger)}", "certificate.* that the server wants")


# --- The how-to ---

HOWTO = (documents.ROOT / "docs/howto/tls.md").read_text("utf-8")


def test_the_how_tos_commands_make_certificates_that_its_urls_verify(
    secure: Secure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for commands in documents.blocks(HOWTO, "sh"):
        here = commands.replace("db.example.com", "localhost").encode()
        subprocess.run(["sh", "-e"], input=here, cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    scheme = secure.url("localhost", "").partition("://")[0]
    (program,) = (one for one in documents.blocks(HOWTO, "python") if f'"{scheme}://' in one)
    ((place, query),) = re.findall(r'^url = "(.*?)\?(.*)"$', program, re.MULTILINE)
    rows = HOWTO.partition("\n| ")[2].partition("\n\n")[0]
    assert f"`{query}`" in rows
    with secure.showing((tmp_path / "server.pem", tmp_path / "server.key")):
        program = program.replace(place, secure.url("localhost", "").rstrip("?"))
        assert documents.run(program, tmp_path) == documents.said(program)
        refused(secure.verified(), "certificate verify failed")
        # Those of its table that encrypt in any case, whether they verify or not.
        for row in rows.splitlines()[2:5]:
            told = re.findall(r"`([^`]+)`", row)
            assert len(told) == 2
            with statedb.connect(secure.url("localhost", told[secure.column])) as db:
                assert db.run(secure.is_encrypted) is True
