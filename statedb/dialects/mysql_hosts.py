"""Hosts: the several servers of one URL, and in which order to try them."""

from __future__ import annotations

import time

Host = tuple[str, int]

#: For how many seconds a host that has failed is tried after the others only.
AVOIDED = 60.0
#: For how many seconds a host is tried at most while others are left.
PATIENCE = 3.0


class Hosts:
    """The hosts as a URL names them; those that have failed of late come last."""

    def __init__(self, hosts: tuple[Host, ...]) -> None:
        self._hosts = hosts
        #: When each failed, by the monotonic clock.
        self._failed: dict[Host, float] = {}

    def in_turn(self) -> list[Host]:
        """All of them, in the order in which to try them."""
        since = time.monotonic() - AVOIDED
        return sorted(self._hosts, key=lambda host: max(self._failed.get(host, since), since))

    def has_failed(self, host: Host) -> None:
        self._failed[host] = time.monotonic()

    def has_served(self, host: Host) -> None:
        self._failed.pop(host, None)
