"""A Galera cluster for the tests: three MariaDB servers, each a child of the test run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pymysql
from servers import MariaDB, free_port

if TYPE_CHECKING:
    from typing_extensions import Self

#: How long a change of the cluster may take, however slow the machine.
PATIENCE = 60.0
PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")


class GaleraNode(MariaDB):
    """One node; it founds the cluster anew unless it is told whom to join."""

    def __init__(self, cluster: Sequence[GaleraNode]) -> None:
        super().__init__()
        self._cluster = cluster
        self.group_port, self.state_port, self.transfer_port = (free_port() for _ in range(3))
        self.is_founder = False

    def _command(self, programs: Path) -> list[str]:
        provider = next(path for path in PROVIDERS if Path(path).exists())
        others = () if self.is_founder else (one for one in self._cluster if one is not self)
        members = ",".join(f"127.0.0.1:{one.group_port}" for one in others)
        settings = {
            "gmcast.listen_addr": f"tcp://127.0.0.1:{self.group_port}",
            "ist.recv_addr": f"127.0.0.1:{self.state_port}",
            "evs.suspect_timeout": "PT1S",
            "evs.inactive_timeout": "PT4S",
            "evs.install_timeout": "PT4S",
            "evs.join_retrans_period": "PT0.3S",
            "evs.keepalive_period": "PT0.3S",
            # Whoever was killed comes back as a newcomer, as from another machine.
            "pc.recovery": "false",
            "gcache.size": "64M",
        }
        return [
            *super()._command(programs),
            "--binlog-format=ROW",
            # What a newcomer copies is to be small.
            "--innodb-log-file-size=8M",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            f"--wsrep-provider={provider}",
            f"--wsrep-cluster-address=gcomm://{members}",
            "--wsrep-node-address=127.0.0.1",
            f"--wsrep-node-name=node-{self.port}",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address=127.0.0.1:{self.transfer_port}",
            f"--wsrep-provider-options={';'.join('='.join(item) for item in settings.items())}",
        ]

    def _data_directory(self) -> str:
        # Only a node that takes part counts as ready.
        directory = super()._data_directory()
        return (
            directory if self.takes_part() else f"not synced: {self.status('local_state_comment')}"
        )

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def takes_part(self) -> bool:
        return self.status("ready") == "ON" and self.status("local_state_comment") == "Synced"

    def status(self, name: str) -> str:
        """One of the figures that a node gives of the cluster, with quorum or without."""
        rows = self._execute(f"SHOW STATUS LIKE 'wsrep_{name}'")
        return str(rows[0][1]) if rows else ""

    def set_provider(self, option: str) -> None:
        self._execute(f"SET GLOBAL wsrep_provider_options = '{option}'")

    def execute(self, statement: str) -> Sequence[tuple[Any, ...]]:
        return self._execute(statement)


class GaleraCluster:
    """Three nodes; a context manager that starts and stops them."""

    SIZE: ClassVar[int] = 3

    def __init__(self) -> None:
        self.nodes: list[GaleraNode] = []
        self.nodes += [GaleraNode(self.nodes) for _ in range(self.SIZE)]
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                node.is_founder = node is self.nodes[0]
                stack.enter_context(node)
            self.nodes[0].is_founder = False
            self._stack = stack.pop_all()
        self.await_size(self.SIZE)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, database: str, first: int = 0) -> str:
        """The database at every node, beginning with this one."""
        in_order = self.nodes[first:] + self.nodes[:first]
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in in_order)
        return f"mysql://root@{hosts}/{database}"

    # --- Faults and their ends ---

    def kill(self, *nodes: GaleraNode) -> None:
        for node in nodes:
            node.kill()

    def bring_back(self, *nodes: GaleraNode) -> None:
        """Start nodes that were killed; where they were most, the rest founds the cluster anew."""
        alive = [one for one in self.nodes if one not in nodes]
        if len(nodes) * 2 > self.SIZE:
            await_that(lambda: alive[0].status("cluster_status") != "Primary")
            alive[0].set_provider("pc.bootstrap=YES")
            await_that(alive[0].takes_part)
        for node in nodes:
            node.start()
        self.await_size(self.SIZE)

    def isolate(self, *nodes: GaleraNode) -> None:
        """Part nodes from each other and from the rest; their clients still reach them."""
        for node in nodes:
            node.set_provider("gmcast.isolate=1")

    def rejoin(self, *nodes: GaleraNode) -> None:
        for node in nodes:
            node.set_provider("gmcast.isolate=0")
        self.await_size(self.SIZE)

    def heal(self) -> None:
        """Have all nodes take part, whatever a test that failed has left behind."""
        for node in self.nodes:
            node.resume()
        alive = [one for one in self.nodes if one.is_running]
        for node in alive:
            node.set_provider("gmcast.isolate=0")
        self.bring_back(*(one for one in self.nodes if one not in alive))

    def await_size(self, size: int) -> None:
        """Wait until so many nodes take part, and know of each other."""

        def is_whole() -> bool:
            seen = [one for one in self.nodes if one.is_running and one.takes_part()]
            return len(seen) == size and all(
                one.status("cluster_size") == str(size) for one in seen
            )

        await_that(is_whole)


def await_that(holds: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait until something holds; servers that do not answer are asked again."""
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(pymysql.OperationalError, pymysql.InterfaceError):
            if holds():
                return
        assert time.monotonic() < deadline, holds
        time.sleep(0.05)
