"""What a client can tell of, and do to, a server connection's socket without its driver."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable


def readability_check(descriptor: int) -> Callable[[], bool]:
    """Makes the check whether something waits to be read: on an idle connection, its end.

    A descriptor that was closed counts as readable.
    """
    if not hasattr(select, "poll"):  # Windows, where select() takes any socket
        return lambda: bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda: bool(poll.poll(0))


def shut_down(descriptor: int) -> None:
    """End a connection under a thread that waits for it, which then sees it lost.

    Works on a duplicate: closing the descriptor itself could hit its next owner.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


# How many seconds of silence until the peer is asked whether it is there; how long, and how often,
# it may not answer; and how long it may leave unacknowledged what was sent. The system's own are
# two hours and a quarter of one, and many a firewall forgets an idle connection in minutes.
_IDLE, _INTERVAL, _PROBES = 10, 3, 3
_UNACKNOWLEDGED = _IDLE + _INTERVAL * _PROBES


def keep_alive(descriptor: int) -> None:
    """Have the system find out within seconds that a connection's other end has vanished."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            return
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # macOS calls the first of them otherwise.
        idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"
        for option, value in (
            (idle, _IDLE),
            ("TCP_KEEPINTVL", _INTERVAL),
            ("TCP_KEEPCNT", _PROBES),
            ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED * 1000),
        ):
            if hasattr(socket, option):
                duplicate.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
