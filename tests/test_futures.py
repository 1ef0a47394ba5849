"""The Futures of calls: for whoever has one, as concurrent.futures' own in every respect."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from functools import partial
from typing import Any

import pytest

from statedb.futures import CallFuture

#: How often a race is run; nothing is said by how long it takes.
ROUNDS = 1000


@pytest.fixture(params=[Future, CallFuture])
def new(request: pytest.FixtureRequest) -> Callable[[], Future[Any]]:
    """Makes a Future of either kind: what is asserted is asserted of both."""
    kind: Callable[[], Future[Any]] = request.param
    return kind


@pytest.fixture(autouse=True)
def eager_switches() -> Iterator[None]:
    """Have threads take turns so often that they meet within a Future."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def _resolve(future: Future[Any], outcome: Any) -> None:
    """What a worker does with a call that was made."""
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    if isinstance(future, CallFuture):
        future.call_back()


def _states(future: Future[Any]) -> tuple[bool, bool, bool, str]:
    return future.running(), future.cancelled(), future.done(), repr(future).split("state=")[1]


def test_it_tells_what_becomes_of_it(new: Callable[[], Future[Any]]) -> None:
    future = new()
    assert _states(future) == (False, False, False, "pending>")
    assert future.set_running_or_notify_cancel()
    assert _states(future) == (True, False, False, "running>")
    assert not future.cancel()
    _resolve(future, 1)
    assert _states(future) == (False, False, True, "finished returned int>")
    assert future.result() == future.result(timeout=0) == 1
    assert future.exception() is None
    assert not future.cancel()
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(KeyError())
    assert future.result() == 1


def test_it_raises_what_the_call_raised(new: Callable[[], Future[Any]]) -> None:
    future = new()
    future.set_running_or_notify_cancel()
    error = KeyError("k")
    _resolve(future, error)
    assert _states(future)[3] == "finished raised KeyError>"
    assert future.exception() is error
    for _ in range(2):
        with pytest.raises(KeyError, match="k") as raised:
            future.result()
        assert raised.value is error


def test_a_cancelled_one_is_never_made(new: Callable[[], Future[Any]]) -> None:
    future = new()
    called: list[Future[Any]] = []
    future.add_done_callback(called.append)
    assert future.cancel()
    assert future.cancel()
    assert called == [future]
    assert _states(future) == (False, True, True, "cancelled>")
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask()
    # Whoever waits is told only by the worker, which comes upon it later.
    assert wait([future], timeout=0).done == set()
    assert not future.set_running_or_notify_cancel()
    assert wait([future], timeout=0).done == {future}
    assert future.cancel()
    assert called == [future]
    future.add_done_callback(called.append)
    assert called == [future, future]


def test_waiting_in_vain_ends_when_it_was_to(new: Callable[[], Future[Any]]) -> None:
    future = new()
    for ask in (future.result, future.exception):
        with pytest.raises(TimeoutError if sys.version_info >= (3, 11) else Exception):
            ask(timeout=0.01)
    assert wait([future], timeout=0.01).not_done == {future}
    future.set_running_or_notify_cancel()
    _resolve(future, 1)
    assert future.result() == 1


def test_a_callback_that_raises_is_logged_and_harms_no_other(
    new: Callable[[], Future[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    future = new()
    called: list[int] = []

    def fail(_: Future[Any]) -> None:
        raise ZeroDivisionError

    for callback in (lambda _: called.append(1), fail, lambda _: called.append(2)):
        future.add_done_callback(callback)
    future.set_running_or_notify_cancel()
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        _resolve(future, 1)
        future.add_done_callback(fail)
        future.add_done_callback(lambda _: called.append(3))
    assert called == [1, 2, 3]
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


def _three(new: Callable[[], Future[Any]]) -> tuple[Future[Any], Future[Any], Future[Any]]:
    futures = new(), new(), new()
    for future in futures:
        future.set_running_or_notify_cancel()
    return futures


@pytest.mark.parametrize("how", [FIRST_COMPLETED, FIRST_EXCEPTION])
def test_waiting_for_the_first_of_several(new: Callable[[], Future[Any]], how: str) -> None:
    first, second, third = _three(new)
    outcome = 1 if how == FIRST_COMPLETED else KeyError()
    timer = threading.Timer(0.02, _resolve, (second, outcome))
    timer.start()
    done, rest = wait([first, second, third], timeout=30, return_when=how)
    timer.join()
    assert (done, rest) == ({second}, {first, third})


def test_several_are_had_as_they_are_completed(new: Callable[[], Future[Any]]) -> None:
    first, second, third = _three(new)
    _resolve(third, 3)
    had: list[Future[Any]] = []
    for future in as_completed([first, second, third], timeout=30):
        had.append(future)
        if future is third:
            threading.Thread(target=_resolve, args=(first, KeyError())).start()
        elif future is first:
            second.set_result(2)
    assert had == [third, first, second]


def test_asyncio_awaits_it(new: Callable[[], Future[Any]]) -> None:
    async def ask() -> list[Any]:
        futures = _three(new)
        wrapped = [asyncio.wrap_future(future) for future in futures]
        for number, future in enumerate(futures):
            outcome = number or KeyError("0")
            threading.Timer(0.01, _resolve, (future, outcome)).start()
        return await asyncio.gather(*wrapped, return_exceptions=True)

    outcomes = asyncio.run(ask())
    assert isinstance(outcomes[0], KeyError)
    assert outcomes[1:] == [1, 2]


def test_cancelling_in_asyncio_cancels_it(new: Callable[[], Future[Any]]) -> None:
    async def cancel(future: Future[Any]) -> None:
        wrapped = asyncio.wrap_future(future)
        wrapped.cancel()
        await asyncio.wait([wrapped])

    future = new()
    asyncio.run(cancel(future))
    assert future.cancelled()
    assert not future.set_running_or_notify_cancel()


# --- Races ---


@pytest.fixture
def race() -> Iterator[Callable[..., list[Any]]]:
    """Has threads do something at the same time; what each of them got."""
    with ThreadPoolExecutor(8) as threads:

        def run(*racers: Callable[[], Any]) -> list[Any]:
            start = threading.Event()

            def race(racer: Callable[[], Any]) -> Any:
                start.wait()
                return racer()

            racing = [threads.submit(race, racer) for racer in racers]
            start.set()
            return [one.result(timeout=60) for one in racing]

        yield run


def test_nobody_who_waits_misses_that_it_is_done(race: Callable[..., list[Any]]) -> None:
    for _ in range(ROUNDS):
        future: Future[Any] = CallFuture()
        future.set_running_or_notify_cancel()
        called: list[Future[Any]] = []
        outcomes = race(
            partial(_resolve, future, "done"),
            partial(future.result, timeout=30),
            partial(wait, [future], timeout=30),
            partial(next, as_completed([future], timeout=30)),
            partial(future.add_done_callback, called.append),
        )
        assert outcomes == [None, "done", ({future}, set()), future, None]
        assert called == [future]


@pytest.mark.parametrize("has_called_back", [False, True])
def test_a_callback_added_just_as_it_is_done_is_called_once(has_called_back: bool) -> None:
    called: list[Future[Any]] = []

    class Overtaken(CallFuture):
        looks = 0

        def done(self) -> bool:
            self.looks += 1
            if self.looks == 2:
                # Between the two looks, whoever makes the call ends it.
                self.set_result(1)
                if has_called_back:
                    self.call_back()
            return super().done()

    future = Overtaken()
    future.add_done_callback(called.append)
    future.call_back()
    assert called == [future]


def test_a_callback_that_is_taken_back_just_as_it_is_to_be_called_is_not_called() -> None:
    called: list[Future[Any]] = []

    class TakenBack(list[Callable[[Future[Any]], object]]):
        def pop(self, *place: Any) -> Callable[[Future[Any]], object]:
            self.clear()
            return super().pop(*place)

    future = CallFuture()
    future.set_result(1)
    future.later = TakenBack([called.append])
    future.call_back()
    assert called == []


def test_who_begins_to_wait_just_before_it_is_done_is_told() -> None:
    told: list[Any] = []

    class Watched(CallFuture):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "_state" and value == "FINISHED":
                waiter.start()
                while not self.__dict__.get("_waiters"):
                    time.sleep(0.001)
            super().__setattr__(name, value)

    for outcome in (1, KeyError()):
        future: Future[Any] = Watched()
        future.set_running_or_notify_cancel()
        waiter = threading.Thread(target=lambda it=future: told.append(wait([it], timeout=10)))
        _resolve(future, outcome)
        waiter.join()
        assert told.pop() == ({future}, set())


def test_it_is_either_made_or_cancelled(race: Callable[..., list[Any]]) -> None:
    for _ in range(ROUNDS):
        future: Future[Any] = CallFuture()
        begun, first, second = race(
            future.set_running_or_notify_cancel, future.cancel, future.cancel
        )
        assert first is second is (not begun)
        assert future.cancelled() is first
        # The worker has come upon it, whichever came first.
        assert wait([future], timeout=0).done == (set() if begun else {future})


def test_who_waits_for_a_cancelled_one_is_told(race: Callable[..., list[Any]]) -> None:
    for _ in range(ROUNDS):
        future: Future[Any] = CallFuture()
        future.cancel()
        outcomes = race(
            future.set_running_or_notify_cancel, partial(wait, [future], timeout=30), future.cancel
        )
        assert outcomes == [False, ({future}, set()), True]
