"""FailureDetector: whom this process has itself watched not move for too long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from statedb.place import Sighting


@dataclass
class _Watched:
    """A master's last movement that was seen."""

    incarnation: int
    heartbeats: int
    expire_after: float
    #: When it was surely there, on this process's own clock.
    since: float
    overdue: bool


class FailureDetector:
    """Watches masters by a chain of looks, none more than ``longest_gap`` seconds after another.

    Where the chain breaks, because the database was away or this process stood still, nothing that
    was seen before counts: who did not move then may have been unable to. So may who is overdue by
    a clock of the database's that jumped. Moments are this process's own, which goes on evenly.
    """

    def __init__(self, longest_gap: float) -> None:
        self._longest_gap = longest_gap
        self._last_look = float("-inf")
        self._watched: dict[int, _Watched] = {}

    def look(self, sightings: Iterable[Sighting], asked: float, answered: float) -> None:
        """Note what was seen at some moment between the two."""
        if answered - self._last_look > self._longest_gap:
            self._watched.clear()
        self._last_look = asked
        before, self._watched = self._watched, {}
        for one in sightings:
            watched = before.get(one.masterid)
            if watched is None or (watched.incarnation, watched.heartbeats) != (
                one.incarnation,
                one.heartbeats,
            ):
                watched = _Watched(
                    one.incarnation, one.heartbeats, one.expire_after, answered, one.overdue
                )
            watched.expire_after, watched.overdue = one.expire_after, one.overdue
            self._watched[one.masterid] = watched

    def silent(self) -> dict[int, tuple[int, int]]:
        """Incarnation and heartbeats of those who are overdue, and were watched for as long."""
        return {
            masterid: (one.incarnation, one.heartbeats)
            for masterid, one in self._watched.items()
            if one.overdue and one.since + one.expire_after <= self._last_look
        }

    def next_look(self) -> float:
        """When the first of those who are watched will have been silent for too long."""
        return min(
            (
                one.since + one.expire_after
                for one in self._watched.values()
                if one.since + one.expire_after > self._last_look
            ),
            default=float("inf"),
        )
