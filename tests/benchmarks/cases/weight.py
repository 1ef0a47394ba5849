"""What statedb weighs: the time to import it, and memory; each in a process of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.child import TESTS, Child
from benchmarks.contest import Contest
from benchmarks.table import Result

#: Prints the milliseconds that the import took, in an interpreter that has done nothing else.
IMPORT = """
import time
begun = time.perf_counter()
import statedb
taken = time.perf_counter() - begun
import sys
found = {"psycopg", "pymysql", "sqlite3"} & sys.modules.keys()
assert not found, f"importing statedb imports {found}"
print(taken * 1000)
"""


def weight(contest: Contest) -> Iterator[Result]:
    url = contest.databases.url("statedb")
    _ = contest.ours  # its tables are there

    def middle(figure: Callable[[], Any]) -> float:
        return statistics.median(float(figure()) for _ in range(contest.pace.rounds))

    def importing() -> float:
        done = subprocess.run(
            [sys.executable, "-c", IMPORT], stdout=subprocess.PIPE, check=True, cwd=TESTS
        )
        return float(done.stdout)

    def of(kind: str, *arguments: str) -> Any:
        with Child("weigher", kind, *arguments) as child:
            return child.receive()

    def beyond_drivers() -> float:
        return float(of("database", url) - of("driver", url)) / 2**20

    pending = contest.pace.pending
    engine = contest.engine
    yield Result("import statedb", engine, "", None, middle(importing), unit="ms")
    yield Result("idle Database", engine, "", None, middle(beyond_drivers), unit="MiB")
    of_all = float(of("pending", url, str(pending))) / 2**20
    yield Result(f"{pending:,} futures pending", engine, "", None, of_all, unit="MiB")
