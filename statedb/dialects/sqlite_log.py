"""The write-ahead log of a SQLite file, kept short without the race that some versions have.

From 3.7.0 to 3.51.2 a checkpoint may overlook that a commit has just begun the log anew, and then
take frames for copied that are not: https://sqlite.org/wal.html#walresetbug. Only who writes begins
it anew. So our connections make no checkpoints by themselves, and one is made now and then by a
further connection while ours holds the right to write, and writes nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

#: From which size on a log is long; SQLite's own checkpoints begin there too.
LONG = 4 * 2**20
#: To which size SQLite cuts it, if it has grown longer, when it is begun anew.
LIMIT = 4 * LONG
#: How many writes of this process there may be between two checkpoints of a long log; it is looked
#: at once in so many.
WRITES_BETWEEN, WRITES_UNLOOKED = 1000, 16


def has_reset_race(version: tuple[int, ...]) -> bool:
    """Whether this version of the library has it; of older lines, the last of two have not."""
    return (
        (3, 7, 0) <= version < (3, 51, 3)
        and not (3, 44, 6) <= version < (3, 45, 0)
        and not (3, 50, 7) <= version < (3, 51, 0)
    )


class Log:
    """The log of one file, as one process sees it; who has the turn to write uses it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._log = Path(path + "-wal")
        #: A process that writes once and ends looks as well: the first is looked at.
        self._unlooked = 0
        self._since_checkpoint = WRITES_BETWEEN
        self._size = 0

    def is_due(self) -> bool:
        """Whether a checkpoint is to be made before the write that is about to be."""
        self._unlooked -= 1
        if self._unlooked > 0:
            return False
        self._unlooked = WRITES_UNLOOKED
        self._since_checkpoint += WRITES_UNLOOKED
        try:
            # Never opened: closing it again would drop all locks that this process has on it.
            size = self._log.stat().st_size
        except OSError:
            return False
        # It stays as large as it was when it is begun anew; so by its size alone nothing is known.
        return size >= LONG and (
            self._since_checkpoint >= WRITES_BETWEEN or size >= self._size + LONG
        )

    def checkpoint(self) -> None:
        """Copy the log into the file. The caller holds the right to write, and has not written."""
        self._since_checkpoint = 0
        # Where it fails there is another time; a write meets what is amiss, and can tell.
        with contextlib.suppress(sqlite3.Error, OSError):
            other = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            try:
                other.execute("PRAGMA wal_autocheckpoint = 0")
                other.execute("PRAGMA synchronous = FULL")
                # Or, having read nothing, it would not know that there is a log.
                other.execute("PRAGMA schema_version").fetchall()
                other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                other.close()
            self._size = self._log.stat().st_size
