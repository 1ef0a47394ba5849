"""Reader: the lines of a dump in their order, each of which has to be what a dump holds there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import IO, Final

from statedb.cli import records
from statedb.cli.dump import LOAD_CLASS
from statedb.cli.endings import DumpError
from statedb.cli.records import Claimed, Counts, Header, Master, Object, Record, Value
from statedb.names import encode_and_hash, encode_name, name_hash, shown

#: In which order there are which lines.
_SECTIONS: Final[dict[type, int]] = {Object: 1, Value: 1, Master: 2, Claimed: 3, Counts: 4}
#: How many names are remembered to notice one that comes again. More have to be in order, by their
#: hashes, as statedb writes them: then it is noticed without a memory.
REMEMBERED: Final = 10_000


class Reader:
    """Reads a dump from a binary file; what is amiss is a DumpError that says in which line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        #: The number of the line that was read last, and how many bytes were read with it.
        self.number = 0
        self.position = 0
        self._digest = hashlib.sha256()
        self._counts = [0, 0, 0, 0]
        self._object: Object | None = None
        self._names = _Names()

    @property
    def counts(self) -> Counts:
        """How much was read so far."""
        return Counts(*self._counts)

    @property
    def digest(self) -> str:
        """By which all lines read so far are known."""
        return self._digest.hexdigest()

    def header(self) -> Header:
        """The first line."""
        found = self._next()
        if not isinstance(found, Header):
            raise self.amiss("it is no header of a dump")
        return found

    def records(self) -> Iterator[Record]:
        """All lines after the header but the last, which has the counts and is checked."""
        section = 1
        while True:
            record = self._next()
            if isinstance(record, Counts):
                self._check_end(record)
                return
            place = _SECTIONS.get(type(record))
            if record is None or place is None or place < section:
                raise self.amiss(self._what_is_missing(record))
            section = place
            self._note(record)
            yield record

    def _what_is_missing(self, record: Record | None) -> str:
        if record is None:
            return "the dump ends without its counts: a part of it is missing"
        return "this kind of line does not come here"

    def _next(self) -> Record | None:
        """What the next line says; None at the end of the file."""
        line = self._file.readline(records.LONGEST_LINE + 1)
        self.number += 1
        self.position += len(line)
        if not line:
            return None
        if len(line) > records.LONGEST_LINE:
            raise self.amiss(f"it has more than {records.LONGEST_LINE} bytes, which none has")
        self._digest.update(line)
        try:
            return records.read(line)
        except (TypeError, ValueError) as error:
            raise self.amiss(str(error)) from error

    def amiss(self, what: str) -> DumpError:
        return DumpError(f"line {self.number}: {what}")

    def _note(self, record: Record) -> None:
        """Count what was read; raises where it has a name that was there already."""
        if isinstance(record, Value):
            if self._object is None:
                raise self.amiss("a value comes before any object")
            self._count(1, encode_and_hash(record.name, "a value's name")[1], record.name)
        elif isinstance(record, Object):
            if record.class_name == LOAD_CLASS:
                raise self.amiss(f"objects of the class {LOAD_CLASS} are the load's own")
            self._object = record
            self._names = _Names()
            self._counts[0] += 1
        elif isinstance(record, Master):
            self._begin_section(2)
            self._count(2, encode_and_hash(record.name, "a master's name")[1], record.name)
        else:
            assert isinstance(record, Claimed)
            self._begin_section(3)
            thing = (encode_name(record.kind, "a kind"), encode_name(record.name, "a name"))
            self._count(3, name_hash(*thing), record.name)

    def _begin_section(self, which: int) -> None:
        if not self._counts[which]:
            self._names = _Names()

    def _count(self, which: int, digest: bytes, name: str) -> None:
        self._counts[which] += 1
        reason = self._names.refuses(digest)
        if reason is not None:
            raise self.amiss(f"{shown(name)} {reason}")

    def _check_end(self, said: Counts) -> None:
        if said != self.counts:
            raise self.amiss(f"the dump is to have {said}; it has {self.counts}")
        if self._file.readline(1):
            self.number += 1
            raise self.amiss("nothing comes after the counts")


class _Names:
    """Names, by their hashes, of which none may come twice."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._last = b""
        self._in_order = True

    def refuses(self, digest: bytes) -> str | None:
        """Why a further one cannot be taken, if so."""
        if digest in self._seen:
            return "comes a second time"
        in_order = self._in_order and digest > self._last
        if len(self._seen) < REMEMBERED:
            self._seen.add(digest)
        elif not in_order:
            return f"is one of more than {REMEMBERED}, which have to be in the order of a dump's"
        self._in_order = in_order
        self._last = digest
        return None
