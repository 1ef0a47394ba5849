"""PgBouncer between the tests and a PostgreSQL server: on a free port, and gone afterwards."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any, ClassVar, Literal

import psycopg
from programs import Tool
from servers import Server

Mode = Literal["session", "transaction", "statement"]


class PgBouncer(Server):
    """A pooler before the server on a port; ``settings`` are lines of its pgbouncer.ini."""

    name: ClassVar[Tool] = "pgbouncer"
    protocol = "postgresql"
    account = "postgres"
    stop_signal = signal.SIGTERM
    death_signal = "KILL"

    def __init__(
        self,
        server_port: int,
        mode: Mode,
        *,
        database: str = "",
        **settings: str,
    ) -> None:
        super().__init__()
        self._server = f"host=127.0.0.1 port={server_port} {database}"
        self._settings = {"pool_mode": mode, "default_pool_size": "3", **settings}

    def url(self, database: str, port: int | None = None) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def ask(self, command: str) -> list[dict[str, Any]]:
        """What its console answers to one of its commands."""
        address = self.url("pgbouncer") + "?sslmode=disable&connect_timeout=5"
        with contextlib.closing(psycopg.connect(address, autocommit=True)) as console:
            cursor = console.execute(command.encode())
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def create_database(self, name: str) -> None:
        raise NotImplementedError("it keeps none")

    def drop_database(self, name: str) -> None:
        raise NotImplementedError("it keeps none")

    def _initialise(self, programs: Path) -> list[str]:
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(self.directory / "data"),
            "admin_users": "postgres",
            **self._settings,
        }
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        text = f"[databases]\n* = {self._server}\n[pgbouncer]\n{lines}\n"
        (self.directory / "pgbouncer.ini").write_text(text, "utf-8")
        (self.directory / "data").write_text('"postgres" ""\n', "utf-8")
        return ["true"]

    def _command(self, programs: Path) -> list[str]:
        return [str(programs / "pgbouncer"), str(self.directory / "pgbouncer.ini")]

    def _data_directory(self) -> str:
        rows = self.ask("SHOW CONFIG")
        return next(str(row["value"]) for row in rows if row["key"] == "auth_file")

    def _not_yet(self) -> tuple[type[Exception], ...]:
        return (psycopg.OperationalError,)
