"""The engines, their databases, and the three kinds of caller that every test can ask for."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, OwnServer, chosen_engines
from proxy import Proxy

import statedb
from statedb import Database

Call = Callable[..., Any]
#: How the drivers say that somebody else has locked what is wanted.
LOCKED = "database is locked|lock timeout|Lock wait timeout"

ENGINES = chosen_engines()
_running = contextlib.ExitStack()
_ran: set[str] = set()


def pytest_sessionstart() -> None:
    """Have an interrupt end what the tests start, though a shell's background job ignores them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Have a search for garbage pass over what stays: the modules and thousands of tests."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    return f"engines: {', '.join(one.name for one in ENGINES)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is done to a server where there is none that the tests have started."""
    items[:] = [item for item in items if _has_its_server(item)]


def _has_its_server(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or "server_engine" not in getattr(item, "fixturenames", ()):
        return True
    return isinstance(callspec.params["engine"], OwnServer)


def pytest_sessionfinish() -> None:
    _running.close()


@pytest.fixture(scope="session", autouse=True)
def _no_certificates() -> Iterator[None]:
    """PyMySQL reads all of the system's for each connection, which takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", os.devnull)
        yield


@pytest.fixture(scope="session", params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    """One of the engines under test, its server running."""
    chosen: Engine = request.param
    # It stays to the end: pytest ends a fixture when the next test is another engine's, and so
    # would start each server anew for each file.
    if chosen.name not in _ran:
        _running.enter_context(chosen.running())
        _ran.add(chosen.name)
    return chosen


@pytest.fixture(scope="session")
def server_engine(engine: Engine) -> OwnServer:
    """An engine with a server that the tests have started, and may restart."""
    assert isinstance(engine, OwnServer)
    return engine


@pytest.fixture
def url(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """A database of its own for the test, with the tables in it and nothing else."""
    with engine.database(tmp_path) as fresh:
        yield fresh


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with statedb.connect(url) as database:
        yield database


@pytest.fixture
def objectid(db: Database) -> int:
    return db.state.thdGetObjectId("nightly", "Scheduler")


@pytest.fixture
def application(engine: Engine, url: str) -> Iterator[Callable[..., Any]]:
    """Opens the application's own connections, by the driver alone; they end with the test."""
    with contextlib.ExitStack() as stack:

        def connect(**settings: Any) -> Any:
            return stack.enter_context(contextlib.closing(engine.connect(url, **settings)))

        yield connect


@pytest.fixture
def stored(engine: Engine, url: str) -> Iterator[Callable[..., Any]]:
    """Reads a value through a second connection of the driver's; ABSENT where there is none."""
    with contextlib.closing(engine.connect(url, autocommit=True)) as second:

        def read(objectid: int, name: str) -> Any:
            return statedb.state.get_state(second, objectid, name, ABSENT)

        yield read


@pytest.fixture
def second(application: Callable[..., Any]) -> Any:
    """Another connection than the caller's, of the driver's own, on which to see what is there."""
    return application(autocommit=True)


@pytest.fixture
def impatient(engine: Engine, application: Callable[..., Any]) -> Any:
    """A connection of the driver's own, in autocommit, that waits for no lock for long."""
    if engine.name == "sqlite":
        return application(autocommit=True, timeout=0.1)
    own = application(autocommit=True)
    own.cursor().execute(
        "SET lock_timeout = 500"
        if engine.name.startswith("postgresql")
        else "SET innodb_lock_wait_timeout = 1, lock_wait_timeout = 5"
    )
    return own


@pytest.fixture
def own_table(impatient: Any) -> Iterator[None]:
    """A table of the application's own, beside ours."""
    cursor = impatient.cursor()
    cursor.execute("CREATE TABLE IF NOT EXISTS own (name VARCHAR(20))")
    cursor.execute("DELETE FROM own")
    yield
    # A transaction that a test has left open has this fail, where it would wait for hours.
    cursor.execute("DROP TABLE own")


@pytest.fixture
def proxy(server_engine: OwnServer) -> Iterator[Proxy]:
    """A proxy before the engine's server."""
    server = server_engine.server
    assert server is not None
    with Proxy(server.port, server.protocol) as between:
        yield between


@pytest.fixture
def far_url(server_engine: OwnServer, url: str, proxy: Proxy) -> str:
    """The test's database, through the proxy."""
    assert server_engine.server is not None
    return server_engine.server.url(url.rpartition("/")[2], proxy.port)


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


@pytest.fixture(params=["direct", "sync", "future"])
def call(request: pytest.FixtureRequest, engine: Engine, url: str, db: Database) -> Iterator[Call]:
    """Calls an operation as one of the three kinds of caller does."""
    kind: str = request.param
    if kind == "direct":
        with contextlib.closing(engine.connect(url, autocommit=True)) as own:
            yield lambda operation, *args, **kwargs: operation(own, *args, **kwargs)
        return

    def through_the_connector(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        name = "".join(word.capitalize() for word in operation.__name__.split("_"))
        connector = db.state if operation.__name__ in statedb.state.__all__ else db.masters
        if kind == "sync":
            return getattr(connector, f"thd{name}")(*args, **kwargs)
        future = getattr(connector, name[0].lower() + name[1:])(*args, **kwargs)
        return future.result(timeout=60)

    yield through_the_connector


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    """No thread, connection or file of statedb's outlives a test."""
    before = _open_files()
    yield
    deadline = time.monotonic() + 5
    while left := [one.name for one in threading.enumerate() if one.name.startswith("statedb")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    if _open_files() - before:
        # Perhaps it is garbage only, which says so in a ResourceWarning.
        gc.collect()
    # A proxy's connections end when its threads have seen that they are to.
    while left := sorted(_open_files() - before):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def _open_files() -> set[str]:
    """The sockets and database files that this process has open."""
    files = set()
    for descriptor in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").exists() else ():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:") or ".sqlite" in target:
                files.add(f"{descriptor.name} {target}")
    return files
