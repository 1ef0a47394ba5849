"""Ready: the calls that may run now, in turns: one call, or several that travel together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from statedb.futures import CallFuture
from statedb.lanes import Job
from statedb.operation import Batch

#: How many calls travel together at most. Of more the gain is small, and the first waits longer.
MOST_TOGETHER: Final = 64
#: How many batches of one kind are under way at once: while one waits for its answer, another can
#: be prepared. More of them would be smaller, and slower in all.
MOST_BATCHES: Final = 2


class Call(Job):
    """A function of a connection with its arguments, when it is due, and who waits for it."""

    __slots__ = (
        "args",
        "batch",
        "begun",
        "deadline",
        "function",
        "future",
        "in_doubt",
        "kwargs",
        "may_wait",
        "ordered",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        due: float,
        batch: Batch | None,
    ) -> None:
        Job.__init__(self)
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.deadline = due
        #: How it may travel with others, if it may.
        self.batch = batch
        #: Whether it may wait for somebody's lock where it is made by itself, but not with others.
        self.may_wait = False
        self.future = CallFuture()
        self.ordered = False
        #: Its Future can no longer be cancelled.
        self.begun = False
        #: The answer to a try that may have taken effect was lost.
        self.in_doubt = False


class _Queue:
    """The calls that travel in one way."""

    __slots__ = ("turns", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Call] = deque()
        #: How many of its turns are in line or under way.
        self.turns = 0


class Ready:
    """Calls in turns; its owner's lock guards it."""

    def __init__(self) -> None:
        self._line: deque[Call | _Queue] = deque()
        self._queues: dict[Batch, _Queue] = {}

    def __bool__(self) -> bool:
        return bool(self._line)

    def add(self, call: Call) -> bool:
        """Put a call in line; whether there is one more turn to take by it."""
        if call.batch is None:
            self._line.append(call)
            return True
        queue = self._queues.get(call.batch)
        if queue is None:
            queue = self._queues[call.batch] = _Queue()
        queue.waiting.append(call)
        if queue.turns and (
            queue.turns == MOST_BATCHES or len(queue.waiting) < queue.turns * MOST_TOGETHER
        ):
            return False
        queue.turns += 1
        self._line.append(queue)
        return True

    def take(self) -> list[Call]:
        """The calls of the next turn; none where an earlier turn has taken them all."""
        turn = self._line.popleft()
        if isinstance(turn, Call):
            return [turn]
        waiting = turn.waiting
        if not waiting:
            turn.turns -= 1
        calls = [waiting.popleft() for _ in range(min(len(waiting), MOST_TOGETHER))]
        if len(calls) == 1 and calls[0].may_wait:
            # Those that come later are not to wait with it.
            calls[0].batch = None
            turn.turns -= 1
        return calls

    def ended(self, batch: Batch) -> bool:
        """Note that a turn of several is over; whether there is another one for more of them."""
        queue = self._queues[batch]
        if queue.waiting:
            self._line.append(queue)
            return True
        queue.turns -= 1
        return False
