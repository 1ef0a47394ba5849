"""Process: what has to be ended in order when it exits, and what its forks must not share."""

from __future__ import annotations

import atexit
import contextlib
import os
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

# From before a fork until after it, so that nothing is collected in between.
_forking: list[Resource] = []


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
    _forking.extend(members_of(_resources))
    for resource in _forking:
        resource.before_fork()


def _after_fork_in_parent() -> None:
    for resource in _forking:
        resource.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for resource in _forking:
        resource.after_fork_in_child()
    _forking.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
