"""Load for a cluster: processes that write, and remember what was acknowledged, and what may be."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import TYPE_CHECKING, Any, NamedTuple

import statedb
from statedb import AlreadyClaimedError, CallTimeoutError, OutcomeUnknownError

if TYPE_CHECKING:
    from typing_extensions import Self

#: How many keys each writer has for itself.
KEYS = 8
#: How many counters all writers have in common.
COUNTERS = 2


@dataclass
class Written:
    """What one writer knows of one thing that it alone writes."""

    #: The last value that was acknowledged, and those since then that may have been written.
    acknowledged: Any = None
    unknown: list[Any] = field(default_factory=list)

    def allows(self, value: Any) -> bool:
        return value == self.acknowledged or value in self.unknown


class Standing(NamedTuple):
    """What a process knows of its own place: the token is of a claim that it has all the time."""

    masterid: int = 0
    incarnation: int = 0
    token: int = 0
    lost: bool = False
    expired: int = 0


@dataclass
class Report:
    """What one writer has done since the last report; the values are those of now."""

    writer: str
    keys: dict[str, Written] = field(default_factory=dict)
    #: By counter, which of this writer's marks are surely in it, and which may be.
    counted: dict[str, list[int]] = field(default_factory=dict)
    perhaps_counted: dict[str, list[int]] = field(default_factory=dict)
    #: By thing, the token of the claim that is held; None where it was released.
    claims: dict[str, Written] = field(default_factory=dict)
    #: When each acknowledged write was begun and when answered, by one clock for all processes.
    answered: list[tuple[float, float]] = field(default_factory=list)
    longest: float = 0.0
    unknown: int = 0
    timed_out: int = 0
    #: What should never have happened.
    wrong: list[str] = field(default_factory=list)
    place: Standing = field(default_factory=Standing)


class Load:
    """Processes with some writers each, all of them on one URL; a context manager."""

    def __init__(self, url: str, *, processes: int, writers: int, timeout: float) -> None:
        self.timeout = timeout
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Pipe] = []
        self._processes = []
        for number in range(processes):
            pipe, far_end = context.Pipe()
            arguments = (far_end, url, f"process-{number}", writers, timeout)
            process = context.Process(target=_serve, args=arguments)
            process.start()
            far_end.close()
            self._pipes.append(pipe)
            self._processes.append(process)

    def __enter__(self) -> Self:
        self._hear()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send("end")
        for process in self._processes:
            process.join(60)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        for pipe in self._pipes:
            pipe.close()

    def go_on(self) -> None:
        """Have all writers write until the next halt."""
        self._say("go on")

    def halt(self) -> list[Report]:
        """Have all writers come to an end with what they are doing; their reports."""
        self._say("halt")
        return [report for reports in self._hear() for report in reports]

    def _say(self, word: str) -> None:
        for pipe in self._pipes:
            pipe.send(word)

    def _hear(self) -> list[Any]:
        answers = []
        for pipe in self._pipes:
            assert pipe.poll(self.timeout + 60), "a process of the load does not answer"
            answers.append(pipe.recv())
        return answers


def _serve(pipe: Pipe, url: str, name: str, writers: int, timeout: float) -> None:
    lost: list[object] = []
    expired: list[object] = []
    with statedb.connect(url, timeout=timeout) as db:
        member = db.masters.join(
            name, interval=0.5, expire_after=15, on_lost=lost.append, on_expired=expired.extend
        )
        with member, ThreadPoolExecutor(writers) as threads:
            crew = [_Writer(db, member, f"{name}-{number}") for number in range(writers)]
            lasting = member.claim("lasting", name)
            pipe.send("ready")
            halted = threading.Event()
            work: list[Any] = []
            while (word := pipe.recv()) != "end":
                if word == "go on":
                    halted.clear()
                    work = [threads.submit(one.work, halted) for one in crew]
                else:
                    halted.set()
                    for one in work:
                        one.result()
                    member.check()
                    place = Standing(
                        member.id, member.incarnation, lasting.token, bool(lost), len(expired)
                    )
                    pipe.send([one.reported(place) for one in crew])


class _Writer:
    """Writes one thing after the other, in one thread."""

    def __init__(self, db: statedb.Database, member: statedb.Member, name: str) -> None:
        self._db, self._member, self._name = db, member, name
        self._own = db.state.thdGetObjectId(name, "Writer")
        self._beside = db.state.thdGetObjectId(f"beside {name}", "Writer")
        self._common = db.state.thdGetObjectId("common", "Counter")
        self._report = Report(name)
        self._number = 0
        self._claim: statedb.Claim | None = None
        self._highest_token = 0

    def work(self, halted: threading.Event) -> None:
        kinds = (self._set, self._set_several, self._count, self._transact, self._claim_or_release)
        while not halted.is_set():
            kinds[self._number % len(kinds)]()

    def reported(self, place: Standing) -> Report:
        report, self._report = self._report, Report(self._name)
        # What a writer has to itself stays: only the next value says more.
        self._report.keys, self._report.claims = report.keys, report.claims
        self._report.counted = {name: list(marks) for name, marks in report.counted.items()}
        self._report.perhaps_counted = {
            name: list(marks) for name, marks in report.perhaps_counted.items()
        }
        return dataclasses.replace(report, place=place)

    def _call(self, things: list[Written], values: list[Any], call: Callable[[], Any]) -> bool:
        """Whether the call that gives the things these values was acknowledged."""
        self._number += 1
        began = time.monotonic()
        done = False
        try:
            call()
            done = True
        except OutcomeUnknownError:
            self._report.unknown += 1
            for thing, value in zip(things, values, strict=True):
                thing.unknown.append(value)
        except CallTimeoutError:
            self._report.timed_out += 1
        except statedb.DatabaseError as error:
            # A transaction that lost its server before its end has done nothing.
            if call != self._transaction:
                self._report.wrong.append(f"{self._name}: {type(error).__name__}: {error}")
        ended = time.monotonic()
        if done:
            self._report.answered.append((began, ended))
            for thing, value in zip(things, values, strict=True):
                thing.acknowledged, thing.unknown = value, []
        self._report.longest = max(self._report.longest, ended - began)
        return done

    def _things(self, *names: str) -> list[Written]:
        return [self._report.keys.setdefault(name, Written()) for name in names]

    def _set(self) -> None:
        name = f"k{self._number % KEYS}"
        value = {"number": self._number, "writer": self._name}
        self._call(
            self._things(f"{self._own} {name}"),
            [value],
            lambda: self._db.state.setState(self._own, name, value).result(),
        )

    def _set_several(self) -> None:
        names = [f"several {number}" for number in range(3)]
        values = dict.fromkeys(names, self._number)
        self._call(
            self._things(*(f"{self._own} {name}" for name in names)),
            list(values.values()),
            lambda: self._db.state.thdSetStates(self._own, values),
        )

    def _count(self) -> None:
        mark = self._number
        name = f"counter {mark % COUNTERS}"
        unknown = self._report.unknown

        def add(marks: dict[str, list[int]]) -> dict[str, list[int]]:
            return marks | {self._name: [*marks.get(self._name, []), mark]}

        def call() -> None:
            self._db.state.thdUpdateState(self._common, name, add, {})

        if self._call([], [], call):
            self._report.counted.setdefault(name, []).append(mark)
        elif self._report.unknown > unknown:
            self._report.perhaps_counted.setdefault(name, []).append(mark)

    def _transact(self) -> None:
        names = [f"{self._own} both", f"{self._beside} both"]
        self._call(self._things(*names), [self._number] * 2, self._transaction)

    def _transaction(self) -> None:
        number = self._number - 1
        with self._db.transaction():
            self._db.state.thdSetState(self._own, "both", number)
            self._db.state.thdSetState(self._beside, "both", number)

    def _claim_or_release(self) -> None:
        thing = self._report.claims.setdefault(self._name, Written())
        if self._claim is not None:
            claim = self._claim
            released = self._call([thing], [None], lambda: self._member.release(claim))
            if released or thing.unknown:
                self._claim = None
            return
        taken: list[statedb.Claim] = []
        with contextlib.suppress(AlreadyClaimedError):
            if self._call([], [], lambda: taken.append(self._member.claim("load", self._name))):
                self._claim = taken[0]
                thing.acknowledged, thing.unknown = self._claim.token, []
                if self._claim.token < self._highest_token:
                    self._report.wrong.append(f"{self._name}: a token went backwards")
                self._highest_token = self._claim.token
            else:
                # Whichever token it would have had.
                thing.unknown.append(self._highest_token + 1)
