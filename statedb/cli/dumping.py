"""Dumping: the commands that write a dump, and load one."""

from __future__ import annotations

import argparse
import sys

from statedb.cli import files
from statedb.cli.dump import write_dump
from statedb.cli.load import load_in_parts, load_whole
from statedb.cli.output import Output
from statedb.cli.progress import progress
from statedb.cli.reader import Reader
from statedb.database import Database

#: Of how many lines the progress is told at once.
_LINES = 500


def dump(db: Database, options: argparse.Namespace, out: Output) -> None:
    to_stdout = options.file == files.STANDARD
    with db.snapshot() as conn, files.written(options.file) as file:
        ((total,),) = conn.fetch_all(conn.sql["select_value_count"])
        hidden = options.json or (to_stdout and sys.stdout.isatty())
        with progress("dumping", total, hidden=hidden) as show:
            lines: list[str] = []
            count = 0

            def write(line: str) -> None:
                nonlocal count
                lines.append(line)
                if len(lines) == _LINES:
                    count += _LINES
                    file.write("\n".join([*lines, ""]).encode())
                    lines.clear()
                    show(count)

            counts = write_dump(conn, write)
            file.write("\n".join([*lines, ""]).encode())
    if not to_stdout:
        out.said(f"dumped {counts} into {options.file}", counts._asdict())


def load(db: Database, options: argparse.Namespace, out: Output) -> None:
    with files.read(options.file) as file:
        reader = Reader(file)
        size = files.size_of(options.file)
        with progress("loading", size, hidden=options.json) as show:
            run = load_in_parts if options.resume else load_whole
            run(db, reader, lambda: show(reader.position))
    out.said(f"loaded {reader.counts}", reader.counts._asdict())
