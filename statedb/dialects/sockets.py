"""What a client can tell of, and do to, a server connection's socket without its driver."""

from __future__ import annotations

import contextlib
import os
import select
import socket


def is_readable(descriptor: int) -> bool:
    """Whether something waits to be read: on an idle connection, its end or a notice of it."""
    if not hasattr(select, "poll"):  # Windows, where select() takes any socket
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def shut_down(descriptor: int) -> None:
    """End a connection under a thread that waits for it, which then sees it lost.

    Works on a duplicate: closing the descriptor itself could hit its next owner.
    """
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
