"""A program of its own: writes to a SQLite file until the disk is full, and after there is room.

python full_disk.py DIRECTORY MODE KIND: ``disk`` fills the directory's file system; ``limit`` has
this process's files grow no further. It ends with 0 if each call was refused as it should be.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sqlite3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import statedb
from faults import refusals
from statedb import DatabaseError, cli


class _Disk:
    """A file system that can be filled."""

    #: What a refusal says, and advises.
    parts = ("database or disk is full", "make room on the disk")

    def __init__(self, directory: Path) -> None:
        self._filler = directory / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for size in (2**16, 2**12):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def make_room(self) -> None:
        self._filler.unlink()


class _Limit:
    """A limit to where in its files this process may write, as by ``ulimit -f``."""

    parts = ("disk I/O error", "what this process may write")

    def fill(self) -> None:
        self._set(512)

    def make_room(self) -> None:
        self._set(resource.RLIM_INFINITY)

    @staticmethod
    def _set(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def main(directory: Path, mode: str, kind: str) -> None:
    url = f"sqlite:///{directory}/test.sqlite?journal_mode={mode}"
    disk = _Disk(directory) if kind == "disk" else _Limit()
    with statedb.connect(url, timeout=refusals.TIMEOUT) as db:
        objectid = db.state.thdGetObjectId("nightly", "Scheduler")
        assert objectid == 1
        db.masters.thdFindMasterId("host")
        acknowledged = {"k": "before", "other": "before"}
        db.state.thdSetStates(1, acknowledged)
        disk.fill()
        try:
            # What room there is in the files that are there already.
            for number in range(1000):
                try:
                    db.state.thdSetState(1, f"last {number}", refusals.LONG[:1000])
                except DatabaseError:
                    break
                acknowledged[f"last {number}"] = refusals.LONG[:1000]
            else:
                raise AssertionError("the disk is not full")
            refusals.check_refused(db, refusals.WRITES, *disk.parts)
            refusals.check_answered(db, refusals.READS)
            assert db.state.thdGetStates(1) == acknowledged
            _check_command(f"sqlite:///{directory}/new.sqlite", f"journal_mode={mode}", *disk.parts)
        finally:
            disk.make_room()
        # What was there before: of what was refused, nothing is.
        second = _contents(directory)
        assert second["states"] == sorted((k, json.dumps(v)) for k, v in acknowledged.items())
        assert (len(second["objects"]), len(second["masters"])) == (1, 1)
        assert db.state.thdGetStates(1) == acknowledged
        refusals.check_as_new(db)
        refusals.check_answered(db, [*refusals.WRITES, "delete_state", "take_place", "upgrade"])
    assert "mended 1" in {row[0] for row in _contents(directory)["states"]}


def _contents(directory: Path) -> dict[str, list[tuple[object, ...]]]:
    """What a second connection sees."""
    with contextlib.closing(sqlite3.connect(directory / "test.sqlite")) as second:
        assert second.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {
            "states": second.execute(
                "SELECT CAST(name AS TEXT), value FROM statedb_states ORDER BY 1"
            ).fetchall(),
            "objects": second.execute("SELECT * FROM statedb_objects ORDER BY 1").fetchall(),
            "masters": second.execute("SELECT * FROM statedb_masters ORDER BY 1").fetchall(),
        }


def _check_command(url: str, setting: str, *parts: str) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        assert cli.main(["upgrade", "--url", f"{url}?{setting}"]) == 1
    refusals.check_line(errors.getvalue(), url, *parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
