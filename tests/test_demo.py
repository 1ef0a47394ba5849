"""That the demo tells a true story, says so where it is not, and leaves nothing behind.

It is run as its users run it, as a command; what it judges by is also given facts that are wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, OwnServer, SQLite
from proxy import Proxy

from statedb import Claim, cli
from statedb.demo.facts import (
    Expiry,
    Write,
    faults_of_cluster_ids,
    faults_of_commits,
    faults_of_division,
    faults_of_reports,
    faults_of_tokens,
    faults_of_writes,
)
from statedb.demo.repository import GitError, Repository
from statedb.demo.settings import Settings

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="the demo cannot be run here"),
]

#: Seconds that the demo may take, by its promise, and that a process has to be gone in.
LONGEST, GONE = 20.0, 20.0
JOINED = re.compile(r"(\w+), process (\d+), has joined")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """For what does not depend on the engine."""
    return f"sqlite:///{tmp_path}/demo.sqlite"


@dataclass
class Demo:
    """One run of the command; its temporary files are in a directory of the test's."""

    directory: Path
    url: str | None
    environment: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    errors: str = ""
    seconds: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        self.directory.mkdir(parents=True, exist_ok=True)
        own = {name: value for name, value in os.environ.items() if name != "STATEDB_URL"}
        own |= {"TMPDIR": str(self.directory), "PYTHONWARNINGS": "error"}
        url = [] if self.url is None else ["--url", self.url]
        started = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "statedb", "demo", *url],
            cwd=self.directory,
            env=own | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            try:
                yield process
                rest, self.errors = process.communicate(timeout=60)
                self.lines += (rest or "").splitlines()
            finally:
                process.kill()
        self.seconds = time.monotonic() - started

    def run(self) -> int:
        with self.running() as process:
            pass
        return process.returncode

    def read_until(self, process: subprocess.Popen[str], part: str) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))
            if part in line:
                return
        pytest.fail(f"it ended without saying {part!r}: {self.lines}")

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def processes(self) -> dict[str, int]:
        """The processes that it has told of: the id of each, by its name."""
        return {name: int(pid) for name, pid in JOINED.findall(self.output)}

    def check_that_nothing_is_left(self) -> None:
        assert list(self.directory.iterdir()) == []
        deadline = time.monotonic() + GONE
        while left := {name for name, pid in self.processes.items() if runs(pid)}:
            assert time.monotonic() < deadline, left
            time.sleep(0.02)


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # dead, and not its own parent's fault


def counts(engine: Engine, url: str) -> dict[str, int]:
    """How many rows each table has, and how many claims are held, by a second connection."""
    tables = ("statedb_masters", "statedb_objects", "statedb_states", "statedb_claims")
    with contextlib.closing(engine.connect(url, autocommit=True)) as second:
        cursor = second.cursor()
        found = {}
        for table in tables:
            cursor.execute(f"SELECT COUNT(*) FROM {table}")
            found[table.removeprefix("statedb_")] = cursor.fetchone()[0]
        cursor.execute("SELECT COUNT(masterid) FROM statedb_claims")
        found["held"] = cursor.fetchone()[0]
    return found


def check_that_the_database_is_clean(engine: Engine, url: str) -> None:
    found = counts(engine, url)
    # A claim's row stays, as its tokens must not go backwards.
    del found["claims"]
    assert found == {"masters": 0, "objects": 0, "states": 0, "held": 0}


# --- The whole story, once on each engine ---


@dataclass(frozen=True)
class Told:
    demo: Demo
    exit_code: int
    url: str


@pytest.fixture(scope="module")
def told(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A run of the demo in a database which had no tables before.

    A machine that stands still for seconds can keep it from being in time, which it says; then
    there is one more run.
    """
    for may_be_late in (True, False):
        directory = tmp_path_factory.mktemp("demo")
        with engine.empty_database(directory) as url:
            demo = Demo(directory / "temporary", url)
            told = Told(demo, demo.run(), url)
            if not (may_be_late and "did not happen within" in demo.errors):
                yield told
                return


def test_it_succeeds_within_twenty_seconds(told: Told) -> None:
    assert (told.exit_code, told.demo.errors) == (0, ""), told.demo.output
    assert told.demo.seconds < LONGEST
    assert re.search(r"All of it happened, in \d+\.\d seconds\.$", told.demo.output)


@pytest.mark.parametrize(
    ("line", "times"),
    [
        (r"\w+, process \d+, has joined as master \d+\.", 3),
        (r"All three were told the same cluster id: [0-9a-f-]{36}\.", 1),
        (r"\w+ has claimed \w+, \w+\.", 3),
        (r"\w+ found in \w+: 'Begin', 'Go on'; recorded with token 1\.", 6),
        (r"beta is killed with SIGKILL; .*", 1),
        (r"(alpha|gamma) reports that beta has expired\.", 1),
        (r"The tokens of what beta held have grown: \w+ 1 -> 2, \w+ 1 -> 2\.", 1),
        (r"\w+ has claimed \w+, \w+, \w+\.", 2),
        (r"(alpha|gamma) found in \w+: 'Found without beta'; recorded with token 2\.", 2),
        (r"gamma found a commit in \w+; stopped with SIGSTOP before it records\.", 1),
        (r"alpha reports that gamma has expired\.", 1),
        (r"The tokens of what gamma held have grown: (\w+ (1 -> 2|2 -> 3)(, )?){3}\.", 1),
        (r"alpha has claimed docs, linux, macos, nightly, release, windows\.", 1),
        (r"alpha found in \w+: 'Found by two'; recorded with token [23]\.", 1),
        (r"gamma goes on, and is refused: .* is no longer held by master \d+ .*", 1),
        (r"gamma is told that it is lost\.", 1),
        (r"Looked at from outside: .*", 1),
    ],
)
def test_it_tells_what_happened(told: Told, line: str, times: int) -> None:
    pattern = re.compile(r" *\d+\.\d s  " + line)
    assert len([one for one in told.demo.lines if pattern.fullmatch(one)]) == times


def test_it_tells_things_in_their_order(told: Told) -> None:
    order = (
        "killed with SIGKILL",
        "what beta held have grown",
        "stopped with SIGSTOP",
        "what gamma held have grown",
        "continued with SIGCONT",
        "goes on, and is refused",
        "alpha has ended",
        "Looked at from outside",
    )
    found = [told.demo.output.find(part) for part in order]
    assert -1 not in found
    assert found == sorted(found)
    # It goes on as soon as the database has what alpha recorded; alpha tells so just after that.
    assert found[3] < told.demo.output.find("'Found by two'") < found[-1]


def test_its_tables_show_masters_claims_and_tokens(told: Told) -> None:
    cells = [line.split() for line in told.demo.lines]
    masters = [one[:2] for one in cells if len(one) == 3 and one[1] in ("active", "inactive")]
    assert sorted(masters[:3]) == [["alpha", "active"], ["beta", "inactive"], ["gamma", "active"]]
    assert sorted(masters[3:]) == [[name, "inactive"] for name in ("alpha", "beta", "gamma")]
    work = [one for one in cells if len(one) == 6 and re.fullmatch("[0-9a-f]{7}", one[3])]
    assert [one[0] for one in work[:6]] == [one[0] for one in work[6:]]
    assert {one[1] for one in work[:6]} == {"alpha", "gamma"}
    assert {one[1] for one in work[6:]} == {"nobody"}
    assert all(int(later[2]) >= int(one[2]) for one, later in zip(work[:6], work[6:], strict=True))


def test_it_leaves_the_database_clean(told: Told, engine: Engine) -> None:
    check_that_the_database_is_clean(engine, told.url)
    assert counts(engine, told.url)["claims"] == 6


def test_it_leaves_no_process_and_no_file(told: Told) -> None:
    assert sorted(told.demo.processes) == ["alpha", "beta", "gamma"]
    told.demo.check_that_nothing_is_left()


# --- What it needs, and what it does not ---


def test_without_a_url_it_touches_nobodys_database_and_nobodys_git(tmp_path: Path) -> None:
    configuration = tmp_path / "gitconfig"
    configuration.write_text("[commit]\n gpgsign = true\n[core\n", "utf-8")
    environment = {
        "STATEDB_URL": f"sqlite:///{tmp_path}/mine.sqlite",
        "HOME": "/nowhere",
        "GIT_CONFIG_GLOBAL": str(configuration),
        "GIT_DIR": str(tmp_path / "nowhere"),
        "GIT_INDEX_FILE": str(tmp_path / "index"),
    }
    demo = Demo(tmp_path / "temporary", None, environment)
    assert (demo.run(), demo.errors) == (0, ""), demo.output
    demo.check_that_nothing_is_left()
    assert {one.name for one in tmp_path.iterdir()} == {"gitconfig", "temporary"}


def test_without_git_it_says_so_in_one_line(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "temporary", None, {"PATH": str(tmp_path / "nothing")})
    assert demo.run() == 1
    (line,) = demo.errors.splitlines()
    assert line == "statedb: the demo polls a git repository, and git is not installed"
    demo.check_that_nothing_is_left()


def test_where_nothing_can_be_stopped_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(signal, "SIGSTOP")  # as on Windows
    assert cli.main(["demo"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "statedb: the demo stops a process with SIGSTOP, which this system does not have\n"
    )


@pytest.mark.parametrize(
    ("url", "code", "part"),
    [
        ("", 2, "a database URL begins with sqlite://"),
        ("oracle://host/database", 2, "a database URL begins with sqlite://"),
        ("sqlite://", 2, "cannot share a database in one's memory"),
        ("sqlite:///no/such/directory/x.db", 1, "unable to open database file"),
        ("postgresql://me:secret@127.0.0.1:1/none", 4, "port 1 failed"),
        ("mysql://me:secret@127.0.0.1:1/none", 4, "127.0.0.1"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_line(
    tmp_path: Path, url: str, code: int, part: str
) -> None:
    demo = Demo(tmp_path / "temporary", url)
    assert demo.run() == code
    (line,) = demo.errors.splitlines()
    assert line.startswith("statedb: ")
    assert part in line
    assert "secret" not in line
    assert (demo.lines, demo.seconds < LONGEST) == ([], True)
    demo.check_that_nothing_is_left()


def test_two_in_one_database_do_not_disturb_each_other(sqlite_url: str, tmp_path: Path) -> None:
    demos = [Demo(tmp_path / name, sqlite_url) for name in ("one", "other")]
    with demos[0].running() as one, demos[1].running() as other:
        pass
    assert [demo.errors for demo in demos] == ["", ""]
    assert (one.returncode, other.returncode) == (0, 0)
    check_that_the_database_is_clean(SQLite("sqlite"), sqlite_url)


# --- What does not happen, and what ends it ---


def test_a_process_that_dies_is_told_and_is_a_failure(sqlite_url: str, tmp_path: Path) -> None:
    demo = Demo(tmp_path / "temporary", sqlite_url)
    with demo.running() as process:
        demo.read_until(process, "alpha, process")
        os.kill(demo.processes["alpha"], signal.SIGKILL)
    assert process.returncode == 1
    assert demo.errors == "statedb: alpha was to stay, and has ended with -9\n"
    demo.check_that_nothing_is_left()
    check_that_the_database_is_clean(SQLite("sqlite"), sqlite_url)


def test_what_does_not_happen_in_time_is_told_and_is_a_failure(tmp_path: Path) -> None:
    """One stands still that is to take over: nobody is left to mark the others inactive."""
    demo = Demo(tmp_path / "temporary", None)
    with demo.running() as process:
        demo.read_until(process, "is killed with SIGKILL")
        os.kill(demo.processes["alpha"], signal.SIGSTOP)
        os.kill(demo.processes["gamma"], signal.SIGSTOP)
    assert process.returncode == 1
    (line,) = demo.errors.splitlines()
    assert re.match(
        "statedb: this did not happen within 15.5 seconds: the others mark beta inactive", line
    )
    assert demo.seconds < LONGEST
    demo.check_that_nothing_is_left()


def test_a_server_that_falls_silent_ends_it_in_time(
    server_engine: OwnServer, url: str, tmp_path: Path
) -> None:
    server = server_engine.server
    assert server is not None
    with Proxy(server.port, server.protocol) as proxy:
        demo = Demo(tmp_path / "temporary", server.url(url.rpartition("/")[2], proxy.port))
        with demo.running() as process:
            demo.read_until(process, "is killed with SIGKILL")
            proxy.stall()
        proxy.resume()
    assert process.returncode == 4
    assert demo.errors.splitlines()[-1].startswith("statedb: ")
    assert "Traceback" not in demo.errors
    assert demo.seconds < LONGEST
    demo.check_that_nothing_is_left()


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_who_interrupts_it_finds_nothing_left(
    sqlite_url: str, tmp_path: Path, number: int, exit_code: int
) -> None:
    demo = Demo(tmp_path / "temporary", sqlite_url)
    with demo.running() as process:
        demo.read_until(process, "recorded with token 1")
        process.send_signal(number)
    assert (process.returncode, demo.errors) == (exit_code, "")
    demo.check_that_nothing_is_left()
    check_that_the_database_is_clean(SQLite("sqlite"), sqlite_url)


def test_one_that_is_stopped_does_not_outlive_a_killed_demo(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "temporary", None)
    with demo.running() as process:
        demo.read_until(process, "stopped with SIGSTOP")
        process.kill()
    # What was not ended in order leaves its directory.
    (directory,) = demo.directory.iterdir()
    shutil.rmtree(directory, ignore_errors=True)
    demo.check_that_nothing_is_left()


def test_an_output_that_is_closed_ends_it_without_a_word(sqlite_url: str, tmp_path: Path) -> None:
    demo = Demo(tmp_path / "temporary", sqlite_url)
    with demo.running() as process:
        demo.read_until(process, "gamma, process")
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
    assert (process.returncode, demo.errors) == (141, "")
    demo.check_that_nothing_is_left()
    check_that_the_database_is_clean(SQLite("sqlite"), sqlite_url)


NO_FENCE = """
statedb.MastersConnector.thdHoldClaim = lambda self, claim: None
"""
TOLD_TWICE = """
from statedb.callbacks import Callbacks
once = Callbacks.call
Callbacks.call = lambda self, callback: [once(self, callback) for _ in range(2)]
"""
AN_ID_FOR_EACH = """
statedb.StateConnector.thdAtomicCreateState = (
    lambda self, objectid, name, make: self.thdSetState(objectid, name, make())
)
"""


# Beside the loss that is told twice there is trouble that passes, and who is stopped keeps all
# others from writing for a while.
LOST_TWICE = """
import sys
import threading
from concurrent.futures import Future

join = statedb.MastersConnector.join
def join_and_tell_twice(self, name, on_lost, **others):
    def tell_twice(member):
        on_lost(member)
        on_lost(member)
    return join(self, name, on_lost=tell_twice, **others)
statedb.MastersConnector.join = join_and_tell_twice

get_claims = statedb.MastersConnector.__dict__["thdGetClaims"]
troubles = [statedb.DatabaseError("out of order")]
def get_claims_later(self, *args, **kwargs):
    if troubles and sys.orig_argv[-1] == "statedb.demo.master":
        raise troubles.pop()
    return get_claims.__get__(self, type(self))(*args, **kwargs)
statedb.MastersConnector.thdGetClaims = get_claims_later

set_state = statedb.StateConnector.__dict__["setState"]
waits = [0.4]
def set_state_later(self, *args):
    if not waits:
        return set_state.__get__(self, type(self))(*args)
    written = Future()
    threading.Timer(waits.pop(), written.set_result, (None,)).start()
    return written
statedb.StateConnector.setState = set_state_later
"""


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (LOST_TWICE, "gamma was to be told once that it is lost; told were: ['gamma', 'gamma']"),
        (NO_FENCE, "was written by gamma after it had expired"),
        (TOLD_TWICE, "was reported 2 times"),
        (AN_ID_FOR_EACH, "was told the cluster id"),
    ],
    ids=["lost twice", "no fence", "told twice", "an id for each"],
)
def test_a_promise_that_is_not_kept_is_found(tmp_path: Path, broken: str, fault: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import statedb\n{broken}", "utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    demo = Demo(tmp_path / "temporary", None, {"PYTHONPATH": path})
    assert demo.run() == 1, demo.output
    (line,) = demo.errors.splitlines()
    assert line.startswith("statedb: ")
    assert fault in line
    demo.check_that_nothing_is_left()


RAISES = """
def make_nothing(self, objectid, name, make):
    return 1 / 0
statedb.StateConnector.thdAtomicCreateState = make_nothing
"""
FAILS = """
def make_nothing(self, objectid, name, make):
    raise statedb.DatabaseError("out of order")
statedb.StateConnector.thdAtomicCreateState = make_nothing
"""
LOSES = """
join = statedb.MastersConnector.join
def join_in_vain(self, name, **others):
    member = join(self, name, **others)
    self.thdSetMasterState(member.id, False)
    return member
statedb.MastersConnector.join = join_in_vain
"""


@pytest.mark.parametrize(
    ("broken", "end"),
    [
        (RAISES, "has ended with 1 ZeroDivisionError: division by zero"),
        (FAILS, "has failed: out of order"),
        (LOSES, "has lost its place"),
    ],
    ids=["raises", "fails", "loses"],
)
def test_who_does_not_stay_says_why(tmp_path: Path, broken: str, end: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import statedb\n{broken}", "utf-8")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    demo = Demo(tmp_path / "temporary", None, {"PYTHONPATH": path})
    assert demo.run() == 1, demo.output
    assert re.fullmatch(rf"statedb: \w+ was to stay, and {end}\n", demo.errors)
    demo.check_that_nothing_is_left()


def _run_master(
    url: str, directory: Path, *commands: str, settled: bool = True
) -> subprocess.CompletedProcess[str]:
    """A process of the demo that is told its settings, unless it is not to be, and commands."""
    settings = Settings(
        url=url,
        run="run",
        name="alpha",
        schedulers=["docs"],
        repository=str(directory),
        interval=0.2,
        expire_after=10.0,
        timeout=10.0,
    )
    lines = [json.dumps(asdict(settings)), *commands] if settled else commands
    return subprocess.run(
        [sys.executable, "-m", "statedb.demo.master"],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("settled", [False, True])
def test_a_process_that_is_told_to_leave_before_anything_else_does(
    sqlite_url: str, tmp_path: Path, settled: bool
) -> None:
    done = _run_master(sqlite_url, tmp_path, "leave", settled=settled)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["joined"] * settled


def test_a_process_that_cannot_open_the_database_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/no/such/directory/demo.sqlite"
    done = _run_master(url, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    (said,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert said["event"] == "failed"
    assert "unable to open database file" in said["error"]


def test_what_git_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GitError, match=r"git for-each-ref: .*No such file"):
        Repository(tmp_path / "nowhere").heads()
    (tmp_path / "git").write_bytes(b"\0")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match=r"git for-each-ref: .*Exec format error"):
        Repository(tmp_path / "nowhere").heads()


# --- What it judges by ---

BETA = Expiry(2, "beta", {"docs": 1})


def claim(name: str, masterid: int, token: int) -> Claim:
    return Claim("demo", name, masterid, token)


def write(masterid: int, token: int, **others: Any) -> Write:
    return Write(
        **{"masterid": masterid, "token": token, "revision": "f00", "commits": 1, **others}
    )


def test_right_facts_have_no_fault() -> None:
    before, after = [claim("docs", 2, 1), claim("linux", 1, 5)], [claim("docs", 1, 2)]
    writes = [write(2, 1), write(1, 2), write(1, 2)]
    assert faults_of_cluster_ids({"alpha": "x", "beta": "x"}, "x") == []
    assert faults_of_reports([BETA], [("alpha", 2), ("alpha", 9)], strangers=False) == []
    assert faults_of_division(after, ["docs"], [1]) == []
    assert faults_of_tokens(before, [*after, before[1]]) == []
    assert faults_of_tokens(before, []) == []
    assert faults_of_writes("docs", writes, [BETA]) == []
    assert faults_of_commits("docs", writes, "f00", 3) == []


def test_two_cluster_ids_are_found() -> None:
    (fault,) = faults_of_cluster_ids({"alpha": "x", "beta": "y"}, "x")
    assert fault == "beta was told the cluster id y, and the database says x"


@pytest.mark.parametrize("strangers", [False, True])
def test_an_expiry_that_is_reported_twice_is_found(strangers: bool) -> None:
    (fault,) = faults_of_reports([BETA], [("alpha", 2), ("gamma", 2)], strangers=strangers)
    assert fault == "the expiry of beta was reported 2 times, to alpha, gamma"


def test_an_expiry_that_is_reported_twice_to_one_is_found() -> None:
    assert len(faults_of_reports([BETA], [("alpha", 2), ("alpha", 2)], strangers=False)) == 1


def test_an_expiry_that_nobody_reports_is_found() -> None:
    (fault,) = faults_of_reports([BETA], [("alpha", 7)], strangers=False)
    assert fault == "the expiry of beta was reported to nobody"


def test_an_expiry_may_be_reported_to_another_program() -> None:
    assert faults_of_reports([BETA], [], strangers=True) == []


@pytest.mark.parametrize("token", [4, 5])
def test_a_token_that_did_not_grow_is_found(token: int) -> None:
    (fault,) = faults_of_tokens([claim("docs", 2, 5)], [claim("docs", 1, token)])
    assert "changed hands, and its token has not grown: it was 5, and is" in fault


def test_a_token_that_changed_without_need_is_found() -> None:
    (fault,) = faults_of_tokens([claim("docs", 2, 5)], [claim("docs", 2, 6)])
    assert "has not changed hands" in fault


def test_a_late_write_with_an_old_token_is_found() -> None:
    faults = faults_of_writes("docs", [write(2, 1), write(1, 2), write(2, 1)], [])
    assert faults == ["docs was written with the old token 1 after 2"]


def test_a_write_after_the_expiry_is_found_though_nobody_wrote_between() -> None:
    faults = faults_of_writes("docs", [write(2, 1), write(2, 1)], [BETA])
    assert faults == ["docs was written by beta after it had expired, with the token 1"]


def test_a_token_that_two_masters_have_is_found() -> None:
    faults = faults_of_writes("docs", [write(2, 1), write(1, 1)], [])
    assert faults == ["docs was written with the token 1 by the masters 2 and 1"]


@pytest.mark.parametrize(
    ("writes", "fault"),
    [
        ([], "docs was not recorded to be at its last revision f00"),
        ([write(1, 1, revision="bad")], "docs was not recorded to be at its last revision f00"),
        ([write(1, 1), write(1, 2)], "1 commits were made for docs, and 2 found"),
    ],
)
def test_a_commit_that_was_missed_or_found_twice_is_found(writes: list[Write], fault: str) -> None:
    assert fault in faults_of_commits("docs", writes, "f00", 1)


@pytest.mark.parametrize(
    ("claims", "fault"),
    [
        ([claim("docs", 1, 1)], "nobody holds linux"),
        ([claim("docs", 1, 1), claim("linux", 1, 1)], "master 1 holds 2 schedulers"),
        ([claim("docs", 1, 1), claim("linux", 9, 1)], "master 9, which is not active"),
    ],
)
def test_a_division_that_is_not_fair_is_found(claims: list[Claim], fault: str) -> None:
    assert fault in "; ".join(faults_of_division(claims, ["docs", "linux"], [1, 2]))
