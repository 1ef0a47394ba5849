"""Load: writing a dump into a database, all or nothing, or in parts that are taken up again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from statedb import state
from statedb.cli.batch import Batch
from statedb.cli.dump import LOAD_CLASS
from statedb.cli.endings import DumpError
from statedb.cli.reader import Reader
from statedb.cli.subjects import object_id
from statedb.connection import Connection
from statedb.database import Database
from statedb.errors import InvalidValueError, OutcomeUnknownError, ValueTooLargeError

_PROGRESS: Final = "progress"

Progress = Callable[[], object]


def load_whole(db: Database, reader: Reader, progress: Progress) -> None:
    """Write what is read in one transaction."""
    dump = reader.header().dump
    with db.transaction() as conn:
        if object_id(conn, dump, LOAD_CLASS) is not None:
            raise DumpError(
                "a load of this dump was begun with --resume, and is half done: go on with"
                f" --resume, or forget it with: statedb delete --object {dump}:{LOAD_CLASS}"
            )
        for batch in _batches(reader):
            batch.write(conn)
            progress()


def load_in_parts(db: Database, reader: Reader, progress: Progress) -> None:
    """Write what is read in many transactions, each with how far it got, from there on."""
    parts = _Parts(db, reader)
    for batch in _batches(reader, parts):
        parts.write(batch)
        progress()
    parts.end()


class _Parts:
    """How far a load has come, as the database knows it."""

    def __init__(self, db: Database, reader: Reader) -> None:
        self._db = db
        self._reader = reader
        self._dump = reader.header().dump
        self._done: Any = db.run(_progress_of, self._dump)
        #: How many lines were written earlier.
        self.lines = 0
        if self._done is not None:
            lines = self._done.get("lines") if isinstance(self._done, dict) else None
            if not isinstance(lines, int):
                raise DumpError(
                    "how far the load of this dump has come is unreadable: begin anew after"
                    f" statedb delete --object {self._dump}:{LOAD_CLASS}"
                )
            self.lines = lines

    def check(self) -> None:
        """Where it goes on: raise unless the lines before are those that were written."""
        if self._reader.number < self.lines or self._done.get("digest") != self._reader.digest:
            raise DumpError(
                f"the first {self.lines} lines are not those that were loaded: this is not the"
                f" file, or it was changed"
            )

    def write(self, batch: Batch) -> None:
        """Write a batch, and that it is written."""
        done = {"lines": self._reader.number, "digest": self._reader.digest}
        with self._settled(done):
            self._db.run(_write_part, batch, self._dump, self._done, done)
        self._done = done

    def end(self) -> None:
        """Forget how far it has come: it is done."""
        with self._settled(None):
            self._db.run(_forget_progress, self._dump)

    @contextlib.contextmanager
    def _settled(self, done: Any) -> Iterator[None]:
        """Where an answer is lost, what it would have been is found in the database."""
        try:
            yield
        except OutcomeUnknownError:
            if self._db.run(_progress_of, self._dump) != done:
                raise


def _batches(reader: Reader, parts: _Parts | None = None) -> Iterator[Batch]:
    """What is read, a batch at a time, after what was written earlier."""
    written = 0 if parts is None else parts.lines
    batch = Batch()
    for record in reader.records():
        try:
            batch.add(record)
        except (InvalidValueError, ValueTooLargeError) as error:
            raise reader.amiss(str(error)) from error
        if parts is not None and reader.number == written:
            parts.check()
        if reader.number <= written:
            batch = batch.following()
        elif batch.is_full:
            yield batch
            batch = batch.following()
    if parts is not None and reader.number <= written:
        parts.check()
    yield batch


def _progress_of(conn: Connection, dump: str) -> Any:
    objectid = object_id(conn, dump, LOAD_CLASS)
    return None if objectid is None else state.get_state(conn, objectid, _PROGRESS, None)


def _write_part(conn: Connection, batch: Batch, dump: str, expected: Any, done: Any) -> None:
    def advance(found: Any) -> Any:
        if found != expected:
            raise DumpError("another load of this dump is under way, or has just come further")
        return done

    with conn.transaction():
        objectid = state.get_object_id(conn, dump, LOAD_CLASS)
        state.update_state(conn, objectid, _PROGRESS, advance, default=None)
        batch.write(conn)


def _forget_progress(conn: Connection, dump: str) -> None:
    with conn.transaction():
        state.delete_object(conn, state.get_object_id(conn, dump, LOAD_CLASS))
