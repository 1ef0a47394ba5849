"""A member of a cluster in a process of its own, which tests start, talk to, stop and kill.

Run as a program it reads its settings and then commands from its standard input, one JSON object a
line, and writes what happens to its standard output in the same way. It ends with its input.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

    from statedb import Database, Member
    from statedb.dialects import Dialect
    from statedb.masters import MasterModel

#: How long a test waits for what a process is to do, however slow the machine.
PATIENCE = 60.0

Event = dict[str, Any]


def until(condition: Callable[[], object]) -> None:
    """Wait for it, and fail where it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class MemberProcess:
    """The process, as a test sees it; a context manager that ends it.

    ``settings`` are those of the program below; it has joined when this returns from ``joined()``.
    """

    def __init__(self, url: str, name: str, **settings: Any) -> None:
        self.name = name
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.errors = ""
        self._readers = [
            threading.Thread(target=self._read_events, name=f"events of {name}"),
            threading.Thread(target=self._read_errors, name=f"errors of {name}"),
        ]
        for reader in self._readers:
            reader.start()
        self.say({"url": url, "name": name, **settings})

    # --- Talking ---

    def say(self, words: Event) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        self.process.stdin.flush()

    def do(self, command: str, **arguments: Any) -> None:
        self.say({"do": command, **arguments})

    def ask(self, command: str, **arguments: Any) -> Event:
        """What the process answers to a command: its latest event of the command's name."""
        before = self.count(command)
        self.do(command, **arguments)
        return self.wait_for(command, before + 1)[-1]

    def events(self, name: str) -> list[Event]:
        with self._changed:
            return [event for event in self._events if event["event"] == name]

    def count(self, name: str) -> int:
        return len(self.events(name))

    def wait_for(self, name: str, times: int = 1) -> list[Event]:
        """The events of this name, once there have been so many."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or sum(e["event"] == name for e in self._events) >= times,
                PATIENCE,
            )
        found = self.events(name)
        assert len(found) >= times, (self.name, name, times, self._events, self.errors)
        return found

    def joined(self) -> int:
        """The id of its master, once it has joined."""
        masterid: int = self.wait_for("joined")[0]["id"]
        return masterid

    # --- Signals and ends ---

    def stop(self) -> None:
        """Have it stand still, as a whole, until ``go_on``."""
        self.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        while _state(self.process.pid) != "T":
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- Its threads here ---

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                # A process that was killed may leave half a line.
                with contextlib.suppress(ValueError):
                    self._events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors += line.decode(errors="replace")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]


# --- The database's clock, put forward ---


def with_movable_clock(dialect: Dialect) -> Dialect:
    """A dialect for URLs that begin with moved://, its clock as far ahead as test_clock says."""

    def parse(url: str) -> Any:
        return dialect.parse(f"{dialect.schemes[0]}://{url.partition('://')[2]}")

    return dataclasses.replace(
        dialect,
        name=f"{dialect.name}, its clock moved",
        schemes=("moved",),
        parse=parse,
        now=f"({dialect.now} + (SELECT shift FROM test_clock))",
    )


# --- The program ---


class _Program:
    """One member and what it is told to do."""

    def __init__(self, settings: Event) -> None:
        import statedb

        if "moved" in settings:
            # The scheme of the engine whose clock it is.
            original = statedb.dialects.for_url(f"{settings['moved']}://")
            statedb.dialects.register(with_movable_clock(original))
        self._output = threading.Lock()
        self._go_on = threading.Event()
        self._stopping = threading.Event()
        self.db: Database = statedb.connect(
            settings["url"], timeout=settings.get("timeout", 20.0), pool_size=2
        )
        self.member: Member = self.db.masters.join(
            settings["name"],
            interval=settings["interval"],
            expire_after=settings["expire_after"],
            on_expired=self._on_expired,
            on_lost=self._on_lost,
        )
        self.tell("joined", id=self.member.id, incarnation=self.member.incarnation)

    def tell(self, event: str, **words: Any) -> None:
        with self._output:
            sys.stdout.write(json.dumps({"event": event, **words}) + "\n")
            sys.stdout.flush()

    def _on_expired(self, masters: list[MasterModel]) -> None:
        self.tell("expired", ids=[one.id for one in masters])

    def _on_lost(self, member: Member) -> None:
        self.tell("lost", is_set=member.lost.is_set())

    # --- Commands ---

    def check(self) -> None:
        """Say what asking for the place brings."""
        try:
            self.member.check()
        except RuntimeError as error:
            self.tell("check", raises=type(error).__name__)
        else:
            self.tell("check", raises=None)

    def work(self, kind: str, name: str, objectid: int) -> None:
        """Write again and again as a careful program does: hold the claim, then write its token."""
        threading.Thread(target=self._work, args=(kind, name, objectid), daemon=True).start()

    def _work(self, kind: str, name: str, objectid: int) -> None:
        import statedb

        claim = self.member.claim(kind, name)
        self.tell("claimed", token=claim.token)
        number = 0
        while not self._stopping.wait(0.05):
            number += 1
            try:
                with self.db.transaction():
                    self.db.masters.thdHoldClaim(claim)
                    value = {"token": claim.token, "number": number}
                    self.db.state.thdSetState(objectid, name, value)
            except statedb.ClaimLostError:
                self.tell("refused", lost=self.member.lost.is_set())
                return
            self.tell("wrote", **value)

    def hold(self, kind: str, name: str, objectid: int) -> None:
        """Hold a claim in a transaction that goes on until it is told so; then write."""
        threading.Thread(target=self._hold, args=(kind, name, objectid), daemon=True).start()

    def _hold(self, kind: str, name: str, objectid: int) -> None:
        claim = self.member.claim(kind, name)
        with self.db.transaction():
            self.db.masters.thdHoldClaim(claim)
            self.tell("holding", token=claim.token)
            self._go_on.wait()
            self.db.state.thdSetState(objectid, name, {"token": claim.token})
        self.tell("wrote", token=claim.token)

    def go_on(self) -> None:
        self._go_on.set()

    def leave(self) -> None:
        self._stopping.set()
        self.member.leave()
        self.tell("leave")

    def fork(self, how: str) -> None:
        """Fork a child, which looks at its place and ends as a program does."""
        # Not while another thread is writing: the child would wait for it, and it has no threads.
        with self._output:
            pid = os.fork()
        if pid == 0:
            self.check()
            if how == "leaves":
                self.member.leave()
            if how == "closes":
                self.db.close()
            self.tell("child", lost=self.member.lost.is_set())
            raise SystemExit(0)
        _, status = os.waitpid(pid, 0)
        self.tell("fork", status=os.waitstatus_to_exitcode(status))

    def exit(self, how: str) -> None:
        """Come to an end without leaving, in one way or another."""
        if how == "raises":
            raise ZeroDivisionError("as a program may")
        raise SystemExit(0)


def _shift_clock(seconds: float) -> None:
    """Have all of this process believe that it is so much later."""
    import datetime as dt

    real, real_nanoseconds = time.time, time.time_ns
    real_datetime: type[dt.datetime] = dt.datetime

    class Shifted(real_datetime):  # type: ignore[valid-type, misc]
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return real_datetime.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(dt.timezone.utc).replace(tzinfo=None)

    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_nanoseconds() + int(seconds * 1_000_000_000)
    dt.datetime = Shifted  # type: ignore[misc]


def _main() -> None:
    settings = json.loads(sys.stdin.readline())
    if settings.get("clock"):
        # Before anything that could keep the real one is imported.
        _shift_clock(settings["clock"])
    program = _Program(settings)
    commands: dict[str, Callable[..., None]] = {
        name: getattr(program, name)
        for name in ("check", "work", "hold", "go_on", "leave", "fork", "exit")
    }
    for line in sys.stdin:
        command = json.loads(line)
        commands[command.pop("do")](**command)


if __name__ == "__main__":
    _main()
