"""FailureDetector: whom this process has itself watched not move for too long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from statedb.place import Sighting

#: A gap of so many seconds is not too long for anybody's time, or a slow database would break all
#: chains.
LEAST_GAP = 0.5


class _Watched(NamedTuple):
    """A master that has not moved, as far as was seen, since that moment."""

    last: Sighting
    since: float

    @property
    def time_is_up_at(self) -> float:
        return self.since + self.last.expire_after

    def is_at(self, one: Sighting) -> bool:
        """Whether it has not moved until this sighting either."""
        return (self.last.incarnation, self.last.heartbeats) == (one.incarnation, one.heartbeats)


class FailureDetector:
    """Watches masters by a chain of looks, none more than two intervals after the one before.

    Where the chain breaks, because the database was away or this process stood still, nothing that
    was seen before counts: who did not move then may have been unable to. So may who is overdue by
    a clock of the database's that jumped. Where a master's own time is short beside that gap, the
    looks at it are closer together. Moments are this process's own, which goes on evenly.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._last_look = float("-inf")
        self._watched: dict[int, _Watched] = {}

    def look(self, sightings: Iterable[Sighting], asked: float, answered: float) -> None:
        """Note what was seen at some moment between the two."""
        # At the most, and by when this process asked: that an answer is slow is no standing still.
        longest, gap = answered - self._last_look, asked - self._last_look
        self._last_look = asked
        before, self._watched = self._watched, {}
        for one in sightings:
            since = answered
            watched = before.get(one.masterid)
            # Two thirds of its time are as two intervals of who has three: in the rest it can move.
            chained = longest <= 2 * self._interval and gap <= max(
                one.expire_after * 2 / 3, LEAST_GAP
            )
            if watched is not None and chained and watched.is_at(one):
                since = watched.since
            self._watched[one.masterid] = _Watched(one, since)

    def silent(self) -> dict[int, tuple[int, int]]:
        """Incarnation and heartbeats of those who are overdue, and were watched for as long."""
        return {
            masterid: (one.last.incarnation, one.last.heartbeats)
            for masterid, one in self._watched.items()
            if one.last.overdue and one.time_is_up_at <= self._last_look
        }

    def next_look(self) -> float:
        """When to look again at the latest, for those whose time is not up yet."""
        return min(
            (
                self._next_look_at(one)
                for one in self._watched.values()
                if one.time_is_up_at > self._last_look
            ),
            default=float("inf"),
        )

    def _next_look_at(self, one: _Watched) -> float:
        """When its time will be up; earlier where it is overdue, so that no gap is too long."""
        if one.last.overdue:
            return min(one.time_is_up_at, self._last_look + one.last.expire_after / 3)
        # One that is quicker than this process is looked at closely only once it is overdue.
        return one.time_is_up_at if one.last.expire_after >= self._interval else float("inf")
