"""Databases: the engines' durable servers, and databases on them; SQLite's files on a disk."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import engines
import servers

SERVERS: dict[str, type[servers.PostgreSQL | servers.MariaDB]] = {
    "postgresql": servers.PostgreSQL,
    "mariadb": servers.MariaDB,
}
ENGINES = ("sqlite", *SERVERS)
#: What a server is given that is to hold a million values in memory; their defaults are 128 MiB.
MEMORY = {
    "postgresql": ("-c", "shared_buffers=512MB"),
    "mariadb": ("--innodb-buffer-pool-size=512M",),
}


class Databases:
    """One engine's; each database is made when it is first asked for."""

    def __init__(self, engine: str, directory: str, server: servers.Server | None) -> None:
        self.engine = engine
        self.server = server
        self._directory = directory
        self._made: set[str] = set()

    def url(self, name: str, port: int | None = None) -> str:
        """A database's URL, by another port of this host if something stands between."""
        if self.server is None:
            return f"sqlite:///{self._directory}/{name}.sqlite"
        if name not in self._made:
            self.server.create_database(name)
            self._made.add(name)
        return self.server.url(name, port)

    def path(self, name: str) -> str:
        """A file or directory beside SQLite's."""
        return f"{self._directory}/{name}"

    def connect(self, name: str) -> contextlib.closing[Any]:
        """A connection of the driver's, in autocommit."""
        kinds: dict[str, type[engines.Engine]] = {
            "sqlite": engines.SQLite,
            "postgresql": engines.PostgreSQL,
            "mariadb": engines.MySQL,
        }
        own = kinds[self.engine](self.engine)
        return contextlib.closing(own.connect(self.url(name), autocommit=True))

    def version(self) -> str:
        """What the engine calls itself."""
        with self.connect("version") as raw:
            cursor = raw.cursor()
            function = "sqlite_version" if self.engine == "sqlite" else "version"
            cursor.execute(f"SELECT {function}()")
            return str(cursor.fetchone()[0])

    def fill(
        self, name: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
    ) -> None:
        """Put rows into a table by what the driver has for many, as if they had long been there."""
        names = ", ".join(columns)
        with self.connect(name) as raw:
            cursor = raw.cursor()
            if self.engine == "postgresql":
                with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                    for row in rows:
                        copy.write_row(row)
            else:
                mark = "?" if self.engine == "sqlite" else "%s"
                marks = ", ".join([mark] * len(columns))
                cursor.execute("BEGIN")
                # PyMySQL makes statements of many rows of it.
                cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
                cursor.execute("COMMIT")
            # The servers would do so by themselves, some seconds later.
            if self.engine != "sqlite":
                cursor.execute(f"ANALYZE {'TABLE ' * (self.engine == 'mariadb')}{table}")


@contextlib.contextmanager
def running(engine: str) -> Iterator[Databases]:
    """Have the engine's server running, durably, and remove all of it afterwards."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="statedb-benchmarks-"))
        kind = SERVERS.get(engine)
        server = None
        if kind is not None:
            server = stack.enter_context(kind(durable=True, options=MEMORY[engine]))
        yield Databases(engine, directory, server)
