"""The engines under test: which there are, and how a test gets a database and connections of each.

SQLite, PostgreSQL and MariaDB are tested unless STATEDB_TEST_ENGINES names others (MySQL among
them). STATEDB_TEST_URLS adds servers that run already: URLs of databases which the tests may empty.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import statedb

if TYPE_CHECKING:
    import servers

_numbers = itertools.count(1)
_TABLES = (
    "statedb_states",
    "statedb_objects",
    "statedb_masters",
    "statedb_claims",
    "statedb_schema",
)


class Engine:
    """One engine; ``server`` is the one that the tests have started for it, if they have."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.server: servers.Server | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have the server running, and a database to copy ready."""
        yield

    @contextlib.contextmanager
    def database(self, directory: Path) -> Iterator[str]:
        """The URL of a fresh database with the tables in it."""
        with self.empty_database(directory) as url:
            with statedb.connect(url) as db:
                db.upgrade()
            yield url

    @contextlib.contextmanager
    def empty_database(self, directory: Path) -> Iterator[str]:
        """The URL of a fresh database without tables."""
        raise NotImplementedError

    def connect(self, url: str, *, autocommit: bool = False, **settings: Any) -> Any:
        """An application's own connection, opened by the driver."""
        raise NotImplementedError


@contextlib.contextmanager
def _removed_at_the_end(directory: Path) -> Iterator[None]:
    owner = os.getpid()
    try:
        yield
    finally:
        # Not by a forked child, which ends with its parent's generators still open.
        if os.getpid() == owner:
            shutil.rmtree(directory)


class SQLite(Engine):
    """Its files are in memory where they can be: waiting for a disk shows nothing more."""

    _directory: Path
    _template: bytes

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        has_room = os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 2**30
        memory = "/dev/shm" if has_room else None
        self._directory = Path(tempfile.mkdtemp(prefix="statedb-sqlite-", dir=memory))
        with _removed_at_the_end(self._directory):
            with super().database(self._directory) as url:
                self._template = self._path(url).read_bytes()
            yield

    @contextlib.contextmanager
    def database(self, directory: Path) -> Iterator[str]:
        with self.empty_database(directory) as url:
            self._path(url).write_bytes(self._template)
            yield url

    @contextlib.contextmanager
    def empty_database(self, directory: Path) -> Iterator[str]:
        own = self._directory / f"{next(_numbers)}"
        own.mkdir()
        # It is removed with the others: a thread that a test has left may be at work on it still.
        yield f"sqlite:///{own}/test.sqlite"

    def connect(self, url: str, *, autocommit: bool = False, **settings: Any) -> Any:
        if autocommit:
            settings["isolation_level"] = None
        return sqlite3.connect(self._path(url), check_same_thread=False, **settings)

    @staticmethod
    def _path(url: str) -> Path:
        return Path(urllib.parse.unquote(url.removeprefix("sqlite:///")))


class _PostgreSQLConnections(Engine):
    def connect(self, url: str, *, autocommit: bool = False, **settings: Any) -> Any:
        import psycopg

        return psycopg.connect(url, autocommit=autocommit, **settings)


class _MySQLConnections(Engine):
    def connect(self, url: str, *, autocommit: bool = False, **settings: Any) -> Any:
        import pymysql

        parts = urllib.parse.urlsplit(url)
        return pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=urllib.parse.unquote(parts.username or ""),
            password=urllib.parse.unquote(parts.password or "").encode(),
            database=parts.path[1:],
            autocommit=autocommit,
            **settings,
        )


class OwnServer(Engine):
    """An engine whose server the tests start, and the first to ask for it at that."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._used: list[str] = []

    def new_server(self, *, durable: bool) -> servers.Server:
        """A server of this engine, not yet started; one that is not durable must not be killed."""
        import servers

        kinds: dict[str, Callable[..., servers.Server]] = {
            "postgresql": servers.PostgreSQL,
            "mariadb": servers.MariaDB,
            "mysql": servers.MySQL,
        }
        return kinds[self.name](durable=durable)

    #: Has a connection fail, not wait, where a test has left a lock behind.
    impatience: str

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self.new_server(durable=False) as self.server:
            yield
        self.server = None
        self._used.clear()

    @contextlib.contextmanager
    def database(self, directory: Path) -> Iterator[str]:
        # Making one takes longer than most tests; so one whose tables could be emptied is kept.
        if self._used:
            url = self._used.pop()
            yield url
        else:
            assert self.server is not None
            name = f"statedb_{next(_numbers)}"
            self.server.create_database(name)
            url = self.server.url(name)
            with statedb.connect(url) as db:
                db.upgrade()
            yield url
        with contextlib.closing(self.connect(url, autocommit=True)) as own:
            cursor = own.cursor()
            cursor.execute(self.impatience)
            for table in _TABLES[:-1]:
                cursor.execute(f"DELETE FROM {table}")
        self._used.append(url)

    @contextlib.contextmanager
    def empty_database(self, directory: Path) -> Iterator[str]:
        assert self.server is not None
        name = f"statedb_{next(_numbers)}"
        self.server.create_database(name)
        try:
            yield self.server.url(name)
        finally:
            self.server.drop_database(name)


class PostgreSQL(OwnServer, _PostgreSQLConnections):
    impatience = "SET lock_timeout = 2000"


class MySQL(OwnServer, _MySQLConnections):
    """MySQL or MariaDB."""

    impatience = "SET innodb_lock_wait_timeout = 2"


class _ByURL(Engine):
    """A server that runs already; its one database is emptied before each test."""

    def __init__(self, url: str) -> None:
        super().__init__(url.partition("://")[0] + " by URL")
        self._url = url

    @contextlib.contextmanager
    def empty_database(self, directory: Path) -> Iterator[str]:
        with contextlib.closing(self.connect(self._url, autocommit=True)) as own:
            for table in _TABLES:
                own.cursor().execute(f"DROP TABLE IF EXISTS {table}")
        yield self._url


class PostgreSQLByURL(_ByURL, _PostgreSQLConnections):
    pass


class MySQLByURL(_ByURL, _MySQLConnections):
    pass


def chosen_engines() -> list[Engine]:
    names = os.environ.get("STATEDB_TEST_ENGINES", "sqlite,postgresql,mariadb").split(",")
    kinds: dict[str, type[Engine]] = {
        "sqlite": SQLite,
        "postgresql": PostgreSQL,
        "mariadb": MySQL,
        "mysql": MySQL,
    }
    engines = [kinds[name](name) for name in names]
    for url in os.environ.get("STATEDB_TEST_URLS", "").split():
        is_postgresql = url.startswith("postgres")
        engines.append(PostgreSQLByURL(url) if is_postgresql else MySQLByURL(url))
    return engines
