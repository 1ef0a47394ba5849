"""Real database servers for the tests: each on a free port, and gone afterwards."""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from programs import SBIN_PATH, Engine, Tool, require

if TYPE_CHECKING:
    from typing_extensions import Self

Protocol = Literal["postgresql", "mysql"]

READY_SECONDS = 60.0
STOP_SECONDS = 20.0


class ServerFailed(RuntimeError):
    """A server died or did not become ready; the message holds the end of its log."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, below those the kernel gives to clients.

    A client's own port could be one that a stopped server left, and a client that keeps trying
    to connect to a free client port ends up connected to itself.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port


class Server(ABC):
    """One server in a directory of its own; start it from the main thread.

    `durable` makes it wait for the disk as in production; `options` are further arguments of the
    server program. The kernel ends the server when the thread that started it ends.
    """

    name: ClassVar[Engine | Tool]
    protocol: ClassVar[Protocol]
    account: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    death_signal: ClassVar[str]

    def __init__(self, *, durable: bool = False, options: Sequence[str] = ()) -> None:
        self.durable = durable
        self.options = list(options)
        self.port = free_port()
        self._owner = os.getpid()
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []

    @abstractmethod
    def url(self, database: str, port: int | None = None) -> str:
        """The URL of a database, on another port if a proxy stands before the server."""

    @abstractmethod
    def create_database(self, name: str) -> None: ...

    @abstractmethod
    def drop_database(self, name: str) -> None:
        """Drops the database, if it is there, whoever is still connected to it."""

    @abstractmethod
    def _initialise(self, programs: Path) -> list[str]: ...

    @abstractmethod
    def _command(self, programs: Path) -> list[str]: ...

    @abstractmethod
    def _data_directory(self) -> str:
        """Where the server that answers on our port keeps its data."""

    @abstractmethod
    def _not_yet(self) -> tuple[type[Exception], ...]:
        """The driver's errors where no server answers, or one that is still starting."""

    def _refuses(self, error: Exception) -> bool:
        """Whether the error will not go away by waiting."""
        return False

    def start(self) -> None:
        """Starts the server, on what it stored before unless this is the first start."""
        if self._process is not None:
            raise RuntimeError(f"{self.name} is already running: stop() or kill() it first")
        programs = require(self.name)
        atexit.register(self.stop)
        try:
            if self._directory is not None:
                self._run(programs)
            else:
                self._start_afresh(programs)
        except BaseException:
            self.stop()
            raise

    def _start_afresh(self, programs: Path) -> None:
        """Starts the server on a new directory; where that fails, once more on another, and port.

        A port that was free may be another's by now; and MariaDB was once found without accounts,
        though its initialisation had not complained.
        """
        for is_last in (False, True):
            self._directory = self._new_directory()
            try:
                status = self._launch(self._initialise(programs)).wait()
                if status != 0:
                    raise self._failed(f"could not be initialised: status {status}")
                self._run(programs)
            except ServerFailed:
                if is_last:
                    raise
                self._shut_down()
                shutil.rmtree(self._directory)
                self.port = free_port()
            else:
                return

    def _run(self, programs: Path) -> None:
        self._process = self._launch([*self._command(programs), *self.options])
        self._await_ready(self._process)

    def _failed(self, problem: str) -> ServerFailed:
        return ServerFailed(f"{self.name} {problem}; the end of its log:\n{self.log()}")

    def stop(self) -> None:
        """Shuts the server down and removes its directory."""
        if os.getpid() != self._owner:
            return  # a forked child that runs the exit handlers of its parent
        self._shut_down()
        if self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None
        atexit.unregister(self.stop)

    def restart(self) -> None:
        self._shut_down()
        self.start()

    def kill(self) -> None:
        """Ends the server as a crash would; start() then recovers what it had stored."""
        if self._process is None:
            return
        # Stopped first, so that it forks nothing while its children are listed. PostgreSQL does
        # not start again while a process of its former life is attached to the shared memory.
        os.kill(self._process.pid, signal.SIGSTOP)
        family = self._family()
        for pid in family:
            _send(pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + STOP_SECONDS
        while any(_parent(pid) is not None for pid in family) and time.monotonic() < deadline:
            time.sleep(0.002)
        self._process, self._paused = None, []

    def pause(self) -> None:
        """Freezes the server with all its connections, until resume()."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running: start() it before pause()")
        os.kill(self._process.pid, signal.SIGSTOP)
        self._paused = self._family()
        for pid in self._paused:
            _send(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in reversed(self._paused):
            _send(pid, signal.SIGCONT)
        self._paused = []

    def log(self) -> str:
        """The end of what the server wrote to its log."""
        if self._directory is None:
            return ""
        return (self._directory / "log").read_text("utf-8", errors="replace")[-4000:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise RuntimeError(f"{self.name} has no directory before start() and after stop()")
        return self._directory

    def _new_directory(self) -> Path:
        # The superuser's own TMPDIR need not let the server's account in.
        parent = "/tmp" if os.geteuid() == 0 else None
        directory = Path(tempfile.mkdtemp(prefix=f"statedb-{self.name}-", dir=parent))
        account = self._account()
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
        return directory

    def _account(self) -> pwd.struct_passwd | None:
        """Whom the server runs as, None for whoever runs the tests."""
        return pwd.getpwnam(self.account) if os.geteuid() == 0 else None

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        drop: dict[str, Any] = {}
        account = self._account()
        if account is not None:
            drop = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        setpriv = shutil.which("setpriv", path=SBIN_PATH)
        if setpriv is not None:
            # Last, by a program that runs as the account already: changing the account clears it.
            command = [setpriv, "--pdeathsig", self.death_signal, *command]
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                env={
                    **os.environ,
                    "PATH": SBIN_PATH,
                    "LC_ALL": "C.UTF-8",
                    # What initialises one server must not meet another's temporary tables.
                    "TMPDIR": str(self.directory),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the test run, which then stops the server
                **drop,
            )

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                answer = self._data_directory()
            except self._not_yet() as error:
                answer = f"{type(error).__name__}: {error}"
                if self._refuses(error):
                    raise self._failed(f"lets nobody in: {answer}") from error
            if answer == str(self.directory / "data"):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                raise self._failed(f"ended with status {process.wait(0.02)}")
            if time.monotonic() >= deadline:
                raise self._failed(
                    f"was not ready after {READY_SECONDS:.0f} s; asked for its directory, port"
                    f" {self.port} last answered {answer!r}"
                )

    def _shut_down(self) -> None:
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def _family(self) -> list[int]:
        """The server's process and its children (PostgreSQL: one for each connection)."""
        assert self._process is not None
        main = self._process.pid
        everybody = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
        return [main, *(pid for pid in everybody if _parent(pid) == main)]


class PostgreSQL(Server):
    name: ClassVar[Engine] = "postgresql"
    protocol = "postgresql"
    account = "postgres"
    stop_signal = signal.SIGINT
    death_signal = "KILL"

    def url(self, database: str, port: int | None = None) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, name: str) -> None:
        self._execute(f'CREATE DATABASE "{name}"')

    def drop_database(self, name: str) -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _initialise(self, programs: Path) -> list[str]:
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
        return [str(programs / "initdb"), *options, "-D", str(self.directory / "data")]

    def _command(self, programs: Path) -> list[str]:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "500",
        }
        if not self.durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        arguments = [word for item in settings.items() for word in ("-c", "=".join(item))]
        return [str(programs / "postgres"), "-D", str(self.directory / "data"), *arguments]

    def _data_directory(self) -> str:
        return str(self._execute("SELECT current_setting('data_directory')")[0][0])

    def _not_yet(self) -> tuple[type[Exception], ...]:
        import psycopg

        return (psycopg.OperationalError,)

    def _execute(self, statement: str) -> list[tuple[Any, ...]]:
        import psycopg

        address = self.url("postgres") + "?sslmode=disable&connect_timeout=5"
        with contextlib.closing(psycopg.connect(address, autocommit=True)) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class MariaDB(Server):
    name: ClassVar[Engine] = "mariadb"
    protocol = "mysql"
    account = "mysql"
    stop_signal = signal.SIGTERM
    death_signal = "KILL"

    def url(self, database: str, port: int | None = None) -> str:
        return f"mysql://root@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, name: str) -> None:
        self._execute(f"CREATE DATABASE `{name}`")

    def drop_database(self, name: str) -> None:
        import pymysql

        # An open transaction would hold the statement up.
        sessions = f"SELECT id FROM information_schema.processlist WHERE db = '{name}' ORDER BY id"
        for (session,) in self._execute(sessions):
            with contextlib.suppress(pymysql.OperationalError):
                self._execute(f"KILL {session}")
        self._execute(f"DROP DATABASE IF EXISTS `{name}`")

    def _initialise(self, programs: Path) -> list[str]:
        script = shutil.which("mariadb-install-db", path=SBIN_PATH) or "mariadb-install-db"
        options = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]
        return [script, *options, f"--datadir={self.directory / 'data'}"]

    def _command(self, programs: Path) -> list[str]:
        return [
            str(programs / "mariadbd"),
            "--no-defaults",
            "--skip-name-resolve",
            *self._settings(),
        ]

    def _settings(self) -> list[str]:
        settings = [
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'socket'}",
            f"--pid-file={self.directory / 'pid'}",
            # One that starts deletes all temporary tables there, another's too.
            f"--tmpdir={self.directory}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--max-connections=500",
        ]
        if self.durable:
            # Without its binary log it shows others what was committed before that is on disk:
            # https://bugs.mysql.com/74303.
            waits = ["--innodb-flush-log-at-trx-commit=1", "--log-bin=binlog", "--sync-binlog=1"]
            return [*settings, *waits]
        fast = ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"]
        return [*settings, *fast, "--sync-binlog=0"]

    def _data_directory(self) -> str:
        return str(self._execute("SELECT @@datadir")[0][0]).rstrip("/")

    def _not_yet(self) -> tuple[type[Exception], ...]:
        import pymysql

        return (pymysql.OperationalError, pymysql.InterfaceError)

    def _refuses(self, error: Exception) -> bool:
        # This host may not connect, or this account: the accounts are not there.
        return error.args[0] in (1045, 1130)

    def _execute(self, statement: str) -> Sequence[tuple[Any, ...]]:
        import pymysql

        connection = pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user="root",
            autocommit=True,
            connect_timeout=5,
            read_timeout=30,
        )
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()


class MySQL(MariaDB):
    """Oracle's MySQL of Debian's unstable suite, unpacked beside the system and run from there."""

    name: ClassVar[Engine] = "mysql"

    def _account(self) -> pwd.struct_passwd | None:
        return None  # no package made an account, and a home's cache may be closed to any other

    def _initialise(self, programs: Path) -> list[str]:
        data = f"--datadir={self.directory / 'data'}"
        return [*self._program(programs), "--initialize-insecure", data]

    def _command(self, programs: Path) -> list[str]:
        # PyMySQL would encrypt unasked, and the proxy would see no statements.
        plain = "--tls-version="
        small = ["--mysqlx=OFF", "--innodb-redo-log-capacity=8M", "--secure-file-priv=NULL"]
        return [*self._program(programs), *self._settings(), plain, *small]

    def _program(self, tree: Path) -> list[str]:
        # Its libraries are newer than the system's, its loader too.
        loader = next(tree.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))
        return [
            *(str(loader), "--library-path", str(loader.parent)),
            *(str(tree / "usr/sbin/mysqld"), "--no-defaults"),
            *(["--user=root"] if os.geteuid() == 0 else []),
            f"--basedir={tree / 'usr'}",
            f"--lc-messages-dir={tree / 'usr/share/mysql'}",
            f"--plugin-dir={tree / 'usr/lib/mysql/plugin'}",
        ]


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _parent(pid: int) -> int | None:
    """The process's parent; None if it is gone, or dead and merely not yet reaped."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)
