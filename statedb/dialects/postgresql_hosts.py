"""PostgreSQL's hosts: connecting to the first of several that will do, within the time there is.

libpq, and psycopg's own connect(), try one host after the other, each for two whole seconds at
least. So one that vanished, or accepts and says nothing, could use up a call's time before the one
that has taken over is asked.
"""

from __future__ import annotations

import secrets
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from statedb.dialects import remedies

Parameters = dict[str, Any]

#: After so many seconds without an answer the next host is tried as well.
HEAD_START = 0.5
#: Where one has failed while another has yet to answer, it is tried again after so many: a standby
#: may have been promoted.
REST = 0.5
#: How many seconds a host has to answer, where its URL does not say.
PATIENCE = 10.0
_UNKNOWN_SETTING = b"42704"


class Greeting(NamedTuple):
    """How a new session begins: what libpq is told, and then the server."""

    parameters: Parameters
    #: Statements without parameters; the last answers with one value.
    statements: str
    #: Which value that has to be, None where any will do.
    answer: str | None
    #: What is wrong where it is another, or none.
    refusal: str


#: Makes the greeting for one place.
Greet = Callable[[Parameters], Greeting]


class NotConnected(psycopg.OperationalError):
    """No host could be connected to; ``hopeless`` where waiting would help with none of them."""

    def __init__(self, texts: list[str]) -> None:
        # libpq gives advice in lines of their own.
        super().__init__("; ".join(dict.fromkeys(" ".join(text.split()) for text in texts)))
        self.hopeless = all(_is_hopeless(text) for text in texts)


def _is_hopeless(text: str) -> bool:
    return any(phrase in text for phrase in remedies.LIBPQ)


def connect_to_first(parameters: Parameters, seconds: float, greet: Greet) -> pq.abc.PGconn:
    """A libpq connection to the first host that will do, in the order in which they are given.

    A host will do when it has answered the greeting.

    Raises NotConnected where none does in time, and psycopg.ProgrammingError for what libpq does
    not know.
    """
    race = _Race(parameters, seconds, greet)
    try:
        return race.run()
    finally:
        race.end()


class _Try:
    """A connection to one place that is being made."""

    def __init__(self, greeting: Greeting, deadline: float) -> None:
        self.deadline = deadline
        self.waits_for = 0
        self._greeting = greeting
        self._greets = False
        self._answer: str | None = None
        conninfo = make_conninfo("", **greeting.parameters)
        self.pgconn = pq.PGconn.connect_start(conninfo.encode())

    def go_on(self) -> bool:
        """Do what can be done without waiting; whether it is connected, and has been greeted."""
        if self._greets:
            return self._is_greeted()
        if self.pgconn.status != pq.ConnStatus.BAD:
            status = self.pgconn.connect_poll()
            if status == pq.PollingStatus.OK:
                self._greets = True
                self.waits_for = selectors.EVENT_READ
                self.pgconn.send_query(self._greeting.statements.encode())
                return False
            if status in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
                reads = status == pq.PollingStatus.READING
                self.waits_for = selectors.EVENT_READ if reads else selectors.EVENT_WRITE
                return False
        raise NotConnected([self.pgconn.error_message.decode(errors="replace")])

    def _is_greeted(self) -> bool:
        self.pgconn.consume_input()
        while not self.pgconn.is_busy():
            result = self.pgconn.get_result()
            if result is None:
                if self._greeting.answer not in (None, self._answer):
                    raise NotConnected([self._greeting.refusal])
                return True
            if result.status == pq.ExecStatus.FATAL_ERROR:
                if result.error_field(pq.DiagnosticField.SQLSTATE) == _UNKNOWN_SETTING:
                    raise NotConnected([self._greeting.refusal])
                raise NotConnected([result.error_message.decode(errors="replace")])
            self._answer = (result.get_value(0, 0) or b"").decode() if result.ntuples else None
        return False


class _Race:
    """All places that a URL names, of which the first to be connected to is taken."""

    def __init__(self, parameters: Parameters, seconds: float, greet: Greet) -> None:
        now = time.monotonic()
        self._greet = greet
        self._deadline = now + seconds
        patience = float(parameters.get("connect_timeout") or 0)
        self._patience = patience if patience > 0 else PATIENCE
        #: What is wrong with each, by its number or its name.
        self._failures: dict[int | str, str] = {}
        self._places = self._found(parameters)
        head_start = min(HEAD_START, seconds / (len(self._places) + 1))
        #: When to try which, and which have not been tried yet.
        self._due = {number: now + number * head_start for number in range(len(self._places))}
        self._untried = set(self._due)
        self._tries: dict[int, _Try] = {}

    def _found(self, parameters: Parameters) -> list[Parameters]:
        """What to tell libpq for each place: one address of one host."""
        found = []
        for place in split(parameters):
            host = str(place.get("host") or "")
            if not host or host.startswith(("/", "@")) or place.get("hostaddr"):
                found.append(place)
                continue
            try:
                entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, ValueError) as error:
                self._failures[host] = f"the name of host {host!r} cannot be resolved: {error}"
                continue
            addresses = dict.fromkeys(entry[4][0] for entry in entries)
            found.extend(place | {"hostaddr": address} for address in addresses)
        if parameters.get("load_balance_hosts") == "random":
            secrets.SystemRandom().shuffle(found)
        if parameters.get("target_session_attrs") == "prefer-standby":
            # What libpq makes of that is for all hosts together, and it gets them one by one.
            standbys = [place | {"target_session_attrs": "standby"} for place in found]
            found = standbys + [place | {"target_session_attrs": "any"} for place in found]
        return found

    def run(self) -> pq.abc.PGconn:
        ready = set()
        while True:
            now = time.monotonic()
            ready |= self._begin_those_due(now)
            for number in list(self._tries):
                if self._is_connected(number, number in ready, now):
                    return self._tries.pop(number).pgconn
            if now >= self._deadline or not (self._tries or self._untried):
                raise NotConnected(list(self._failures.values()))
            ready = self._wait(now)

    def _begin_those_due(self, now: float) -> set[int]:
        begun = {number for number, when in self._due.items() if when <= now}
        if not (begun or self._tries):
            begun = {min(self._untried)} if self._untried else set()
        for number in begun:
            del self._due[number]
            self._untried.discard(number)
            greeting = self._greet(self._places[number])
            self._tries[number] = _Try(greeting, now + self._patience)
        return begun

    def _is_connected(self, number: int, ready: bool, now: float) -> bool:
        one = self._tries[number]
        try:
            if ready and one.go_on():
                return True
            if now >= min(one.deadline, self._deadline):
                raise NotConnected([f"{self._name(number)} did not answer in time"])
        except psycopg.OperationalError as error:
            self._tries.pop(number).pgconn.finish()
            self._failures[number] = str(error)
            if not _is_hopeless(str(error)):
                self._due[number] = now + REST
        return False

    def _wait(self, now: float) -> set[int]:
        """Which have something to go on with; until one has, or there is something else to do."""
        if not self._tries:
            return set()
        until = min([self._deadline, *self._due.values()])
        until = min([until, *(one.deadline for one in self._tries.values())])
        # Anew each time: libpq may go on by another socket.
        with selectors.DefaultSelector() as selector:
            for number, one in self._tries.items():
                selector.register(one.pgconn.socket, one.waits_for, number)
            return {key.data for key, _ in selector.select(max(0.0, until - now))}

    def _name(self, number: int) -> str:
        place = self._places[number]
        host = place.get("host") or place.get("hostaddr") or "the server"
        return f"{host}, port {place.get('port', 5432)},"

    def end(self) -> None:
        for one in self._tries.values():
            one.pgconn.finish()


def split(parameters: Parameters) -> list[Parameters]:
    """libpq's parameters for each host alone; ValueError where there are not as many of each."""
    several = {
        key: str(parameters[key]).split(",")
        for key in ("host", "hostaddr", "port")
        if parameters.get(key)
    }
    count = max([len(several.get(key, "")) for key in ("host", "hostaddr")])
    if len(several.get("port", "")) > max(count, 1):
        raise ValueError("more ports than hosts")
    if count <= 1:
        return [parameters]
    columns = {key: one * count if len(one) == 1 else one for key, one in several.items()}
    rows = zip(*columns.values(), strict=True)
    return [parameters | dict(zip(columns, row, strict=True)) for row in rows]
