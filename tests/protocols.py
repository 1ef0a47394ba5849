"""The wire protocols as the proxy reads them: where a statement begins, where its answer ends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy import Connection


class PostgreSQL:
    """Reads PostgreSQL's protocol: a type, a length that counts itself, a body."""

    ENCRYPTION_REQUESTS = (80877103, 80877104)
    CANCEL_REQUEST = 80877102
    FRAME = struct.Struct(">BI")

    def __init__(self, connection: Connection) -> None:
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


class MySQL:
    """Reads MySQL's protocol: a length, a number in its sequence, a body."""

    QUERY = 3
    OK, LOCAL_FILE, END, ERROR = 0x00, 0xFB, 0xFE, 0xFF
    MORE_RESULTS = 0x0008
    ENCRYPTION_REQUEST_SIZE = 36
    LONGEST = 0xFFFFFF

    def __init__(self, connection: Connection) -> None:
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
