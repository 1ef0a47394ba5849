"""Contest: who takes part on one engine, and how long each is measured."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from benchmarks.databases import Databases
from benchmarks.peers.ours import Ours
from benchmarks.peers.side import LocalSide, Side
from benchmarks.workload import OPERATIONS

if TYPE_CHECKING:
    from benchmarks.peers.bare import Bare
    from benchmarks.peers.buildbot import Buildbot

PEERS = ("bare", "buildbot", "sqlalchemy", "diskcache", "sqlitedict")
S = TypeVar("S", bound=Side)


@dataclass(frozen=True)
class Pace:
    """How much is measured of each thing."""

    #: Calls in a block on the connection that both sides share, and how often they take turns.
    calls: int
    turns: int
    #: Seconds of a block of all others', and how often they take turns.
    seconds: float
    rounds: int
    #: Calls in a block at least, where there are many in flight: fewer would measure how their
    #: threads and connections begin.
    least: int
    #: Calls in flight at a time.
    windows: Sequence[int]
    #: Commits before anything is measured: SQLite's first ones are faster.
    commits: int
    #: Values and masters, few and many.
    values: tuple[int, int]
    masters: tuple[int, int]
    processes: Sequence[int]
    #: Futures that are left pending.
    pending: int


THOROUGH = Pace(
    calls=40,
    turns=100,
    seconds=0.25,
    rounds=7,
    least=512,
    windows=(64, 1024),
    commits=1000,
    values=(1000, 1_000_000),
    masters=(100, 10_000),
    processes=(1, 4, 8),
    pending=100_000,
)
QUICK = Pace(
    calls=3,
    turns=2,
    seconds=0.002,
    rounds=2,
    least=64,
    windows=(64,),
    commits=3,
    values=(20, 200),
    masters=(80, 160),
    processes=(1, 2),
    pending=1000,
)


class Contest:
    """One engine's; each side is made when it is first asked for, and closed with the stack."""

    def __init__(
        self, databases: Databases, peers: Sequence[str], pace: Pace, stack: ExitStack
    ) -> None:
        self.databases = databases
        self.engine = databases.engine
        self.pace = pace
        self._peers = peers
        self._stack = stack
        self._local: dict[str, LocalSide] = {}

    def takes_part(self, peer: str) -> bool:
        """Whether a peer is wanted, and is there; Buildbot is fetched if it is not."""
        if peer not in self._peers:
            return False
        if peer in ("diskcache", "sqlitedict") and self.engine != "sqlite":
            return False
        return peer in ("bare", "buildbot") or installed(peer)

    def enter(self, side: S) -> S:
        """The side, which is closed with all others."""
        self._stack.callback(side.close)
        return side

    @cached_property
    def ours(self) -> Ours:
        """statedb with the settings that it has by default."""
        return self._warmed(self.enter(Ours(self.databases.url("statedb"))))

    @cached_property
    def bare(self) -> tuple[Ours, Bare]:
        """statedb with one connection, and the bare driver on that same one."""
        from benchmarks.peers.bare import Bare

        ours = self._warmed(self.enter(Ours(self.databases.url("one_connection"), pool_size=1)))
        return ours, self.enter(Bare(self.engine, ours))

    def _warmed(self, ours: Ours) -> Ours:
        ours.seconds(OPERATIONS["set"], self.pace.commits, 1)
        return ours

    @cached_property
    def buildbot(self) -> Buildbot:
        from benchmarks.peers.buildbot import Buildbot

        return self.enter(Buildbot(self.databases.url("buildbot")))

    def peer(self, name: str) -> Side:
        """A peer by its name."""
        if name == "buildbot":
            return self.buildbot
        if name not in self._local:
            self._local[name] = self.enter(local_peer(name, self.place(name)))
        return self._local[name]

    def place(self, name: str) -> str:
        """Where a side has what it stores: a URL or a path."""
        in_file = name in ("diskcache", "sqlitedict")
        return self.databases.path(name) if in_file else self.databases.url(name)

    @property
    def peers(self) -> list[Side]:
        """All that take part but the bare driver."""
        return [self.peer(name) for name in PEERS[1:] if self.takes_part(name)]


def installed(peer: str) -> bool:
    """Whether a peer can be imported here."""
    found = importlib.util.find_spec(peer) is not None
    if not found and peer not in _missed:
        _missed.add(peer)
        print(f"{peer} is left out: it is not installed (tox -e bench has it)", file=sys.stderr)
    return found


_missed: set[str] = set()


def local_peer(name: str, place: str, *, fill: bool = True) -> LocalSide:
    """A peer that lives in this process; imported only where it takes part."""
    if name == "sqlalchemy":
        from benchmarks.peers.sqlalchemy_core import SQLAlchemyCore

        return SQLAlchemyCore(place, fill=fill)
    from benchmarks.peers import files

    kinds: dict[str, Callable[..., LocalSide]] = {
        "diskcache": files.DiskCache,
        "sqlitedict": files.SqliteDict,
    }
    return kinds[name](place, fill=fill)


def without_filling(name: str, place: str) -> LocalSide:
    """Another of a side that has stored already what is stored before."""
    return Ours(place, fill=False) if name == Ours.name else local_peer(name, place, fill=False)
