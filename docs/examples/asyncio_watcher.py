"""A watcher of network services, on asyncio: tells which have come up, or gone down.

How each was when somebody last looked is in the database. So a watcher that starts again says only
what has changed since it ended; and of several that look at the same services, on whatever
machines, one tells each change.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

import statedb

#: After so many seconds without an answer a service is down.
PATIENCE = 5.0


async def watch(db: statedb.Database, services: list[str], interval: float | None) -> None:
    """Look at all services at once; again and again, if there is an interval."""
    watcher = await asyncio.wrap_future(db.state.getObjectId("services", "Watcher"))
    while True:
        await asyncio.gather(*(look(db, watcher, service) for service in services))
        if interval is None:
            return
        await asyncio.sleep(interval)


async def look(db: statedb.Database, watcher: int, service: str) -> None:
    """Tell whether a service is up, if that is news."""
    up = await is_up(service)
    if await asyncio.wrap_future(db.state.getState(watcher, service, None)) == up:
        return
    before: Any = None

    def change(last: Any) -> bool:
        # On a worker thread; once more, if another watcher has changed it meanwhile.
        nonlocal before
        before = last
        return up

    await asyncio.wrap_future(db.state.updateState(watcher, service, change, default=None))
    if before != up:
        print(f"{service} is {'up' if up else 'down'}", flush=True)


async def is_up(service: str) -> bool:
    host, _, port = service.rpartition(":")
    try:
        connecting = asyncio.open_connection(host, int(port))
        _, writer = await asyncio.wait_for(connecting, PATIENCE)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True


def host_and_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no host:port")
    return text


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("services", nargs="+", type=host_and_port, metavar="host:port")
    parser.add_argument("--url", default="sqlite:///watcher.sqlite", help="default: %(default)s")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="look again and again")
    options = parser.parse_args()
    if options.interval is not None and not 0 < options.interval < float("inf"):
        parser.error("--interval is a number of seconds above 0")
    db = statedb.connect(options.url, timeout=10)
    try:
        # What waits for the database without giving a Future waits in a thread: not in the loop.
        await asyncio.to_thread(db.upgrade)
        await watch(db, options.services, options.interval)
    finally:
        await asyncio.to_thread(db.close)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except statedb.Error as error:
        sys.exit(f"asyncio_watcher: {error}")
