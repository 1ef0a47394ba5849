"""Judge: a pytest plugin that runs tests against mutants, each in a forked process of its own."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import engines
import pytest

import statedb
from mutation import Mutant
from statedb import dialects, sqlfiles

PACKAGE = Path(statedb.__file__).parent
#: A test that takes longer, in seconds, is not asked.
LONGEST_TEST = 10.0
FAILED = 1


class Judge:
    """In the place of pytest's own loop: sees which tests run what, then tries each mutant."""

    def __init__(self, mutants: Iterable[Mutant], seconds: float, record: Path) -> None:
        self._mutants = list(mutants)
        #: For how long the tests of one mutant run together, the shortest first.
        self._seconds = seconds
        self._record = record
        self._report: Callable[[pytest.TestReport], None] = lambda report: None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._report(report)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        import conftest

        (engine,) = conftest.ENGINES
        conftest._running.enter_context(engine.running())
        conftest._ran.add(engine.name)
        if not self._record.exists():
            _in_a_fork(lambda: self._look(session.items), 3600)
        uses, seconds = json.loads(self._record.read_text("utf-8"))
        items = {item.nodeid: item for item in session.items}
        judged = defaultdict(list)
        for number, mutant in enumerate(self._mutants, start=1):
            subject = mutant.subject
            if subject.startswith("create_"):
                subject = "insert_schema_version"  # which is part of the same
            asked = [one for one in uses.get(subject, ()) if one in items]
            asked.sort(key=seconds.__getitem__)
            total = itertools.accumulate(seconds[one] for one in asked)
            asked = [
                one for one, so_far in zip(asked, total, strict=True) if so_far < self._seconds
            ]
            asked += [
                one for one in items if mutant.path.suffix == ".sql" and "_statements." in one
            ]
            verdict = self._judge(mutant, [items[one] for one in asked], engine, number)
            judged[verdict].append(mutant)
            if verdict != "killed":
                print(f"{verdict}: {mutant}", flush=True)
        print({verdict: len(mutants) for verdict, mutants in judged.items()}, flush=True)
        return True

    def _look(self, items: list[pytest.Item]) -> None:
        """Record which tests run which statements and functions, and how long they take."""
        uses: dict[str, set[str]] = defaultdict(set)
        seconds: dict[str, float] = defaultdict(float)
        running = [""]
        unfit = set()

        def note(subject: str) -> None:
            uses[subject].add(running[0])

        def call(frame: Any, event: str, _: Any) -> None:
            code: CodeType = frame.f_code
            if event == "call" and code.co_filename.startswith(f"{PACKAGE}/"):
                note(f"{Path(code.co_filename).stem}.{code.co_name}")

        def report(one: pytest.TestReport) -> None:
            seconds[one.nodeid] += one.duration
            if not one.passed:
                unfit.add(one.nodeid)

        self._report = report
        _note_statements(note)
        threading.setprofile(call)
        sys.setprofile(call)
        for item, following in itertools.zip_longest(items, items[1:]):
            running[0] = item.nodeid
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        sys.setprofile(None)
        fit = {one for one, lasted in seconds.items() if lasted < LONGEST_TEST} - unfit
        known = {subject: sorted(tests & fit) for subject, tests in uses.items()}
        self._record.write_text(json.dumps([known, seconds]), "utf-8")

    def _judge(self, mutant: Mutant, items: list[pytest.Item], engine: Any, number: int) -> str:
        if not items:
            return "no test"
        kept = mutant.path.read_text("utf-8")
        if isinstance(engine, engines.OwnServer):
            _clean(engine)

        def attempt() -> None:
            self._report = lambda report: os._exit(FAILED) if report.failed else None
            engines._numbers = itertools.count(1000 * number)
            _apply(mutant)
            for item, following in itertools.zip_longest(items, items[1:]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)

        try:
            return {0: "SURVIVED", FAILED: "killed"}.get(
                _in_a_fork(attempt, 3 * self._seconds + 30), "hung"
            )
        finally:
            mutant.path.write_text(kept, "utf-8")


def _in_a_fork(run: Callable[[], None], seconds: float) -> int:
    """Run something in a child; the status with which it ends, or negative where it was killed."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        silence = os.open(os.devnull, os.O_WRONLY)
        status = FAILED
        try:
            for descriptor in (1, 2):
                os.dup2(silence, descriptor)
            run()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + seconds
    done, status = 0, 0
    while not done and time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    # With it all that it has started, a hanging test's processes too.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not done:
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _note_statements(note: Callable[[str], None]) -> None:
    class Noted(dict[str, str]):
        def __getitem__(self, name: str) -> str:
            note(name)
            return super().__getitem__(name)

    class Statements(sqlfiles.Statements):
        def __init__(self, source: dict[str, str], to_driver: Callable[[str], str]) -> None:
            super().__init__(source, to_driver)
            self._source = Noted(source)

        def __getitem__(self, name: str) -> str:
            note(name)
            return super().__getitem__(name)

    sqlfiles.Statements = Statements  # type: ignore[misc]
    dialects.statements.cache_clear()


def _apply(mutant: Mutant) -> None:
    """Have this process, and those that it starts, run the mutant."""
    mutant.path.write_text(mutant.text, "utf-8")
    dialects.statements.cache_clear()
    if mutant.path.suffix != ".py":
        return
    new = {(one.co_name, one.co_firstlineno): one for one in _codes(mutant)}
    gc.unfreeze()
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename == str(mutant.path):
            code = one.__code__
            one.__code__ = new.get((code.co_name, code.co_firstlineno), code)


def _codes(mutant: Mutant) -> Iterator[CodeType]:
    pending = [compile(mutant.text, str(mutant.path), "exec")]
    while pending:
        code = pending.pop()
        yield code
        pending += [one for one in code.co_consts if isinstance(one, CodeType)]


def _clean(engine: Any) -> None:
    """Empty the databases that a test, killed, may have left as they were."""
    engine._used = [url for url in engine._used if _emptied(engine, url)]


def _emptied(engine: Any, url: str) -> bool:
    try:
        with contextlib.closing(engine.connect(url, autocommit=True)) as own:
            cursor = own.cursor()
            cursor.execute(engine.impatience)
            for table in engines._TABLES[:-1]:
                cursor.execute(f"DELETE FROM {table}")
    except Exception:
        return False
    return True
