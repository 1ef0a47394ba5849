"""Side: one of those that are compared, whichever process it lives in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

from benchmarks.measure import in_flight, one_by_one
from benchmarks.workload import Operation


class Side(ABC):
    """Makes the calls of an operation, one after the other or some in flight."""

    name: ClassVar[str]

    @abstractmethod
    def offers(self, operation: Operation, window: int) -> bool:
        """Whether it can make them, so many at a time; one at a time means in this thread."""

    @abstractmethod
    def seconds(self, operation: Operation, calls: int, window: int) -> float:
        """What the next so many calls took."""

    @abstractmethod
    def close(self) -> None: ...


class LocalSide(Side):
    """A side in this process, whose methods are those that operations name."""

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()

    @abstractmethod
    def get(self, key: str) -> Any: ...

    def waiting(self, method: str) -> Callable[..., Any] | None:
        """The method that gives a result, if there is one."""
        return getattr(self, method, None)

    def promising(self, method: str) -> Callable[..., Future[Any]] | None:
        """The method that gives a Future, if there is one."""
        raise NotImplementedError

    def offers(self, operation: Operation, window: int) -> bool:
        kind = self.waiting if window == 1 else self.promising
        return kind(operation.method) is not None

    def seconds(self, operation: Operation, calls: int, window: int) -> float:
        first = self._made[operation.name]
        self._made[operation.name] += calls
        numbers = range(first, first + calls)
        arguments = [operation.arguments(number) for number in numbers]
        if window == 1:
            method = self.waiting(operation.method)
            assert method is not None
            taken, results = one_by_one(method, arguments)
        else:
            submit = self.promising(operation.method)
            assert submit is not None
            taken, results = in_flight(submit, arguments, window)
        assert operation.right(numbers, results), f"{self.name}: wrong results of {operation.name}"
        if operation.leaves is not None:
            key, value = operation.leaves(numbers[-1])
            assert self.get(key) == value, f"{self.name}: {operation.name} left {self.get(key)}"
        return taken


class ThreadedSide(LocalSide):
    """A side that only waits, and gives Futures by a ThreadPoolExecutor."""

    threads: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self._executor = ThreadPoolExecutor(self.threads)

    def promising(self, method: str) -> Callable[..., Future[Any]] | None:
        waiting = self.waiting(method)
        return None if waiting is None else partial(self._executor.submit, waiting)

    def close(self) -> None:
        self._executor.shutdown()
