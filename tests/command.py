"""The command line, as a test runs it: here, or in a process under a terminal or a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from statedb import cli

#: Has a process be one without rich.
WITHOUT_RICH = (
    "import sys; sys.modules['rich'] = None; from statedb.cli import main; sys.exit(main())"
)


class Done(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


class Command:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Done:
        self._capsys.readouterr()
        try:
            code = cli.main([str(one) for one in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = self._capsys.readouterr()
        return Done(code, said.out, said.err)

    def well(self, *arguments: object) -> str:
        """What a command says that succeeds and complains of nothing."""
        done = self(*arguments)
        assert (done.code, done.err) == (0, ""), done
        return done.out

    def badly(self, code: int, *arguments: object) -> str:
        """The one line that a command says that ends with this code."""
        done = self(*arguments)
        assert (done.code, done.out) == (code, ""), done
        (line,) = done.err.splitlines()
        assert line.startswith("statedb: ")
        return line


def arguments_of(*arguments: object, rich: bool = True) -> list[str]:
    how = ["-m", "statedb"] if rich else ["-c", WITHOUT_RICH]
    return [sys.executable, *how, *(str(one) for one in arguments)]


class Terminal:
    """A process whose standard streams are a terminal; ``shown`` is what it has written there."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.shown = ""
        self._master = master

    def read_until(self, part: str, times: int = 1) -> str:
        """What is shown once it holds a part so many times."""
        deadline = time.monotonic() + 60
        while self.shown.count(part) < times:
            assert time.monotonic() < deadline, self.shown
            assert self._read(), self.shown
        return self.shown

    def read_all(self) -> str:
        """What is shown when the process has ended."""
        while self._read():
            pass
        return self.shown

    def _read(self) -> bool:
        select.select([self._master], [], [], 60)
        try:
            read = os.read(self._master, 65_536)
        except OSError:  # its other side is closed
            return False
        self.shown += read.decode(errors="replace")
        return bool(read)


@contextlib.contextmanager
def terminal(*arguments: object, rich: bool = True, **settings: Any) -> Iterator[Terminal]:
    """A command under a terminal; ``settings`` as for Popen, its streams included."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    streams = {"stdin": slave, "stdout": slave, "stderr": slave, **settings}
    try:
        process = subprocess.Popen(arguments_of(*arguments, rich=rich), env=environment, **streams)
    finally:
        os.close(slave)
    try:
        yield Terminal(process, master)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
