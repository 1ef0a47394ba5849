"""Process: one of the demo's masters, as whoever tells the story has it."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from statedb.demo.settings import Settings

#: Seconds within which a process that was killed is gone.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Event:
    """What a process has said, or that it has ended."""

    process: Process
    name: str
    what: dict[str, Any] = field(default_factory=dict)


class Process:
    """A process that is told lines, and whose own become events in a queue that all share."""

    def __init__(self, settings: Settings, heard: queue.SimpleQueue[Event]) -> None:
        self.name = settings.name
        self._heard = heard
        #: The last that it said in words of its own: a traceback's last line.
        self.last_words = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "statedb.demo.master"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(
            target=self._read, name=f"statedb-demo-{self.name}", daemon=True
        )
        self._reader.start()
        # Not on the command line, which others on this host can read: the URL has a password.
        self.tell(json.dumps(asdict(settings)))

    def tell(self, line: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        # Where it has died, that is what is heard of it.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(f"{line}\n")
            stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self) -> int:
        """Once it has said that it has ended; of one that was killed, the signal's, negative."""
        return self._process.wait(_PATIENCE)

    def end(self) -> None:
        """Kill it, stopped or not, unless it has ended; nothing is left of it then."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = _event(self, line)
            if event is None:
                self.last_words = line.strip() or self.last_words
            else:
                self._heard.put(event)
        self._heard.put(Event(self, "ended"))


def _event(process: Process, line: str) -> Event | None:
    """What a line says; None for one in words of Python's own, such as a traceback's."""
    try:
        what = json.loads(line)
        return Event(process, what.pop("event"), what)
    except (ValueError, TypeError, AttributeError, LookupError):
        return None
