"""That the example docs/examples/twisted_tickets.py never gives a number twice, and loses none.

Each test runs it as its users do: as a server, asked over its port.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "twisted_tickets.py"
PATIENCE = 60.0
ASKED = 40

pytest.importorskip("twisted")
pytestmark = pytest.mark.once


class Dispenser:
    """A server of tickets, at a free port."""

    def __init__(self, url: str, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(EXAMPLE), f"--port={port}", f"--url={url}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def visit(self) -> socket.socket:
        """A connection to it."""
        assert self.process.stdout is not None
        (port,) = re.findall(r"^Tickets at port (\d+)\n$", self.process.stdout.readline())
        return socket.create_connection(("127.0.0.1", int(port)), timeout=PATIENCE)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.communicate(timeout=PATIENCE) == ("", "")
        assert self.process.returncode == 0


@pytest.fixture
def start() -> Iterator[Callable[..., Dispenser]]:
    with contextlib.ExitStack() as stack:

        def start(url: str, port: int = 0) -> Dispenser:
            dispenser = Dispenser(url, port)
            stack.enter_context(dispenser.process)
            stack.callback(dispenser.process.kill)
            return dispenser

        yield start


def test_dispensers_of_one_database_never_give_a_number_twice(
    start: Callable[..., Dispenser], url: str, objectid: int, second: Any
) -> None:
    both = [start(url), start(url)]
    tickets: list[str] = []
    with contextlib.ExitStack() as stack:
        visits = [stack.enter_context(one.visit()) for one in both]
        for visit in visits:
            visit.sendall(b"passports\n" * ASKED + "p\u00e4sse\n".encode())
        for visit in visits:
            answers = visit.makefile("r", encoding="utf-8")
            tickets += [answers.readline() for _ in range(ASKED + 1)]
            answers.close()
    assert sorted(tickets) == sorted(
        [f"passports {n}\n" for n in range(1, 2 * ASKED + 1)] + ["p\u00e4sse 1\n", "p\u00e4sse 2\n"]
    )
    for one in both:
        one.stop()

    # It goes on where they have ended.
    later = start(url)
    with later.visit() as visit:
        visit.sendall(b"passports\n")
        assert visit.recv(100) == f"passports {2 * ASKED + 1}\n".encode()
        later.stop()
        assert visit.recv(100) == b""


def test_what_is_no_desk_gets_no_ticket(start: Callable[..., Dispenser], tmp_path: Path) -> None:
    dispenser = start(f"sqlite:///{tmp_path}/tickets.sqlite")
    with dispenser.visit() as visit, visit.makefile("r", encoding="utf-8") as answers:
        for desk in (b"\n", b"\xff\n", b"passports\n"):
            visit.sendall(desk)
        lines = [answers.readline() for _ in range(3)]
    assert sum(line.startswith("no ticket: ") for line in lines) == 2
    assert "passports 1\n" in lines
    dispenser.stop()


def test_what_it_cannot_do_it_says_in_a_line(
    start: Callable[..., Dispenser], tmp_path: Path
) -> None:
    process = start(f"sqlite:///{tmp_path}/no/such.sqlite").process
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith("twisted_tickets: upgrade failed: cannot open")
    assert errors.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(start: Callable[..., Dispenser], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        process = start(f"sqlite:///{tmp_path}/t.sqlite", taken.getsockname()[1]).process
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith("twisted_tickets: Couldn't listen on")
    # Twisted keeps a file open for its listening, and complains of it itself.
    assert "Traceback" not in errors
