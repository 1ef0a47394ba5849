"""Measuring: blocks of calls, taken in turns, round by round, and what they cost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

#: Runs a block of calls, and says how many seconds one of them took.
Block = Callable[[], float]


def in_turn(blocks: Sequence[Block], rounds: int) -> list[list[float]]:
    """What a call of each block costs, round by round, after a round that does not count.

    What the machine does meanwhile so meets all of them. Each is first as often as the others.
    """
    for block in blocks:
        block()
    costs: list[list[float]] = [[] for _ in blocks]
    for number in range(rounds):
        order = [(number + n) % len(blocks) for n in range(len(blocks))]
        for index in order if number // len(blocks) % 2 else reversed(order):
            costs[index].append(blocks[index]())
    return costs


def sized(run: Callable[[int], float], seconds: float, least: int = 1) -> Block:
    """A block of as many calls as take about so long; `run` says what that many of them took."""
    calls = least
    while (taken := run(calls)) < seconds / 4:
        calls = int(calls * min(8.0, max(2.0, seconds / max(taken, 1e-6))))
    calls = max(least, int(calls * seconds / taken))
    return lambda: run(calls) / calls


def timed(call: Callable[[], object], calls: int) -> float:
    """What so many calls took."""
    begun = time.perf_counter()
    for _ in range(calls):
        call()
    return time.perf_counter() - begun


def one_by_one(
    method: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
) -> tuple[float, list[Any]]:
    """What the calls took, and gave."""
    begun = time.perf_counter()
    results = [method(*each) for each in arguments]
    return time.perf_counter() - begun, results


def in_flight(
    submit: Callable[..., Future[Any]], arguments: Sequence[tuple[Any, ...]], window: int
) -> tuple[float, list[Any]]:
    """What the calls took, and gave, with so many of them under way at a time.

    As a plain program does it: it waits for the oldest, and submits one more.
    """
    results = []
    waiting: deque[Future[Any]] = deque()
    begun = time.perf_counter()
    for each in arguments:
        if len(waiting) == window:
            results.append(waiting.popleft().result())
        waiting.append(submit(*each))
    results += [future.result() for future in waiting]
    return time.perf_counter() - begun, results
