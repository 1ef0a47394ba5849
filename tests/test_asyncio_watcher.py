"""That the example docs/examples/asyncio_watcher.py tells each change of a service, once.

Each test runs it as its users do: as a program, on services and a database of the test's.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import free_port

import statedb

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "asyncio_watcher.py"
PATIENCE = 60.0

pytestmark = pytest.mark.once


class Service:
    """A port, on which something may listen."""

    def __init__(self) -> None:
        self.name = f"127.0.0.1:{free_port()}"
        self._listening: socket.socket | None = None

    def come_up(self) -> None:
        host, _, port = self.name.partition(":")
        self._listening = socket.create_server((host, int(port)), backlog=100)

    def go_down(self) -> None:
        if self._listening is not None:
            self._listening.close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.go_down()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a watcher on a database."""
    with contextlib.ExitStack() as stack:

        def start(database: str, *arguments: str) -> subprocess.Popen[str]:
            watcher = subprocess.Popen(
                [sys.executable, "-W", "error", str(EXAMPLE), *arguments, f"--url={database}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(watcher)
            stack.callback(watcher.kill)
            return watcher

        yield start


def told(watcher: subprocess.Popen[str]) -> list[str]:
    """What a watcher that has ended has told."""
    output, errors = watcher.communicate(timeout=PATIENCE)
    assert (watcher.returncode, errors) == (0, "")
    return output.splitlines()


def test_it_tells_what_has_changed_since_somebody_last_looked(
    start: Callable[..., subprocess.Popen[str]], service: Service, url: str
) -> None:
    absent = Service()
    names = [service.name, absent.name]
    service.come_up()
    assert sorted(told(start(url, *names))) == sorted(
        [f"{service.name} is up", f"{absent.name} is down"]
    )
    assert told(start(url, *names)) == []
    service.go_down()
    assert told(start(url, *names)) == [f"{service.name} is down"]
    with statedb.connect(url) as db:
        watcher = db.state.thdGetObjectId("services", "Watcher")
        assert db.state.thdGetStates(watcher) == dict.fromkeys(names, False)


def test_of_several_at_once_one_tells_each_change(
    start: Callable[..., subprocess.Popen[str]], service: Service, url: str
) -> None:
    service.come_up()
    names = [f"localhost:{service.name.partition(':')[2]}", service.name]
    watchers = [start(url, *names) for _ in range(3)]
    lines = [line for watcher in watchers for line in told(watcher)]
    assert sorted(lines) == sorted(f"{name} is up" for name in names)


def test_it_looks_again_and_again_until_it_is_interrupted(
    start: Callable[..., subprocess.Popen[str]], service: Service, tmp_path: Path
) -> None:
    watcher = start(f"sqlite:///{tmp_path}/seen.sqlite", service.name, "--interval=0.05")
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == f"{service.name} is down\n"
    service.come_up()
    assert watcher.stdout.readline() == f"{service.name} is up\n"
    watcher.send_signal(signal.SIGINT)
    assert watcher.communicate(timeout=PATIENCE) == ("", "")
    assert watcher.returncode == 130


def test_what_it_cannot_do_it_says_in_a_line(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    watcher = start(f"sqlite:///{tmp_path}/no/such.sqlite", "127.0.0.1:80")
    output, errors = watcher.communicate(timeout=PATIENCE)
    assert (watcher.returncode, output) == (1, "")
    assert errors.startswith("asyncio_watcher: upgrade failed: cannot open")
    assert errors.count("\n") == 1
    watcher = start("sqlite://", "localhost")
    assert "'localhost' is no host:port" in watcher.communicate(timeout=PATIENCE)[1]
    assert watcher.returncode == 2


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "soon"])
def test_an_interval_that_is_none_is_refused(
    start: Callable[..., subprocess.Popen[str]], interval: str
) -> None:
    watcher = start("sqlite://", "127.0.0.1:80", f"--interval={interval}")
    output, errors = watcher.communicate(timeout=PATIENCE)
    assert (watcher.returncode, output) == (2, "")
    assert "--interval" in errors
