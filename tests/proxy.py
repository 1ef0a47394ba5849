"""A TCP proxy before a database server that sees the statements, and cuts, holds or delays them."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import protocols
from servers import free_port

if TYPE_CHECKING:
    from typing_extensions import Self

CHUNK = 256 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time

#: A text that a statement holds, or what tells of a statement whether it matches.
Pattern = str | re.Pattern[str] | Callable[[str], bool]
Stream = Literal["requests", "answers"]


class Held:
    """A statement that waits in the proxy, or will: `arrived` is set when it does."""

    def __init__(self, wake: threading.Condition) -> None:
        self.arrived = threading.Event()
        self.released = False
        self._wake = wake

    def release(self) -> None:
        with self._wake:
            self.released = True
            self._wake.notify_all()


@dataclass
class _Rule:
    pattern: Pattern
    times: int
    held: Held | None = None
    after: bool = False
    ends: Stream | None = None

    def matches(self, statement: str) -> bool:
        if callable(self.pattern):
            return self.pattern(statement)
        if isinstance(self.pattern, str):
            return self.pattern.lower() in statement.lower()
        return self.pattern.search(statement) is not None


class Proxy:
    """Passes connections to 127.0.0.1:port on to the server, and does what it is told to them.

    A cut closes both sides at once. Rules apply to the next statements that match, on any
    connection; the oldest rule that matches is the one that applies.
    """

    def __init__(self, server_port: int, protocol: Literal["postgresql", "mysql"]) -> None:
        self.server_port = server_port
        self.port = free_port()
        self.delay = 0.0
        self.statements: list[str] = []
        #: How many statements a rule was applied to.
        self.met = 0
        self._reader = protocols.PostgreSQL if protocol == "postgresql" else protocols.MySQL
        self.wake = threading.Condition()
        self._rules: list[_Rule] = []
        self._stalled = False
        self._connections: set[Connection] = set()
        self._threads: set[threading.Thread] = set()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many are open now."""
        with self.wake:
            return len(self._connections)

    def forget(self) -> None:
        """Empties `statements`."""
        self.statements.clear()

    def cut_before(self, pattern: Pattern, times: int = 1) -> None:
        """The next statements that match do not reach the server: their connections are cut."""
        self._add(_Rule(pattern, times))

    def cut_after(self, pattern: Pattern, times: int = 1) -> None:
        """The next statements that match are carried out, and cut instead of answered."""
        self._add(_Rule(pattern, times, after=True))

    def end_requests_before(self, pattern: Pattern, times: int = 1) -> None:
        """The next statements that match do not reach the server: it sees the stream's end instead.

        What it says still reaches the client.
        """
        self._add(_Rule(pattern, times, ends="requests"))

    def end_answers_before(self, pattern: Pattern, times: int = 1) -> None:
        """The next statements that match are carried out; their clients see the stream's end.

        What these say still reaches the server.
        """
        self._add(_Rule(pattern, times, ends="answers"))

    def end_all(self, stream: Stream) -> None:
        """Ends one direction of every connection there is now; the other stays open."""
        for connection in self._present():
            connection.end_stream(stream)

    def hold_before(self, pattern: Pattern) -> Held:
        """The next statement that matches waits here until what this returns is released."""
        held = Held(self.wake)
        self._add(_Rule(pattern, 1, held=held))
        return held

    def stall(self) -> None:
        """Passes nothing on, either way, and says nothing to new connections, until resume()."""
        self._stalled = True

    def resume(self) -> None:
        with self.wake:
            self._stalled = False
            self.wake.notify_all()

    def refuse(self) -> None:
        """Cuts every connection and refuses new ones, until listen()."""
        self.refuse_new()
        self.cut_all()

    def refuse_new(self) -> None:
        """Refuses new connections, until listen()."""
        with self.wake:
            listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would not wake the thread that waits in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def listen(self) -> None:
        """Accepts connections, on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(512)
        with self.wake:
            self._listener = listener
        self.spawn("accept", lambda: self._accept(listener))

    def cut_all(self) -> None:
        """Cuts every connection there is now."""
        for connection in self._present():
            connection.cut()

    def _present(self) -> list[Connection]:
        with self.wake:
            return list(self._connections)

    def close(self) -> None:
        self.refuse()
        while self._threads:
            with contextlib.suppress(KeyError):
                self._threads.pop().join()

    def spawn(self, name: str, run: Callable[[], None]) -> None:
        def work() -> None:
            try:
                run()
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=work, name=f"proxy-{name}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def rule_for(self, statement: str) -> _Rule | None:
        """Records the statement, and uses up a rule that matches it."""
        self.statements.append(statement)
        if not self._rules:
            return None
        with self.wake:
            for rule in self._rules:
                if rule.matches(statement):
                    self.met += 1
                    rule.times -= 1
                    if rule.times == 0:
                        self._rules.remove(rule)
                    return rule
        return None

    def wait_for(self, connection: Connection, ready: Callable[[], bool]) -> None:
        with self.wake:
            self.wake.wait_for(lambda: connection.closed or ready())

    def wait_while_stalled(self, connection: Connection) -> None:
        if self._stalled:
            self.wait_for(connection, lambda: not self._stalled)

    def gone(self, connection: Connection) -> None:
        with self.wake:
            self._connections.discard(connection)
            self.wake.notify_all()

    def _add(self, rule: _Rule) -> None:
        with self.wake:
            self._rules.append(rule)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return  # refuse() closed it
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), timeout=5)
                server.settimeout(None)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                continue
            connection = Connection(self, client, server)
            with self.wake:
                self._connections.add(connection)
                refused = self._listener is not listener
            connection.start(self._reader(connection))
            if refused:
                connection.cut()


class Connection:
    """A client's socket and the server's, with a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.closed = False
        self._users = 2
        self.to_server = _Sender(self, server)
        self.to_client = _Sender(self, client)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self, reader: protocols.PostgreSQL | protocols.MySQL) -> None:
        self.proxy.spawn("requests", lambda: self._pump(self.client, reader.requests))
        self.proxy.spawn("answers", lambda: self._pump(self.server, reader.answers))

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.end()

    def end_stream(self, stream: Stream) -> None:
        """Has one side see the end of what the other says, which goes no further from now on."""
        sender = self.to_server if stream == "requests" else self.to_client
        with contextlib.suppress(OSError):
            sender.end_stream()

    def end(self) -> None:
        """Wakes the connection's threads, the last of which closes both sockets."""
        if not self.closed:
            self.closed = True
            for end in (self.client, self.server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self.proxy.gone(self)

    def meet(self, rule: _Rule) -> bool:
        """Does what the rule says before its statement is passed on; False if it must not be."""
        if rule.ends is not None:
            self.end_stream(rule.ends)
            return rule.ends == "answers"
        if rule.held is None:
            if not rule.after:
                self.cut()
            return rule.after
        held = rule.held
        held.arrived.set()
        self.proxy.wait_for(self, lambda: held.released)
        return not self.closed

    def _pump(self, source: socket.socket, pass_on: Callable[[memoryview], None]) -> None:
        space = bytearray(CHUNK)
        view = memoryview(space)
        with contextlib.suppress(OSError):
            while (size := source.recv_into(space)) and not self.closed:
                pass_on(view[:size])
        (self.to_server if source is self.client else self.to_client).finish()
        self.leave()

    def enter(self) -> None:
        with self.proxy.wake:
            self._users += 1

    def leave(self) -> None:
        # A socket closed while another thread waits on it would stay open behind a number that
        # the next socket gets.
        with self.proxy.wake:
            self._users -= 1
            last = self._users == 0
        if last:
            self.client.close()
            self.server.close()


class _Sender:
    """One direction's way out: at once, or from a thread when the delay has passed."""

    def __init__(self, connection: Connection, target: socket.socket) -> None:
        self._connection, self._target = connection, target
        self._later: queue.SimpleQueue[tuple[float, bytes]] | None = None
        self._ended = False

    def end_stream(self) -> None:
        self._ended = True
        self._target.shutdown(socket.SHUT_WR)

    def send(self, chunk: memoryview | bytearray) -> None:
        if self._ended:
            return
        delay = self._connection.proxy.delay
        if self._later is None:
            if not delay:
                self._connection.proxy.wait_while_stalled(self._connection)
                self._target.sendall(chunk)
                return
            self._later = queue.SimpleQueue()
            self._connection.enter()
            self._connection.proxy.spawn("delay", self._run)
        self._later.put((time.perf_counter() + delay, bytes(chunk)))

    def finish(self) -> None:
        if self._later is None:
            self._connection.end()
        else:
            self._later.put((time.perf_counter() + self._connection.proxy.delay, b""))

    def _run(self) -> None:
        assert self._later is not None
        _sleep_precisely()
        lateness = 0.0  # of waking up, which differs by machine and load: learnt, and deducted
        with contextlib.suppress(OSError):
            while True:
                due, chunk = self._later.get()
                if (rest := due - lateness - time.perf_counter()) > 0:
                    time.sleep(rest)
                    error = time.perf_counter() - due
                    lateness = min(max(lateness + error / 8, 0.0), 0.0005)
                if not chunk:
                    break
                self._connection.proxy.wait_while_stalled(self._connection)
                self._target.sendall(chunk)
        self._connection.end()
        self._connection.leave()


def _sleep_precisely() -> None:
    # Linux lets a thread's sleep end 50 µs late unless it is told otherwise (PR_SET_TIMERSLACK).
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
