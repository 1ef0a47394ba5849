"""The numbers to reach, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """A limit to a result's ratio; or to its own figure, where it is a ratio to nothing."""

    limit: float
    at_most: bool = False

    def missed_by(self, figure: float) -> bool:
        return figure > self.limit if self.at_most else figure < self.limit

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.limit:,g}"


def _at_least(sqlite: float | None, postgresql: float, mariadb: float) -> dict[str, Bound]:
    servers = {"postgresql": Bound(postgresql), "mariadb": Bound(mariadb)}
    return servers if sqlite is None else {"sqlite": Bound(sqlite), **servers}


def _at_most(sqlite: float, postgresql: float, mariadb: float) -> dict[str, Bound]:
    limits = {"sqlite": sqlite, "postgresql": postgresql, "mariadb": mariadb}
    return {engine: Bound(limit, at_most=True) for engine, limit in limits.items()}


#: By case and what it is compared with, of each engine.
_BOUNDS = {
    ("get, sync", "bare driver"): _at_least(0.55, 0.90, 0.88),
    ("set, sync", "bare driver"): _at_least(0.80, 0.88, 0.88),
    ("get, 64 in flight", "buildbot"): _at_least(35, 25, 18),
    ("set, 64 in flight", "buildbot"): _at_least(70, 10, 5),
    ("get, 64 in flight, 1 ms away", ""): _at_least(None, 20_000, 16_000),
    ("get, future alone, above sync", ""): _at_most(0.1, 0.1, 0.1),
    ("set hot, 8 processes", "1 process"): _at_least(0.8, 0.8, 1.5),
    ("set hot, 8 processes, p99", ""): {"sqlite": Bound(150, at_most=True)},
    ("get of 1,000,000", "of 1,000"): _at_most(1.7, 1.3, 1.5),
    ("expire nobody of 10,000", "of 100"): _at_most(2, 2, 2),
    ("import statedb", ""): _at_most(50, 50, 50),
    ("idle Database", ""): _at_most(5, 5, 5),
    ("100,000 futures pending", ""): _at_most(280, 280, 280),
}
#: Pages of masters, by whatever order: the cost of 10,000 masters is that of 100.
_PAGE = Bound(3, at_most=True)
#: Beside whom statedb is to be the faster at everything.
_SLOWER = ("diskcache", "sqlitedict")


def bound(case: str, engine: str, against: str) -> Bound | None:
    """The bound of a result, if there is one."""
    if against in _SLOWER and not case.endswith(("p99", "longest")):
        return Bound(1)
    if case.startswith("page ") and against == "of 100":
        return _PAGE
    return _BOUNDS.get((case, against), {}).get(engine)
