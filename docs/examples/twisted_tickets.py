"""A ticket dispenser, on Twisted: who sends it a desk's name gets that desk's next number.

    $ nc 127.0.0.1 7777
    passports
    passports 1

The last numbers are in the database: they go on after a restart, and several dispensers on one
database, on whatever machines, never give a number twice.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import Future
from typing import Any, TypeVar

from twisted.internet import defer, endpoints, protocol, task, threads
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.protocols.basic import LineOnlyReceiver

import statedb

T = TypeVar("T")
reactor: Any = installed_reactor


def deferred(future: Future[T]) -> Deferred[T]:
    """A Deferred of what a Future gives, fired on the reactor's thread."""

    def cancel(_: Deferred[T]) -> None:
        future.cancel()

    def fire() -> None:
        if result.called:
            return  # it was cancelled meanwhile
        error = defer.CancelledError() if future.cancelled() else future.exception()
        result.callback(future.result()) if error is None else result.errback(error)

    result: Deferred[T] = Deferred(cancel)
    future.add_done_callback(lambda _: reactor.callFromThread(fire))
    return result


class Visitor(LineOnlyReceiver):
    """One connection: each line is a desk's name, and is answered by a line."""

    delimiter = b"\n"

    def __init__(self, db: statedb.Database, desks: int) -> None:
        self._db = db
        self._desks = desks

    def lineReceived(self, line: bytes) -> None:
        Deferred.fromCoroutine(self._answer(line))

    async def _answer(self, line: bytes) -> None:
        try:
            desk = line.decode().strip()
            ticket = self._db.state.updateState(self._desks, desk, lambda last: last + 1, default=0)
            answer = f"{desk} {await deferred(ticket)}"
        except (UnicodeDecodeError, statedb.Error) as error:
            answer = f"no ticket: {error}"
        self.sendLine(answer.encode())


async def serve(url: str, port: int) -> None:
    db = statedb.connect(url, timeout=10)
    # Before the reactor stops, whoever still waits for a ticket gets it. In a thread: to wait for
    # that here would keep the reactor from handing it out.
    reactor.addSystemEventTrigger("before", "shutdown", threads.deferToThread, db.close)
    await threads.deferToThread(db.upgrade)
    desks = await deferred(db.state.getObjectId("desks", "Tickets"))
    visitors = protocol.Factory.forProtocol(lambda: Visitor(db, desks))
    endpoint = endpoints.TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
    listening = await endpoint.listen(visitors)
    print(f"Tickets at port {listening.getHost().port}", flush=True)
    await Deferred()  # until a signal stops the reactor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="sqlite:///tickets.sqlite", help="default: %(default)s")
    parser.add_argument(
        "--port", type=int, default=7777, help="default: %(default)s; 0: a free one"
    )
    options = parser.parse_args()

    def run(_: Any) -> Deferred[None]:
        serving = Deferred.fromCoroutine(serve(options.url, options.port))
        return serving.addErrback(complain)

    def complain(failure: Any) -> None:
        failure.trap(statedb.Error, OSError, CannotListenError)
        print(f"twisted_tickets: {failure.value}", file=sys.stderr)
        raise SystemExit(1)

    task.react(run)


if __name__ == "__main__":
    main()
