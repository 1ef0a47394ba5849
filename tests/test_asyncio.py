"""That asyncio programs await what connectors give: in several loops, cancelled, out of time.

All of it in asyncio's debug mode, and with nothing that a loop, or the logs, complain of.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from conftest import ABSENT

import statedb
from statedb import Database, NoSuchStateError

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

POOL = 4  # connect()'s own
LOOPS, TASKS = 4, 25
MANY = 60


@pytest.fixture
def run(caplog: pytest.LogCaptureFixture) -> Iterator[Run[Any]]:
    """Runs a coroutine in a loop of its own; fails by whatever is complained of, then or later."""
    complaints: list[dict[str, Any]] = []

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        async def watched() -> T:
            loop = asyncio.get_running_loop()
            loop.slow_callback_duration = 60.0  # how fast the machine is, is no business of ours
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            return await coroutine

        return asyncio.run(watched(), debug=True)

    yield run
    gc.collect()  # a Future whose error nobody has asked for says so when it is garbage
    assert complaints == []
    logged = [*caplog.get_records("call"), *caplog.records]
    assert [one.getMessage() for one in logged if one.levelname != "DEBUG"] == []


class Block:
    """What occupies the worker that runs it, from when it has begun until it may go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, value: Any = None) -> Any:
        self.begun.set()
        assert self.go_on.wait(60)
        return value

    def occupy(self, conn: statedb.Connection) -> None:
        self()

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 60)


@pytest.fixture
def blocks() -> Iterator[list[Block]]:
    """As many as there are workers; they all go on at the end."""
    blocks = [Block() for _ in range(POOL)]
    yield blocks
    for block in blocks:
        block.go_on.set()


async def occupy(db: Database, blocks: list[Block]) -> list[Future[Any]]:
    """Have all workers be busy until the blocks go on."""
    futures = [db.submit(block.occupy) for block in blocks]
    for block in blocks:
        await block.has_begun()
    return futures


def all_at_work(db: Database) -> None:
    """That no worker is stuck: all of them do something at the same time."""
    gate = threading.Barrier(POOL)
    for future in [db.submit(lambda conn: gate.wait(60)) for _ in range(POOL)]:
        future.result(60)


async def cancelled(task: asyncio.Future[Any]) -> bool:
    """Whether a task that is cancelled ends by that, and at once."""
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=30)
    return done == {task} and task.cancelled()


def awaited(future: Future[T]) -> asyncio.Task[T]:
    """A task that awaits a Future."""

    async def wait() -> T:
        return await asyncio.wrap_future(future)

    return asyncio.create_task(wait())


# --- Several loops ---


def test_loops_in_several_threads_await_one_database(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
) -> None:
    async def one(loop: int, number: int) -> int:
        name = f"{loop} {number}"
        here = threading.get_ident()
        with pytest.raises(NoSuchStateError):
            await asyncio.wrap_future(db.state.getState(objectid, name))
        assert await asyncio.wrap_future(db.state.setState(objectid, name, number)) == number
        assert await asyncio.wrap_future(db.state.getState(objectid, name)) == number
        count = await asyncio.wrap_future(
            db.state.updateState(objectid, "count", lambda count: count + 1, 0)
        )
        assert threading.get_ident() == here
        return int(count)

    async def all_of(loop: int) -> list[int]:
        return list(await asyncio.gather(*(one(loop, number) for number in range(TASKS))))

    with ThreadPoolExecutor(LOOPS) as threads:
        of_loops = threads.map(lambda loop: run(all_of(loop)), range(LOOPS))
        counts = [count for counts in of_loops for count in counts]
    assert sorted(counts) == list(range(1, LOOPS * TASKS + 1))
    assert stored(objectid, "count") == LOOPS * TASKS


def test_a_task_may_await_what_another_loop_has_asked_for(
    db: Database, objectid: int, run: Run[Any], blocks: list[Block]
) -> None:
    async def ask() -> Future[Any]:
        (future,) = await occupy(db, blocks[:1])
        return future

    async def wait(future: Future[Any]) -> Any:
        task = awaited(future)
        await asyncio.sleep(0)
        assert not task.done()
        blocks[0].go_on.set()
        return await task

    future = run(ask())
    assert run(wait(future)) is None


# --- Cancelled ---


def test_a_task_cancelled_before_its_call_begins_changes_nothing(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any], blocks: list[Block]
) -> None:
    async def main() -> None:
        busy = await occupy(db, blocks)
        setting = awaited(db.state.setState(objectid, "last", 7))
        await asyncio.sleep(0)
        assert await cancelled(setting)
        for block in blocks:
            block.go_on.set()
        for future in busy:
            await asyncio.wrap_future(future)
        # Whatever was before this in line is through.
        assert await asyncio.wrap_future(db.state.getState(objectid, "last", None)) is None

    run(main())
    assert stored(objectid, "last") is ABSENT


def test_a_task_cancelled_before_it_runs_asks_for_nothing(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
) -> None:
    async def main() -> None:
        async def put() -> None:
            await asyncio.wrap_future(db.state.setState(objectid, "last", 7))

        assert await cancelled(asyncio.create_task(put()))
        assert await asyncio.wrap_future(db.state.getState(objectid, "last", None)) is None

    run(main())
    assert stored(objectid, "last") is ABSENT


def test_a_task_cancelled_while_its_call_waits_for_another_lets_the_next_one_follow(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
) -> None:
    block = Block()

    async def main() -> None:
        first = awaited(db.state.updateState(objectid, "last", lambda _: block("first"), None))
        await block.has_begun()
        second = awaited(db.state.setState(objectid, "last", "second"))
        third = awaited(db.state.updateState(objectid, "last", lambda last: f"{last}, third"))
        await asyncio.sleep(0)
        assert await cancelled(second)
        block.go_on.set()
        assert (await first, await third) == ("first", "first, third")

    try:
        run(main())
    finally:
        block.go_on.set()
    assert stored(objectid, "last") == "first, third"


def test_a_task_cancelled_while_its_call_runs_goes_on_at_once_and_the_value_is_written(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
) -> None:
    block = Block()

    async def main() -> None:
        future = db.state.updateState(objectid, "last", lambda _: block(7), None)
        await block.has_begun()
        assert await cancelled(awaited(future))
        assert not block.go_on.is_set()
        assert not future.cancelled()
        block.go_on.set()
        # Who comes later finds what was done.
        assert await asyncio.wrap_future(db.state.getState(objectid, "last")) == 7

    try:
        run(main())
    finally:
        block.go_on.set()
    assert stored(objectid, "last") == 7


def test_the_error_of_a_call_whose_task_was_cancelled_is_nobodys(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
) -> None:
    block = Block()

    def fail(_: Any) -> Any:
        block()
        raise ArithmeticError

    async def main() -> None:
        future = db.state.updateState(objectid, "last", fail, None)
        await block.has_begun()
        assert await cancelled(awaited(future))
        block.go_on.set()
        assert await asyncio.wrap_future(db.state.getState(objectid, "last", None)) is None
        assert isinstance(future.exception(), ArithmeticError)

    try:
        run(main())
    finally:
        block.go_on.set()
    assert stored(objectid, "last") is ABSENT


def test_tasks_cancelled_at_any_moment_leave_no_worker_stuck(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
) -> None:
    chance = random.Random(6)
    outcomes: dict[str, bool] = {}  # by name: whether its task was cancelled

    async def round_of_sets(number: int) -> None:
        blocks = [Block() for _ in range(POOL)]
        await occupy(db, blocks)
        names = [f"{number} {n}" for n in range(MANY)]
        tasks = {name: awaited(db.state.setState(objectid, name, name)) for name in names}
        await asyncio.sleep(0)
        chance.shuffle(names)
        # Some before any is made, and some while they are.
        for name in names[: MANY // 4]:
            tasks[name].cancel()
        await asyncio.sleep(0)
        for block in blocks:
            block.go_on.set()
        for name in names[MANY // 4 : 3 * MANY // 4]:
            await asyncio.sleep(0)
            tasks[name].cancel()
        await asyncio.wait(tasks.values(), timeout=60)
        for name, task in tasks.items():
            assert task.done()
            outcomes[name] = task.cancelled()

    def written() -> set[str]:
        return {name for name in outcomes if stored(objectid, name) is not ABSENT}

    deadline = time.monotonic() + 60
    number = 0
    while True:
        run(round_of_sets(number))
        number += 1
        all_at_work(db)
        doomed = {name for name, was_cancelled in outcomes.items() if was_cancelled}
        assert written() >= outcomes.keys() - doomed
        if doomed - written() and doomed & written() and outcomes.keys() - doomed:
            break
        assert time.monotonic() < deadline, "no call was under way when its task was cancelled"
    assert all(stored(objectid, name) == name for name in written())


# --- Out of time, and in groups ---


def test_what_wait_for_gives_up_is_not_done_if_it_had_not_begun(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any], blocks: list[Block]
) -> None:
    async def main() -> None:
        busy = await occupy(db, blocks)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(
                asyncio.wrap_future(db.state.setState(objectid, "last", 7)), timeout=0.01
            )
        for block in blocks:
            block.go_on.set()
        await asyncio.gather(*map(asyncio.wrap_future, busy))

    run(main())
    db.close()
    assert stored(objectid, "last") is ABSENT


if sys.version_info >= (3, 11):

    def test_what_a_timeout_gives_up_while_it_runs_is_done_all_the_same(
        db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
    ) -> None:
        block = Block()

        async def main() -> None:
            future = db.state.updateState(objectid, "last", lambda _: block(7), None)
            await block.has_begun()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.wrap_future(future)
            block.go_on.set()
            assert await asyncio.wrap_future(db.state.getState(objectid, "last")) == 7

        try:
            run(main())
        finally:
            block.go_on.set()
        assert stored(objectid, "last") == 7

    def test_a_group_of_which_one_fails_cancels_what_has_not_begun(
        db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
    ) -> None:
        block = Block()

        async def main() -> list[Exception]:
            running = db.state.updateState(objectid, "last", lambda _: block(1), None)
            await block.has_begun()

            async def put(value: int) -> None:
                await asyncio.wrap_future(db.state.setState(objectid, "last", value))

            async def get() -> None:
                await asyncio.wrap_future(db.state.getState(objectid, "absent"))

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(put(2))  # behind the one that runs
                    group.create_task(put(3))
                    group.create_task(get())
            except Exception as error:
                errors: list[Exception] = getattr(error, "exceptions", [])
            assert not block.go_on.is_set()
            block.go_on.set()
            assert await asyncio.wrap_future(running) == 1
            return errors

        try:
            (error,) = run(main())
        finally:
            block.go_on.set()
        assert isinstance(error, NoSuchStateError)
        db.close()
        assert stored(objectid, "last") == 1


# --- The end ---


def test_a_program_that_ends_while_a_call_runs_leaves_it_to_be_done(
    db: Database, objectid: int, stored: Callable[..., Any], run: Run[Any]
) -> None:
    block = Block()

    async def main() -> None:
        awaited(db.state.updateState(objectid, "last", lambda _: block(7), None))
        await block.has_begun()

    try:
        run(main())
    finally:
        block.go_on.set()
    assert db.state.thdGetState(objectid, "other", None) is None
    db.close()
    assert stored(objectid, "last") == 7


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_closed_under_a_call_harms_neither_the_call_nor_the_worker(
    db: Database, objectid: int, stored: Callable[..., Any]
) -> None:
    block = Block()
    loop = asyncio.new_event_loop()

    async def ask() -> asyncio.Future[Any]:
        future = db.state.updateState(objectid, "last", lambda _: block(7), None)
        await block.has_begun()
        return asyncio.wrap_future(future)

    try:
        waiting = loop.run_until_complete(ask())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        block.go_on.set()
    all_at_work(db)
    assert not waiting.done()
    assert stored(objectid, "last") == 7


@pytest.mark.parametrize("elsewhere", [True, False], ids=["in another thread", "on the loop"])
def test_closing_finishes_what_tasks_await(
    url: str, objectid: int, stored: Callable[..., Any], run: Run[Any], elsewhere: bool
) -> None:
    async def main() -> list[int]:
        db = statedb.connect(url)
        tasks = [awaited(db.state.setState(objectid, f"k{n}", n)) for n in range(MANY)]
        await asyncio.sleep(0)
        if elsewhere:
            await asyncio.to_thread(db.close)
        else:
            db.close()
        return list(await asyncio.gather(*tasks))

    assert run(main()) == list(range(MANY))
    assert [stored(objectid, f"k{n}") for n in range(MANY)] == list(range(MANY))


def test_what_close_cancels_is_cancelled_for_who_awaits_it(
    url: str, objectid: int, stored: Callable[..., Any], run: Run[Any], blocks: list[Block]
) -> None:
    async def main() -> None:
        db = statedb.connect(url)
        busy = await occupy(db, blocks)
        setting = asyncio.wrap_future(db.state.setState(objectid, "last", 7))
        closing = asyncio.create_task(asyncio.to_thread(db.close, cancel_futures=True))
        while not db.closed:
            await asyncio.sleep(0.001)
        for block in blocks:
            block.go_on.set()
        with contextlib.suppress(asyncio.CancelledError):
            await setting
        assert setting.cancelled()
        await closing
        assert [future.result(0) for future in busy] == [None] * POOL

    run(main())
    assert stored(objectid, "last") is ABSENT
