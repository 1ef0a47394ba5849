"""Ready: the calls that may run now, in turns: one call, or several that travel together."""

from __future__ import annotations

import contextlib
import time
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
#: After how many seconds a turn is late: others wait for it no longer. Its connection may hang, or
#: the server is far away.
LATE: Final = 0.1


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
        "memo",
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
        #: What making it with others has found out for when it is made alone.
        self.memo: dict[Any, Any] | None = None
        self.future = CallFuture()
        self.ordered = False
        #: When it began, and its Future could no longer be cancelled; 0 where it has not.
        self.begun = 0.0
        #: The answer to a try that may have taken effect was lost.
        self.in_doubt = False


class _Queue:
    """The calls that travel in one way."""

    __slots__ = ("turns", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Call] = deque()
        #: How many of its turns are in line, or under way and not late.
        self.turns = 0

    def has_enough_for_another(self) -> bool:
        turns = self.turns
        if not turns:
            return bool(self.waiting)
        return turns < MOST_BATCHES and len(self.waiting) >= turns * MOST_TOGETHER


class Turn:
    """What one worker does next: a call, or several that travel together."""

    __slots__ = ("begun", "calls", "late", "queue")

    def __init__(self, calls: list[Call], queue: _Queue | None) -> None:
        self.calls = calls
        #: Where others wait for it to end.
        self.queue = queue
        self.begun = 0.0
        self.late = False


class Ready:
    """Calls in turns; its owner's lock guards it."""

    def __init__(self) -> None:
        self._line: deque[Call | _Queue] = deque()
        self._queues: dict[Batch, _Queue] = {}
        #: The turns which others wait for, and which are not late.
        self._under_way: set[Turn] = set()

    def __bool__(self) -> bool:
        return bool(self._line)

    @property
    def has_turns_under_way(self) -> bool:
        """Whether ``end_waiting_for_late`` may be needed."""
        return bool(self._under_way)

    def add(self, call: Call) -> bool:
        """Put a call in line; whether there is one more turn to take by it."""
        if call.batch is None:
            self._line.append(call)
            return True
        queue = self._queues.get(call.batch)
        if queue is None:
            queue = self._queues[call.batch] = _Queue()
        queue.waiting.append(call)
        return self._line_up(queue)

    def remove(self, call: Call) -> None:
        """Let go of a call that was added, or was about to be."""
        queue = None if call.batch is None else self._queues.get(call.batch)
        with contextlib.suppress(ValueError):
            (self._line if queue is None else queue.waiting).remove(call)

    def _line_up(self, queue: _Queue) -> bool:
        """Put one more of a queue's turns in line, if one is due; whether it is."""
        due = queue.has_enough_for_another()
        if due:
            self._line.append(queue)
            queue.turns += 1
        return due

    def take(self) -> Turn | None:
        """The next turn; None where an earlier one has taken all its calls."""
        queue = self._line.popleft()
        if isinstance(queue, Call):
            return Turn([queue], None)
        waiting = queue.waiting
        if not waiting:
            queue.turns -= 1
            return None
        calls = [waiting.popleft() for _ in range(min(len(waiting), MOST_TOGETHER))]
        if len(calls) == 1 and calls[0].may_wait:
            # Those that come later are not to wait with it.
            calls[0].batch = None
            queue.turns -= 1
            return Turn(calls, None)
        turn = Turn(calls, queue)
        turn.begun = time.monotonic()
        self._under_way.add(turn)
        return turn

    def end(self, turn: Turn) -> bool:
        """Note that a turn is over; whether there is another one to take by that."""
        queue = turn.queue
        if queue is None:
            return False
        if not turn.late:
            self._under_way.remove(turn)
            queue.turns -= 1
        return self._line_up(queue)

    def end_waiting_for_late(self) -> None:
        """Have nobody wait any longer for turns that are late."""
        late = time.monotonic() - LATE
        for turn in [turn for turn in self._under_way if turn.begun < late]:
            assert turn.queue is not None
            turn.late = True
            self._under_way.remove(turn)
            turn.queue.turns -= 1
            self._line_up(turn.queue)
