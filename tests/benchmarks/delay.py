"""A proxy that passes everything on some time later, and adds as little to it as it can.

``python -m benchmarks.delay PORT SECONDS`` tells the port on which it listens; its end is that of
its input. tests/proxy.py can do more to a connection, and takes a thread's time for each.
"""

from __future__ import annotations

import ctypes
import json
import select
import socket
import sys
import time
from collections import deque
from typing import Any

CHUNK = 256 * 1024
#: How long before a chunk is due it is waited for without sleeping.
SPIN = 0.00005


class Delay:
    """Passes connections on to a port of this host."""

    def __init__(self, port: int, seconds: float) -> None:
        self._server = ("127.0.0.1", port)
        self._seconds = seconds
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._other: dict[socket.socket, socket.socket] = {}
        # In the order in which they came, which is that in which they are due.
        self._waiting: deque[tuple[float, socket.socket, bytes]] = deque()

    def run(self) -> None:
        while True:
            # select() takes microseconds where epoll would take milliseconds.
            rest = self._waiting[0][0] - time.perf_counter() - SPIN if self._waiting else None
            patience = None if rest is None else max(0.0, rest)
            sources: list[Any] = [0, self._listener, *self._other]
            readable, _, _ = select.select(sources, [], [], patience)
            for source in readable:
                if source == 0:
                    return
                self._listen() if source is self._listener else self._read(source)
            while self._waiting and self._waiting[0][0] <= time.perf_counter():
                self._pass_on(*self._waiting.popleft()[1:])

    def _listen(self) -> None:
        client = self._listener.accept()[0]
        server = socket.create_connection(self._server)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._other |= {client: server, server: client}

    def _read(self, source: socket.socket) -> None:
        try:
            chunk = source.recv(CHUNK)
        except OSError:
            chunk = b""
        target = self._other[source]
        if not chunk:
            del self._other[source]
        self._waiting.append((time.perf_counter() + self._seconds, target, chunk))

    def _pass_on(self, target: socket.socket, chunk: bytes) -> None:
        try:
            if chunk:
                target.sendall(chunk)
            else:
                target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has gone, which the other side will hear in time


def main() -> None:
    # Linux lets a thread sleep 50 µs longer than it was to, unless it is told otherwise
    # (PR_SET_TIMERSLACK).
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
    delay = Delay(int(sys.argv[1]), float(sys.argv[2]))
    print(json.dumps({"port": delay.port}), flush=True)
    delay.run()


if __name__ == "__main__":
    main()
