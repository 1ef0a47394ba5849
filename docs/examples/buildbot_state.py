"""Keeps what a Buildbot 4 master remembers in statedb, in place of its tables ``object_state``.

Put this file beside ``buildbot.tac``, and these lines at the end of that:

    import sys

    sys.path.insert(0, basedir)
    import buildbot_state

    buildbot_state.keep_state(m, "postgresql://buildbot@db.example.org/state")

That is the moment: the master is made, and nothing has asked it for state yet; master.cfg, which it
reads later, never gets hold of it. A service in ``c['services']`` would come too late: others there
have had their object's id from Buildbot's own tables by then, and it would be closed while
schedulers still say what they have done last.

The database is opened when the master's own is, before masterid, schedulers and www; its tables are
made if they are not there. It is closed after all of them, when what they asked for is done.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from buildbot.db.state import StateConnectorComponent
from twisted.application.service import Service
from twisted.internet import defer, reactor, threads
from twisted.internet.defer import Deferred

import statedb

T = TypeVar("T")

Thunk: Any = StateConnectorComponent.Thunk


def keep_state(master: Any, url: str) -> None:
    """Have a master that was not started yet keep its state in the database at this URL."""
    master.db.state.disownServiceParent()
    master.db.state = State(url)
    # A part of it: started right after it was set up, and stopped when all else has stopped.
    master.db.state.setServiceParent(master.db)


class State(Service):
    """What a master holds as ``master.db.state``; each method gives a Deferred.

    It is as Buildbot's own, but for this: a name of any length is kept whole, NaN is no JSON, and
    there is no value of an object that does not exist (KeyError). What was set comes back from
    setState, and a set that meets another's of the same new name says whose it was.
    """

    Thunk = Thunk

    def __init__(self, url: str) -> None:
        self._url = url
        self._database: statedb.Database | None = None

    def startService(self) -> Deferred[None]:
        super().startService()
        # Nothing is opened before upgrade(), which waits for the database: not on this thread.
        self._database = statedb.connect(self._url)
        return threads.deferToThread(self._database.upgrade)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._database is None:
            return defer.succeed(None)
        # It finishes what was asked for, and so what anybody still waits for.
        return threads.deferToThread(self._database.close)

    def getObjectId(self, name: str, class_name: str) -> Deferred[int]:
        return self._ask(lambda state: state.getObjectId(name, class_name))

    def getState(self, objectid: int, name: str, default: Any = Thunk) -> Deferred[Any]:
        given = () if default is Thunk else (default,)
        return self._ask(lambda state: state.getState(objectid, name, *given))

    def setState(self, objectid: int, name: str, value: Any) -> Deferred[Any]:
        return self._ask(lambda state: state.setState(objectid, name, value))

    def atomicCreateState(
        self, objectid: int, name: str, thd_create_callback: Callable[[], Any]
    ) -> Deferred[Any]:
        return self._ask(lambda state: state.atomicCreateState(objectid, name, thd_create_callback))

    def updateState(
        self,
        objectid: int,
        name: str,
        thd_update_callback: Callable[[Any], Any],
        default: Any = Thunk,
    ) -> Deferred[Any]:
        """Not in Buildbot's: of changes that several masters make at once none is lost."""
        given = () if default is Thunk else (default,)
        return self._ask(
            lambda state: state.updateState(objectid, name, thd_update_callback, *given)
        )

    def _ask(self, call: Callable[[statedb.StateConnector], Future[T]]) -> Deferred[T]:
        if self._database is None:
            return defer.fail(RuntimeError("the master is not started: it has no state yet"))
        # What is wrong at once, as after the end, is the Deferred's error too.
        return defer.execute(call, self._database.state).addCallback(deferred)


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
