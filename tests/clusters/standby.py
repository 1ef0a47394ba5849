"""Pair: a PostgreSQL primary and its synchronous standby, which can take each other's place."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from programs import require
from servers import PostgreSQL, ServerFailed

if TYPE_CHECKING:
    from typing_extensions import Self

#: How long to wait for what a server is to do, however slow the machine.
PATIENCE = 60.0


class Node(PostgreSQL):
    """One of the two; its port stays the same, whatever it is at the time."""

    def __init__(self, label: str) -> None:
        # Files stay when a process is killed: what is waited for is the standby, not the disk.
        kept = ["fsync=off", "wal_keep_size=512MB", "restart_after_crash=off"]
        super().__init__(durable=True, options=[word for one in kept for word in ("-c", one)])
        self.label = label
        self._primary: Node | None = None

    def _initialise(self, programs: Path) -> list[str]:
        if self._primary is None:
            return super()._initialise(programs)
        source = f"host=127.0.0.1 port={self._primary.port} user=postgres"
        return [
            str(programs / "pg_basebackup"),
            *("-d", f"{source} application_name={self.label}"),
            *("-D", str(self.directory / "data")),
            *("--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"),
        ]

    def follow(self, primary: Node) -> None:
        """Start as a standby, on a copy of the primary's files; what it had itself is gone."""
        self._primary = primary
        if self._directory is not None:
            shutil.rmtree(self.directory / "data")
            if self._launch(self._initialise(require(self.name))).wait() != 0:
                raise ServerFailed(f"no copy of the primary could be made:\n{self.log()}")
        self.start()

    def promote(self) -> None:
        self.ask(f"SELECT pg_promote(true, {PATIENCE:.0f})")
        self._primary = None

    def wait_for_standby(self, label: str | None) -> None:
        """From now on have each commit wait for the standby of this label, or for none."""
        self.set("synchronous_standby_names", label or "")
        if label is not None:
            until(lambda: self.ask("SELECT sync_state FROM pg_stat_replication") == [("sync",)])

    def set(self, name: str, value: str) -> None:
        self.ask(f"ALTER SYSTEM SET {name} = '{value}'")
        self.ask("SELECT pg_reload_conf()")
        until(lambda: self.ask(f"SHOW {name}") == [(value,)])

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self._execute(statement)


class Pair:
    """The two nodes, and which of them is what."""

    def __init__(self) -> None:
        self.nodes = Node("node_a"), Node("node_b")
        self.primary, self.standby = self.nodes

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        with self._stack:
            self._stack.enter_context(self.primary)
            self._stack.callback(self.standby.stop)
            self.rebuild_standby()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, database: str, attributes: str = "?target_session_attrs=read-write") -> str:
        """The URL of a database, wherever it is at the time; the hosts in an order of their own."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres@{hosts}/{database}{attributes}"

    def take_over(self) -> None:
        """Promote the standby, whatever has become of the primary; it waits for no standby."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary

    def rebuild_standby(self) -> None:
        """Have the other node follow the primary, which from then on waits for it."""
        self.standby.kill()
        self.standby.follow(self.primary)
        self.primary.wait_for_standby(self.standby.label)
        # It has been waited for once: nothing that was acknowledged before is here alone.
        self.primary.ask("SELECT pg_logical_emit_message(true, 'tests', '')")

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A bare connection to the primary of now."""
        return psycopg.connect(self.primary.url(database), autocommit=True)


def until(ready: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.01)
