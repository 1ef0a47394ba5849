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
