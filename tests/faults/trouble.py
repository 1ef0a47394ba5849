"""Trouble: faults that happen again and again, at random moments, while something else goes on."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from proxy import Proxy

STATEMENTS = ["COMMIT", "UPDATE", "INSERT", "DELETE", "SELECT"]


@contextmanager
def again_and_again(
    fault: Callable[[random.Random], None],
    *,
    seed: int,
    least: float,
    most: float,
    times: float = math.inf,
) -> Iterator[None]:
    """Have a fault happen all the while, each time after so many seconds, that often at most."""
    chance = random.Random(seed)
    over = threading.Event()

    def work() -> None:
        for number in itertools.count():
            if number >= times or over.wait(chance.uniform(least, most)):
                break
            fault(chance)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def cut(proxy: Proxy, chance: random.Random) -> None:
    """Have a connection be cut before or after some statement."""
    act: Any = chance.choice([proxy.cut_before, proxy.cut_after])
    act(chance.choice(STATEMENTS))
