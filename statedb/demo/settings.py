"""Settings: what a master of the demo is told first of all, and names that all of them share."""

from __future__ import annotations

from dataclasses import dataclass

#: The object that is the cluster's, and its value that is created once.
CLUSTER, CLUSTER_ID = "cluster", "cluster id"
#: The value of each scheduler's object: its history.
WRITES = "writes"


@dataclass(frozen=True)
class Settings:
    """All that one process needs to know."""

    url: str
    #: What keeps this run's names from those of all others: the kind of its claims, the class of
    #: its objects, and the beginning of its masters' names.
    run: str
    name: str
    schedulers: list[str]
    repository: str
    #: In seconds, as join() takes them, and as connect() does.
    interval: float
    expire_after: float
    timeout: float


def master_name(run: str, name: str) -> str:
    return f"{run}:{name}"
