"""Lanes: which of the pending jobs may run, so that what touches the same keeps its order."""

from __future__ import annotations

from typing import Any


class Job:
    """Something submitted, as far as its order is concerned."""

    __slots__ = ("_blockers", "_followers", "_lanes")

    def __init__(self) -> None:
        self._blockers = 0
        self._followers: list[Job] = []
        self._lanes: tuple[_Lane, ...] = ()

    def _follow(self, others: list[Job]) -> None:
        for other in others:
            other._followers.append(self)
        self._blockers += len(others)


class _Lane:
    """The unfinished jobs on one key of a group: the last that writes, and the reads after it."""

    __slots__ = ("key", "readers", "writer")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.writer: list[Job] = []
        self.readers: dict[Job, None] = {}

    def add(self, job: Job, reads: bool) -> None:
        if reads:
            job._follow(self.writer)
            self.readers[job] = None
        else:
            # The readers followed the writer, so following them is enough.
            job._follow(list(self.readers) or self.writer)
            self.writer, self.readers = [job], {}
        job._lanes += (self,)

    def copy(self, whole: _Lane) -> None:
        """Stand behind the jobs that touch every key of the group."""
        self.writer, self.readers = list(whole.writer), dict(whole.readers)
        for job in (*self.writer, *self.readers):
            job._lanes += (self,)

    def remove(self, job: Job) -> bool:
        """Take a finished job out; whether the lane is empty now."""
        if job in self.writer:
            self.writer = []
        else:
            self.readers.pop(job, None)
        return not self.writer and not self.readers


_WHOLE_GROUP = object()


class Lanes:
    """Admits jobs, in an order that its owner's lock keeps.

    A job touches some keys of a group, or all. It waits for the earlier jobs that touch a key of
    its own, unless both only read.
    """

    def __init__(self) -> None:
        self._groups: dict[Any, dict[Any, _Lane]] = {}

    def admit(self, job: Job, group: Any, keys: tuple[Any, ...] | None, reads: bool) -> bool:
        """Put a job behind those that it must wait for; whether it may run at once."""
        lanes = self._groups.setdefault(group, {})
        whole = lanes.get(_WHOLE_GROUP)
        if keys is None:
            # It touches every key there is a job on, and stands in the way of those to come.
            if whole is None:
                whole = lanes[_WHOLE_GROUP] = _Lane((group, _WHOLE_GROUP))
            for lane in lanes.values():
                lane.add(job, reads)
        else:
            for key in dict.fromkeys(keys):
                if key not in lanes:
                    lanes[key] = _Lane((group, key))
                    if whole is not None:
                        lanes[key].copy(whole)
                lanes[key].add(job, reads)
        return job._blockers == 0

    def finish(self, job: Job) -> list[Job]:
        """Let go of a finished job; those that may run now."""
        for lane in job._lanes:
            if lane.remove(job):
                group, key = lane.key
                lanes = self._groups[group]
                if lanes.get(key) is lane:
                    del lanes[key]
                if not lanes:
                    del self._groups[group]
        freed = []
        for follower in job._followers:
            follower._blockers -= 1
            if follower._blockers == 0:
                freed.append(follower)
        return freed
