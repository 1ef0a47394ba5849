"""Company: the demo's processes together, what was heard of them, and what is told of that."""

from __future__ import annotations

import queue
import time

from statedb.demo.facts import DidNotHappen
from statedb.demo.processes import Event, Process
from statedb.demo.settings import Settings


class Company:
    """Who is in the story; what they do is told as soon as it is heard."""

    def __init__(self, started: float) -> None:
        #: By the monotonic clock.
        self.started = started
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._events: list[Event] = []
        self.processes: list[Process] = []
        #: Of those who have joined.
        self.masterids: dict[Process, int] = {}
        #: Those whose end, and whose loss, belong to the story.
        self.may_end: set[Process] = set()
        #: The last that went wrong in a process, which has tried it again.
        self.trouble = ""

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.started:5.1f} s  {line}", flush=True)

    def start(self, settings: Settings) -> None:
        self.processes.append(Process(settings, self._queue))

    def end(self) -> None:
        """Leave no process."""
        for process in self.processes:
            process.end()

    def hear(self, timeout: float) -> None:
        """Wait so many seconds for an event; raises DidNotHappen for one that must not be."""
        try:
            self._note(self._queue.get(timeout=timeout))
            while True:
                self._note(self._queue.get_nowait())
        except queue.Empty:
            pass

    def heard(self, name: str, process: Process | None = None) -> list[Event]:
        """All events of this name; of one process, if it is given."""
        return [one for one in self._events if one.name == name and process in (None, one.process)]

    def reports(self) -> list[tuple[str, int]]:
        """Which process was told that which master has expired."""
        return [
            (one.process.name, masterid)
            for one in self.heard("expired")
            for masterid in one.what["masterids"]
        ]

    def names(self) -> dict[int, str]:
        """By the master's id."""
        return {masterid: process.name for process, masterid in self.masterids.items()}

    def _note(self, event: Event) -> None:
        self._events.append(event)
        if event.name == "joined":
            self.masterids[event.process] = event.what["masterid"]
        if event.name == "trouble":
            self.trouble = f"{event.process.name}: {event.what['error']}"
        for line in self._lines(event):
            self.say(line)
        unexpected = event.process not in self.may_end and _end(event)
        if unexpected or event.name == "failed":
            why = event.what.get("error", event.process.last_words)
            raise DidNotHappen(f"{event.process.name} was to stay, and {_end(event)} {why}".strip())

    def _lines(self, event: Event) -> list[str]:
        """What is told of an event."""
        name, what = event.process.name, event.what
        match event.name:
            case "joined":
                number, masterid = event.process.pid, what["masterid"]
                return [f"{name}, process {number}, has joined as master {masterid}."]
            case "found":
                found = ", ".join(f"'{subject}'" for subject in what["subjects"])
                where, token = what["scheduler"], what["token"]
                return [f"{name} found in {where}: {found}; recorded with token {token}."]
            case "expired":
                names = self.names()
                return [
                    f"{name} reports that {names.get(one, f'master {one}')} has expired."
                    for one in what["masterids"]
                ]
            case "refused":
                return [f"{name} goes on, and is refused: {what['error']}."]
            case "lost":
                return [f"{name} is told that it is lost."]
        return []


def _end(event: Event) -> str:
    """How an event is the end of its process, or of its place; else nothing."""
    match event.name:
        case "ended":
            return f"has ended with {event.process.exit_code()}"
        case "lost":
            return "has lost its place"
        case "failed":
            return "has failed:"
    return ""
