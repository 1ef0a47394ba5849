"""Lanes: which of the pending jobs may run, so that what touches the same keeps its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Job:
    """Something submitted, as far as its order is concerned."""

    __slots__ = ("_phases", "_waits_for", "withdrawn")

    def __init__(self) -> None:
        self._phases: list[_Phase] = []
        #: How many of these have not begun.
        self._waits_for = 0
        #: It is not to be done: what follows it need only wait for what it waits for.
        self.withdrawn = False

    @property
    def waits(self) -> bool:
        return self._waits_for > 0


class _Phase:
    """Jobs on one key that may run side by side: any number that read, or one that writes.

    It begins when the phase before it has ended, which is when all jobs of that are finished.
    """

    __slots__ = ("begun", "following", "group", "key", "reads", "unfinished", "waiting")

    def __init__(self, group: Any, key: Any, reads: bool, begun: bool) -> None:
        self.group = group
        self.key = key
        self.reads = reads
        self.begun = begun
        self.unfinished = 0
        # Mostly there is nothing of either, and a list would be the largest part of a phase.
        self.waiting: list[Job] | None = None
        self.following: list[_Phase] | None = None

    def take_in(self, job: Job) -> None:
        self.unfinished += 1
        job._phases.append(self)
        if not self.begun:
            job._waits_for += 1
            if self.waiting is None:
                self.waiting = []
            self.waiting.append(job)

    def follow(self, earlier: _Phase) -> None:
        if earlier.following is None:
            earlier.following = []
        earlier.following.append(self)


_WHOLE_GROUP = object()


class Lanes:
    """Admits jobs, in an order that its owner's lock keeps.

    A job touches some keys of a group, or all. It waits for the earlier jobs that touch a key of
    its own, unless both only read.
    """

    def __init__(self) -> None:
        #: By group and key, the last phase.
        self._groups: dict[Any, dict[Any, _Phase]] = {}

    def admit(self, job: Job, group: Any, keys: tuple[Any, ...] | None, reads: bool) -> bool:
        """Put a job behind those that it must wait for; whether it may run at once."""
        lanes = self._groups.setdefault(group, {})
        if keys is None:
            # It touches every key there is a job on, and stands in the way of those to come.
            keys = (*lanes, _WHOLE_GROUP)
        # Where there are jobs on all keys, a key that has none of its own comes after those.
        whole = lanes.get(_WHOLE_GROUP)
        for key in keys if len(keys) == 1 else dict.fromkeys(keys):
            last = lanes.get(key, whole)
            # One that others wait for takes nobody in: all waiting is for what came earlier.
            if last is not None and last.reads and reads and last.following is None:
                last.take_in(job)
                continue
            phase = _Phase(group, key, reads, begun=last is None)
            # Who submits it may be interrupted: a phase that is in line has somebody who ends it.
            phase.take_in(job)
            if last is not None:
                phase.follow(last)
            lanes[key] = phase
        if not lanes:
            del self._groups[group]
        return job._waits_for == 0

    def finish(self, job: Job) -> list[Job]:
        """Let go of a finished job; those that may run now."""
        freed = []
        for phase in job._phases:
            phase.unfinished -= 1
            if phase.unfinished == 0:
                self._remove(phase)
                for following in phase.following or ():
                    following.begun = True
                    for waiting in following.waiting or ():
                        waiting._waits_for -= 1
                        if waiting._waits_for == 0:
                            freed.append(waiting)
                    following.waiting = None
        return freed

    def _remove(self, phase: _Phase) -> None:
        lanes = self._groups.get(phase.group)
        if lanes is not None and lanes.get(phase.key) is phase:
            del lanes[phase.key]
            if not lanes:
                del self._groups[phase.group]


def touched_by(
    touches: Callable[..., tuple[Any, tuple[Any, ...] | None]] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> tuple[Any, tuple[Any, ...] | None] | None:
    """What a call touches; None where that cannot be told, as of arguments it will not take."""
    if touches is None:
        return None
    try:
        group, keys = touches(*args, **kwargs)
        if type(group) is not int:
            group = _plain(group)
        if keys is not None:
            keys = tuple([key if type(key) is str else _plain(key) for key in keys])
        touched = group, keys
        hash(touched)
    except Exception:
        return None
    return touched


def _plain(key: Any) -> Any:
    """A key that compares as a str does, whatever a subclass of it would do under our lock."""
    if isinstance(key, tuple):
        return tuple([_plain(one) for one in key])
    return str.__str__(key) if isinstance(key, str) else key
