"""A process that sets values, from a common moment on, for so long; one of several.

``python -m benchmarks.setter SIDE URL-OR-PATH NUMBER`` answers each request with the seconds that
each of its calls took.
"""

from __future__ import annotations

import sys
import time

from benchmarks.child import serve
from benchmarks.contest import without_filling
from benchmarks.workload import value


def main() -> None:
    name, place, number = sys.argv[1:]
    side = without_filling(name, place)
    set_value = side.waiting("put")
    assert set_value is not None
    offset = int(number) * 101
    made = 0

    def run(begin: float, seconds: float, keys: int) -> list[float]:
        nonlocal made
        taken: list[float] = []
        # Spinning at the end, for a sleep ends late; monotonic() is the same for all processes.
        time.sleep(max(0.0, begin - time.monotonic() - 0.005))
        while time.monotonic() < begin:
            pass
        now = time.perf_counter()
        end = now + seconds
        while now < end or not taken:
            made += 1
            set_value(f"set{(made + offset) % keys}", value(made))
            before, now = now, time.perf_counter()
            taken.append(now - before)
        assert side.get(f"set{(made + offset) % keys}")["branch"] == "main"
        return taken

    print('"ready"', flush=True)
    serve(run)
    side.close()


if __name__ == "__main__":
    main()
