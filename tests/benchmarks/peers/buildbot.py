"""Buildbot's own connectors, in an environment and a process of their own."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import programs

from benchmarks.child import Child
from benchmarks.peers.side import Side
from benchmarks.workload import Operation

REQUIREMENTS = ("buildbot >= 4.3", "psycopg2-binary", "PyMySQL")
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql"}
METHODS = ("get", "put", "put_new", "object_id", "create", "get_many", "put_many")


class Buildbot(Side):
    name = "buildbot"

    def __init__(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        # Left to itself it chooses MyISAM, which neither waits for the disk nor has transactions.
        engine = "?storage_engine=InnoDB" if scheme == "mysql" else ""
        its_url = f"{DRIVERS[scheme]}://{rest}{engine}"
        self._child = Child("peers.buildbot_process", its_url, python=str(environment()))
        self._child.receive()
        self.ask("prepare")

    def ask(self, operation: str, **arguments: Any) -> Any:
        """The seconds that an operation took, and what it gave."""
        answer = self._child.ask(operation=operation, **arguments)
        if "error" in answer:
            raise RuntimeError(f"Buildbot failed:\n{answer['error']}")
        return answer["seconds"], answer["result"]

    def offers(self, operation: Operation, window: int) -> bool:
        # It has Deferreds only, and of its bulks each is some already.
        return operation.method in METHODS and (window > 1) != operation.method.endswith("_many")

    def seconds(self, operation: Operation, calls: int, window: int) -> float:
        _, seconds = self.ask("run", name=operation.name, calls=calls, window=window)
        return float(seconds)

    def version(self) -> str:
        return str(self.ask("version")[1])

    def close(self) -> None:
        self._child.close()


def environment() -> Path:
    """The Python that has Buildbot; made at the first call, which takes a minute."""
    own = Path(sys.prefix) if sys.prefix != sys.base_prefix else programs.cache()
    directory = own / "benchmarks-buildbot"
    python, done = directory / "bin" / "python", directory / "complete"
    # Another run may be making it.
    with (own / "benchmarks-buildbot.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            print("installing Buildbot", file=sys.stderr)
            venv.create(directory, clear=True, with_pip=True)
            install = [str(python), "-m", "pip", "install", "-qq", *REQUIREMENTS]
            subprocess.run(install, check=True, stdout=sys.stderr)
            done.touch()
    return python
