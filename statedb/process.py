"""Process: what has to be ended in order when it exits, and what its forks must not share."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from typing import Protocol, TypeVar

T = TypeVar("T")


class Resource(Protocol):
    """Something with threads or connections, which this process may leave behind in a fork."""

    def close(self) -> None: ...
    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_resources: weakref.WeakSet[Resource] = weakref.WeakSet()


class _Fork:
    """The fork that is under way; another thread's waits, or each would spoil the other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: From before it until after it, so that nothing is collected in between.
        self.resources: list[Resource] = []


_fork = _Fork()


def attend_to(resource: Resource) -> None:
    """Close it when the process exits, and tell it of forks, for as long as anybody has it."""
    _resources.add(resource)


def members_of(group: weakref.WeakSet[T]) -> list[T]:
    """What a set holds now, though other threads may be adding to it."""
    while True:
        with contextlib.suppress(RuntimeError):  # it changed meanwhile
            return list(group)


@atexit.register
def _close_all() -> None:
    for resource in members_of(_resources):
        resource.close()


def _before_fork() -> None:
    _fork.lock.acquire()
    _fork.resources = members_of(_resources)
    for resource in _fork.resources:
        resource.before_fork()


def _after_fork_in_parent() -> None:
    try:
        for resource in _fork.resources:
            resource.after_fork_in_parent()
    finally:
        _fork.resources = []
        _fork.lock.release()


def _after_fork_in_child() -> None:
    _fork.lock = threading.Lock()
    # Another thread, which is not here, may have made some meanwhile.
    for resource in dict.fromkeys([*_fork.resources, *members_of(_resources)]):
        resource.after_fork_in_child()
    _fork.resources = []


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
