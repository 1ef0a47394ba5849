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

from servers import free_port

if TYPE_CHECKING:
    from typing_extensions import Self

CHUNK = 256 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time

Pattern = str | re.Pattern[str]


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

    def matches(self, statement: str) -> bool:
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
        self._reader = _PostgreSQL if protocol == "postgresql" else _MySQL
        self.wake = threading.Condition()
        self._rules: list[_Rule] = []
        self._stalled = False
        self._connections: set[_Connection] = set()
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
        with self.wake:
            listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would not wake the thread that waits in accept().
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut_all()

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
        with self.wake:
            present = list(self._connections)
        for connection in present:
            connection.cut()

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
                    rule.times -= 1
                    if rule.times == 0:
                        self._rules.remove(rule)
                    return rule
        return None

    def wait_for(self, connection: _Connection, ready: Callable[[], bool]) -> None:
        with self.wake:
            self.wake.wait_for(lambda: connection.closed or ready())

    def wait_while_stalled(self, connection: _Connection) -> None:
        if self._stalled:
            self.wait_for(connection, lambda: not self._stalled)

    def gone(self, connection: _Connection) -> None:
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
            connection = _Connection(self, client, server)
            with self.wake:
                self._connections.add(connection)
                refused = self._listener is not listener
            connection.start(self._reader(connection))
            if refused:
                connection.cut()


class _Connection:
    """A client's socket and the server's, with a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.closed = False
        self._users = 2
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self, reader: _PostgreSQL | _MySQL) -> None:
        self.to_server = _Sender(self, self.server)
        self.to_client = _Sender(self, self.client)
        self.proxy.spawn("requests", lambda: self._pump(self.client, reader.requests))
        self.proxy.spawn("answers", lambda: self._pump(self.server, reader.answers))

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.end()

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

    def __init__(self, connection: _Connection, target: socket.socket) -> None:
        self._connection, self._target = connection, target
        self._later: queue.SimpleQueue[tuple[float, bytes]] | None = None

    def send(self, chunk: memoryview | bytearray) -> None:
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


class _PostgreSQL:
    """Reads PostgreSQL's protocol: a type, a length that counts itself, a body."""

    ENCRYPTION_REQUESTS = (80877103, 80877104)
    CANCEL_REQUEST = 80877102
    FRAME = struct.Struct(">BI")

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._texts: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._started = False
        self._encryption_asked = False
        self._opaque = False
        self._requests = bytearray()
        self._answers = b""
        self._rest = 0
        # Every Query and every Sync ends a round, and so does the login, which is round 0. The
        # server ends its answer to a round with ReadyForQuery.
        self._round = 0
        self._answered = 0
        self._doomed: int | None = None

    def requests(self, chunk: memoryview) -> None:
        send = self._connection.to_server.send
        if self._opaque:
            send(chunk)
            return
        unread = self._requests
        unread += chunk
        sent = group = position = 0
        while (end := self._end(position)) <= len(unread):
            kind = unread[position : position + 1] if self._started else b""
            statement = self._read(bytes(kind), bytes(unread[position:end]))
            if statement is not None and (rule := self._connection.proxy.rule_for(statement)):
                if group > sent:
                    send(unread[sent:group])
                sent = group
                if not self._connection.meet(rule):
                    return
                if rule.after:
                    self._doomed = self._round
            if kind in (b"Q", b"S", b"F"):
                self._round += 1
            position = end
            if kind not in (b"P", b"B", b"D"):
                group = position  # a statement's Parse and Bind go with its Execute
        if position > sent:
            send(unread[sent:position])
        del unread[:position]

    def _end(self, position: int) -> int:
        """Where the request at this position ends; beyond what there is, if not known yet."""
        start = position + self._started
        if len(self._requests) < start + 4:
            return len(self._requests) + 1
        return start + int.from_bytes(self._requests[start : start + 4], "big")

    def _read(self, kind: bytes, frame: bytes) -> str | None:
        """The statement that the request carries out, if it does."""
        if kind == b"Q":
            return frame[5:-1].decode(errors="replace")
        if kind == b"P":
            name, text, _ = frame[5:].split(b"\0", 2)
            self._texts[name] = text.decode(errors="replace")
        elif kind == b"B":
            portal, name, _ = frame[5:].split(b"\0", 2)
            self._portals[portal] = self._texts.get(name, "")
        elif kind == b"E":
            return self._portals.get(frame[5:].split(b"\0", 1)[0], "")
        elif kind == b"C" and frame[5:6] == b"S":
            self._texts.pop(frame[6:-1], None)
        elif not kind:
            code = int.from_bytes(frame[4:8], "big")
            if code in self.ENCRYPTION_REQUESTS:
                self._encryption_asked = True
            elif code != self.CANCEL_REQUEST:
                self._started = True
                self._round = 1
        return None

    def answers(self, chunk: memoryview) -> None:
        send = self._connection.to_client.send
        if self._encryption_asked:
            self._encryption_asked = False
            self._opaque = chunk[0] != ord("N")
            send(chunk)  # the one byte is no frame
        elif self._opaque:
            send(chunk)
        elif passed := self._passed(memoryview(self._answers + chunk) if self._answers else chunk):
            send(passed)

    def _passed(self, chunk: memoryview) -> memoryview:
        """What the client may have of the whole frames in the chunk."""
        passed = 0 if self._answered == self._doomed else None
        position, size = self._rest, len(chunk)
        while position + 5 <= size:
            kind, length = self.FRAME.unpack_from(chunk, position)
            if kind == ord("Z"):
                if position + 6 > size:
                    break
                if self._answered == self._doomed:
                    self._connection.cut()
                    return chunk[:0]
                self._answered += 1
                if self._answered == self._doomed:
                    passed = position + 6
            position += 1 + length
        self._answers = bytes(chunk[position:])
        self._rest = max(position - size, 0)
        return chunk[: min(position, size) if passed is None else passed]


class _MySQL:
    """Reads MySQL's protocol: a length, a number in its sequence, a body."""

    QUERY = 3
    OK, LOCAL_FILE, END, ERROR = 0x00, 0xFB, 0xFE, 0xFF
    MORE_RESULTS = 0x0008
    ENCRYPTION_REQUEST_SIZE = 36
    LONGEST = 0xFFFFFF

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._requests = bytearray()
        self._answers = bytearray()
        self._greeted = False
        self._opaque = False
        self._doomed = False
        self._continued = False
        self._ends_seen: int | None = None

    def requests(self, chunk: memoryview) -> None:
        unread, send = self._requests, self._connection.to_server.send
        if self._opaque:
            send(chunk)
            return
        unread += chunk
        sent = position = 0
        while len(unread) >= position + 4:
            end = position + 4 + int.from_bytes(unread[position : position + 3], "little")
            if len(unread) < end:
                break
            if not self._greeted:
                self._greeted = True
                self._opaque = end == self.ENCRYPTION_REQUEST_SIZE
            # What the client says while it logs in answers the server: its number is not 0.
            if unread[position + 3 : position + 5] == bytes([0, self.QUERY]):
                statement = unread[position + 5 : end].decode(errors="replace")
                if rule := self._connection.proxy.rule_for(statement):
                    if position > sent:
                        send(unread[sent:position])
                    sent = position
                    if not self._connection.meet(rule):
                        return
                    self._doomed = rule.after
            position = len(unread) if self._opaque else end
        if position > sent:
            send(unread[sent:position])
        del unread[:position]

    def answers(self, chunk: memoryview) -> None:
        if not self._doomed:
            self._connection.to_client.send(chunk)
            return
        self._answers += chunk
        while len(self._answers) >= 4:
            end = 4 + int.from_bytes(self._answers[:3], "little")
            if len(self._answers) < end:
                return
            body = bytes(self._answers[4:end])
            del self._answers[:end]
            if not self._continued and self._ends(body):
                self._connection.cut()
                return
            self._continued = len(body) == self.LONGEST

    def _ends(self, body: bytes) -> bool:
        """Whether the packet, which continues no other, is the last of the answer."""
        kind = body[0]
        if kind == self.ERROR:
            return True
        if self._ends_seen is None:
            if kind == self.OK:
                position = 1
                for _ in ("rows", "last id"):
                    position += {0xFC: 3, 0xFD: 4, 0xFE: 9}.get(body[position], 1)
                return not self._more(body[position : position + 2])
            if kind != self.LOCAL_FILE:
                self._ends_seen = 0
        elif kind == self.END and len(body) < 9:
            self._ends_seen += 1  # the first is after the columns, the second after the rows
            if self._ends_seen == 2:
                self._ends_seen = None
                return not self._more(body[3:5])
        return False

    def _more(self, status: bytes) -> bool:
        return bool(int.from_bytes(status, "little") & self.MORE_RESULTS)
