"""Endurance: many processes write to one SQLite file while it is copied and some of them killed.

A copy is what a crash would leave at that moment. The database is two files, the file itself and
its log, or its journal; copied one after the other while somebody writes they would be of two
different moments, which no crash leaves. So all writers are stopped (SIGSTOP), what their logs say
is noted, the files are copied, and the writers go on: the copy is of one instant, somewhere within
whatever statement each writer was at. It is the instant's as the kernel has it: that what a commit
has synced survives the loss of power is the file system's promise, and not tried here.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from faults import extent, tireless

pytestmark = pytest.mark.once

WRITERS = 8
#: On a file system of its own kind: in memory a sync is nothing.
DIRECTORY = extent("/dev/shm" if os.access("/dev/shm", os.W_OK) else None, None)


class _Load(NamedTuple):
    """How long they write, and how much is to have happened by then."""

    mode: str
    seconds: float
    copies: int
    kills: int
    writes: int


LOADS = (
    _Load("wal", extent(1.2, 60.0), extent(4, 60), extent(2, 30), extent(300, 20_000)),
    _Load("delete", extent(0.8, 20.0), extent(2, 20), extent(1, 10), extent(50, 2_000)),
)


class _Record:
    """What one writer's log says: for each key what it must hold, and what it may."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._begun: dict[int, dict[str, int | None]] = {}
        #: By key: the value of the last write that was acknowledged.
        self._settled: dict[str, int | None] = {}
        #: By key: the writes since, whether or not they have taken effect.
        self._open: dict[str, list[int]] = {}
        self.acknowledged = 0
        #: How often it has counted, for sure and at most.
        self.counted = self.counted_at_most = 0

    def read_on(self) -> None:
        with self._path.open("rb") as log:
            log.seek(self._read)
            # One who was killed has perhaps not come to the end of a line.
            lines, _, _ = log.read().rpartition(b"\n")
        if not lines:
            return
        self._read += len(lines) + 1
        for line in lines.decode().split("\n"):
            what, number, *values = line.split(" ", 2)
            assert what in ("begun", "done"), line
            if what == "begun":
                self._begin(int(number), json.loads(values[0]))
            else:
                self._settle(int(number))

    def _begin(self, number: int, values: dict[str, int | None]) -> None:
        self._begun[number] = values
        for key in values:
            self._open.setdefault(key, []).append(number)
        self.counted_at_most += tireless.COUNT in values

    def _settle(self, number: int) -> None:
        self.acknowledged += 1
        values = self._begun[number]
        self.counted += tireless.COUNT in values
        for key, value in values.items():
            # What was begun before has taken effect before.
            self._open[key] = [one for one in self._open[key] if one > number]
            self._settled[key] = value
        del self._begun[number]

    def check(self, found: dict[str, int]) -> None:
        """Whether what a copy holds of this writer's can be so."""
        for key in (*tireless.KEYS, *tireless.PAIR):
            legal = {self._settled.get(key)}
            legal |= {self._begun[number][key] for number in self._open.get(key, ())}
            assert found.get(key) in legal, f"{key} is {found.get(key)}, and not of {legal}"
        left, right = (found.get(key) for key in tireless.PAIR)
        assert left == right, "one half of a setStates"


class _Writer:
    """A process that writes, and its record."""

    def __init__(self, directory: Path, url: str, name: str) -> None:
        self.name = name
        log = directory / f"{name}.log"
        log.touch()
        self.record = _Record(log)
        command = [sys.executable, tireless.__file__, url, str(log), name]
        self.errors = (directory / f"{name}.errors").open("wb+")
        self.process = subprocess.Popen(command, stderr=self.errors)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def await_stop(self) -> None:
        """Until none of its threads runs: one in the kernel comes to the end of what it does."""
        deadline = time.monotonic() + 30
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            while (task / "stat").read_text("utf-8").rpartition(")")[2].split()[0] not in "TtZX":
                assert time.monotonic() < deadline, "it does not stop"
                time.sleep(0.0005)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode()
        self.errors.close()
        assert said == ""


class _Crowd:
    """The writers of one file, and what is known of all that have ever been."""

    def __init__(self, directory: Path, mode: str) -> None:
        self._directory = directory
        self.path = directory / "test.sqlite"
        self._url = f"sqlite:///{self.path}?journal_mode={mode}"
        self.writers: list[_Writer] = []
        self.records: dict[str, _Record] = {}
        self.copies = self.kills = 0

    def hire(self) -> None:
        name = f"writer {len(self.records)}"
        writer = _Writer(self._directory, self._url, name)
        self.writers.append(writer)
        self.records[name] = writer.record

    def kill_one(self) -> None:
        self.writers.pop(random.randrange(len(self.writers))).kill()
        self.kills += 1

    def copy(self) -> None:
        """Copy the files at one instant, and look into the copy."""
        target = self._directory / f"copy {self.copies}"
        target.mkdir()
        for writer in self.writers:
            writer.stop()
        try:
            for writer in self.writers:
                writer.await_stop()
            for record in self.records.values():
                record.read_on()
            # The log's index is made anew from it: a crash of the host leaves none.
            for path in self._directory.glob("test.sqlite*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, target)
        finally:
            for writer in self.writers:
                writer.go_on()
        self.check(target / "test.sqlite")
        shutil.rmtree(target)
        self.copies += 1

    def check(self, path: Path) -> None:
        """Whether the file is sound, and holds what was acknowledged by the last look."""
        with contextlib.closing(sqlite3.connect(path)) as own:
            assert own.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            rows = own.execute(
                "SELECT CAST(statedb_objects.name AS TEXT), CAST(statedb_states.name AS TEXT),"
                " value FROM statedb_states JOIN statedb_objects ON id = objectid"
            ).fetchall()
        found: dict[str, dict[str, int]] = {}
        for name, key, value in rows:
            found.setdefault(name, {})[key] = json.loads(value)
        for name, record in self.records.items():
            record.check(found.get(name, {}))
        count = found.get("common", {}).get(tireless.COUNT, 0)
        surely = sum(record.counted for record in self.records.values())
        at_most = sum(record.counted_at_most for record in self.records.values())
        assert surely <= count <= at_most

    def end(self) -> None:
        while self.writers:
            self.kill_one()


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="statedb-endurance-", dir=DIRECTORY) as name:
        yield Path(name)


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.mode)
def test_copies_taken_while_eight_write_are_sound_and_hold_all_that_was_acknowledged(
    directory: Path, load: _Load
) -> None:
    crowd = _Crowd(directory, load.mode)
    try:
        for _ in range(WRITERS):
            crowd.hire()
        _await_all_writing(crowd)
        begun = time.monotonic()
        while (done := (time.monotonic() - begun) / load.seconds) < 1:
            # Evenly over the time, at moments that have nothing to do with what the writers do.
            if crowd.copies < load.copies * done:
                time.sleep(random.uniform(0, 0.02))
                crowd.copy()
            if crowd.kills < load.kills * done:
                crowd.kill_one()
                crowd.hire()
            time.sleep(0.01)
        kills = crowd.kills
        _await_all_writing(crowd)
        crowd.copy()
    finally:
        crowd.end()
    for record in crowd.records.values():
        record.read_on()
    crowd.check(crowd.path)
    writes = sum(record.acknowledged for record in crowd.records.values())
    assert (crowd.copies >= load.copies, kills >= load.kills) == (True, True)
    assert writes >= load.writes
    print(f"{load.mode}: {writes} writes, {crowd.copies} copies, {kills} killed")


def _await_all_writing(crowd: _Crowd) -> None:
    deadline = time.monotonic() + 60
    while not all(writer.record.acknowledged > 5 for writer in crowd.writers):
        assert time.monotonic() < deadline, "not all of them write"
        assert all(writer.process.poll() is None for writer in crowd.writers), "one has ended"
        time.sleep(0.02)
        for writer in crowd.writers:
            writer.record.read_on()


def _recorded(path: Path, *lines: str) -> _Record:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    record = _Record(path)
    record.read_on()
    return record


def test_a_lost_write_one_from_nowhere_and_half_of_a_pair_are_found_out(tmp_path: Path) -> None:
    key = tireless.KEYS[0]
    log = tmp_path / "log"
    record = _recorded(
        log,
        f'begun 1 {{"{key}": 1}}',
        "done 1",
        f'begun 2 {{"{key}": 2}}',
        "done 2",
        f'begun 3 {{"{key}": 3, "left": 3, "right": 3}}',
        f'begun 4 {{"{key}": null}}',
        'begun 5 {"count": 5}',
    )
    assert (record.acknowledged, record.counted, record.counted_at_most) == (2, 0, 1)
    for legal in ({key: 2}, {key: 3, "left": 3, "right": 3}, {"left": 3, "right": 3}):
        record.check(legal)
    for illegal in ({key: 1}, {key: 7}, {key: 2, "left": 3}):
        with pytest.raises(AssertionError, match=r"and not of|one half"):
            record.check(illegal)
    record = _recorded(
        log, f'begun 1 {{"{key}": 1}}', "done 1", f'begun 2 {{"{key}": null}}', "done 2"
    )
    record.check({})
    with pytest.raises(AssertionError, match="and not of"):
        record.check({key: 1})
    with pytest.raises(AssertionError, match="database is locked"):
        _recorded(log, "failed OperationalError('database is locked')")
