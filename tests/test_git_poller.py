"""That the example docs/examples/git_poller.py prints each commit of each branch, however it ends.

Each test runs it as its users do: as a program, on a git repository and a database of the test's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import statedb

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "git_poller.py"
COMMIT = re.compile(r"(\S+) ([0-9a-f]{12}) (.*)")
#: More lines of subjects like this one than any pipe holds.
MANY, LONG = 600, "x" * 300

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


class Repository:
    """A git repository, made and changed without the configuration or the identity of anyone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        #: When each next commit is committed, in seconds.
        self.times: Iterator[int] = itertools.count(1_600_000_000)
        directory.mkdir()
        self.git("init", "--quiet", "-b", "main")

    def git(self, *arguments: str | bytes, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.directory,
            env=environment(),
            input=stdin,
            capture_output=True,
            check=True,
        )
        return done.stdout

    def commit(
        self,
        *subjects: str | bytes,
        branch: str | bytes = "main",
        start: str | None = None,
        merged: str | None = None,
    ) -> list[str]:
        """Add commits to a branch, or to ``start``, where it is moved; the branch's new commits.

        The first has ``merged`` as its second parent.
        """
        ref = b"refs/heads/" + (branch if isinstance(branch, bytes) else branch.encode())
        tip: str | None = (
            start or self.git("for-each-ref", "--format=%(objectname)", ref).decode().strip()
        )
        stream = b""
        for subject in subjects:
            message = subject if isinstance(subject, bytes) else subject.encode()
            stream += b"commit %s\n" % ref
            stream += b"committer Ada <ada@example.org> %d +0000\n" % next(self.times)
            stream += b"data %d\n%s\n" % (len(message), message)
            if tip:
                stream += b"from %s\n" % self.git("rev-parse", tip).strip()
            if merged:
                stream += b"merge %s\n" % self.git("rev-parse", merged).strip()
            tip = merged = None
        self.git("fast-import", "--quiet", "--force", stdin=stream)
        return self.history(branch)[-len(subjects) :]

    def history(self, branch: str | bytes = "main") -> list[str]:
        """The branch's commits as the poller prints them, oldest first."""
        ref = b"refs/heads/" + (branch if isinstance(branch, bytes) else branch.encode())
        output = self.git("rev-list", "--reverse", "--topo-order", ref).decode()
        return [revision[:12] for revision in output.split()]


class Poller:
    """The example, run on one repository and one database."""

    def __init__(self, repository: Repository, database: Path) -> None:
        self.repository = repository
        self.database = database
        self.url = f"sqlite:///{database}"

    def start(self, *options: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        directory = str(self.repository.directory)
        command = [sys.executable, "-W", "error", str(EXAMPLE), directory, "--url", self.url]
        return subprocess.Popen(
            [*command, *options],
            env=environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def lines(self) -> list[str]:
        """What one poll prints, after the two lines with which it begins."""
        with self.start() as process:
            output, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
        lines = output.split("\n")
        assert re.fullmatch(r"Poller \S{36} of file:///\S+", lines[0])
        assert "printed again" in lines[1]
        assert lines[-1] == ""
        return lines[2:-1]

    def poll(self) -> list[tuple[str, str]]:
        """The branch and the revision of each commit that one poll prints."""
        return commits(self.lines())

    def recorded(self) -> dict[str, str]:
        """The last-seen revisions, as another connection finds them."""
        with statedb.connect(self.url) as db:
            (repository,) = db.state.thdGetObjects()
            assert repository.class_name == "GitPoller"
            states = db.state.thdGetStates(repository.id)
        prefix = "refs/heads/"
        return {
            name[len(prefix) :]: value[:12]
            for name, value in states.items()
            if name.startswith(prefix)
        }


def environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    inherited.pop("PYTHONUNBUFFERED", None)
    own = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    return inherited | own | {"PYTHONIOENCODING": "utf-8"}


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment() | variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def commits(lines: list[str]) -> list[tuple[str, str]]:
    matches = [COMMIT.fullmatch(line) for line in lines]
    return [(match[1], match[2]) for match in matches if match]


def on(branch: str, revisions: list[str]) -> list[tuple[str, str]]:
    return [(branch, revision) for revision in revisions]


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Kill it; the whole lines that it had printed and nobody had read."""
    process.kill()
    lines, errors = rest(process)
    assert errors == ""
    return lines


def head(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines that it prints."""
    assert process.stdout is not None
    return [process.stdout.readline().removesuffix("\n") for _ in range(count)]


def rest(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    """All other whole lines that it prints, and its errors; communicate() forgets what it read."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = process.stdout.read(), process.stderr.read()
    process.wait()
    return output.split("\n")[:-1], errors


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def poller(repository: Repository, tmp_path: Path) -> Poller:
    return Poller(repository, tmp_path / "poller.sqlite")


@contextlib.contextmanager
def nobody_else_writes(poller: Poller) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(poller.database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield
        writer.execute("ROLLBACK")


# --- What a poll prints ---


def test_the_first_poll_prints_all_commits_of_all_branches_oldest_first(
    repository: Repository, poller: Poller
) -> None:
    main = repository.commit("one", "two")
    own = repository.commit("three", branch="feature", start=repository.history()[-1])
    assert poller.lines() == [
        f"feature {main[0]} one",
        f"feature {main[1]} two",
        f"feature {own[0]} three",
        f"main {main[0]} one",
        f"main {main[1]} two",
    ]


def test_the_second_poll_prints_no_commits(repository: Repository, poller: Poller) -> None:
    repository.commit("one", "two")
    poller.poll()
    assert poller.lines() == ["No new commits."]


def test_after_a_commit_just_that_one_is_printed(repository: Repository, poller: Poller) -> None:
    repository.commit("one")
    repository.commit("other", branch="other")
    poller.poll()
    (two,) = repository.commit("two")
    assert poller.lines() == [f"main {two} two"]
    (more,) = repository.commit("more", branch="other")
    assert poller.lines() == [f"other {more} more"]


def test_a_new_branch_begins_where_the_known_ones_were(
    repository: Repository, poller: Poller
) -> None:
    repository.commit("one")
    poller.poll()
    own = repository.commit("two", "three", branch="feature", start=repository.history()[-1])
    assert poller.poll() == on("feature", own)


def test_a_merged_commit_is_printed_under_the_branch_that_it_is_new_to(
    repository: Repository, poller: Poller
) -> None:
    repository.commit("one")
    own = repository.commit("two", branch="feature", start=repository.history()[-1])
    poller.poll()
    repository.git("update-ref", "refs/heads/main", own[0])
    assert poller.poll() == on("main", own)


def test_parents_are_printed_before_children_whatever_their_dates(
    repository: Repository, poller: Poller
) -> None:
    repository.times = iter([1_600_000_001, 1_600_000_000, 1_600_000_002, 1_600_000_003])
    (parent,) = repository.commit("parent")
    (child,) = repository.commit("child, by its date older")
    (other,) = repository.commit("other child", branch="other", start=parent)
    repository.commit("merge", merged=other)
    repository.git("update-ref", "-d", "refs/heads/other")
    printed = [revision for _, revision in poller.poll()]
    assert len(printed) == 4
    assert printed[0] == parent
    assert {child, other} == set(printed[1:3])


def test_a_force_push_prints_the_commits_that_replace_others(
    repository: Repository, poller: Poller
) -> None:
    one, two = repository.commit("one", "two")
    poller.poll()
    again = repository.commit("two, again", "three", start=one)
    assert poller.lines() == [
        f"main was rewritten; it was at {two}",
        f"main {again[0]} two, again",
        f"main {again[1]} three",
    ]
    assert poller.poll() == []


def test_a_branch_set_back_prints_no_commits_until_it_moves_on(
    repository: Repository, poller: Poller
) -> None:
    one, two, three = repository.commit("one", "two", "three")
    poller.poll()
    repository.git("update-ref", "refs/heads/main", one)
    assert poller.lines() == [f"main was rewritten; it was at {three}", "No new commits."]
    repository.git("update-ref", "refs/heads/main", two)
    assert poller.poll() == on("main", [two])


def test_a_force_push_is_survived_when_the_old_revision_is_gone(
    repository: Repository, poller: Poller
) -> None:
    repository.commit("kept", branch="other")
    _, two = repository.commit("one", "two", start=repository.history("other")[-1])
    poller.poll()
    again = repository.commit("one, again", start=repository.history("other")[-1])
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    with pytest.raises(subprocess.CalledProcessError):
        repository.git("cat-file", "-e", two)
    expected = [f"main was rewritten; it was at {two}", f"main {again[0]} one, again"]
    assert poller.lines() == expected
    assert poller.poll() == []


def test_a_deleted_branch_is_a_new_one_when_created_again(
    repository: Repository, poller: Poller
) -> None:
    repository.commit("one")
    own = repository.commit("two", branch="feature", start=repository.history()[-1])
    poller.poll()
    repository.git("update-ref", "-d", "refs/heads/feature")
    deletion = [f"feature was deleted; it was at {own[0]}", "No new commits."]
    assert poller.lines() == deletion
    assert "feature" not in poller.recorded()
    assert poller.lines() == ["No new commits."]
    repository.git("update-ref", "refs/heads/feature", own[0])
    assert poller.poll() == on("feature", own)


def test_a_branch_deleted_and_created_between_two_polls_has_moved(
    repository: Repository, poller: Poller
) -> None:
    repository.commit("one")
    repository.commit("two", branch="feature", start=repository.history()[-1])
    poller.poll()
    repository.git("update-ref", "-d", "refs/heads/feature")
    own = repository.commit("other two", branch="feature", start=repository.history()[-1])
    assert poller.poll() == on("feature", own)


def test_an_empty_repository_has_no_commits_until_its_first(
    repository: Repository, poller: Poller
) -> None:
    assert poller.lines() == ["No new commits."]
    main = repository.commit("one")
    assert poller.poll() == on("main", main)


@pytest.mark.parametrize(
    "branch",
    [
        "feature/with/slashes",
        'it\'s-"quoted"-$(id)-`id`;&|',
        "ünïcødé-日本語-🎉",
        "100%-%s-%00",
        "-dash",
        "HEAD",
        "poller",
        "x" * 200,
    ],
)
def test_a_branch_may_have_any_name(repository: Repository, poller: Poller, branch: str) -> None:
    one, two = repository.commit("one", "two", branch=branch)
    assert poller.poll() == on(branch, [one, two])
    assert poller.recorded() == {branch: two}
    three = repository.commit("three", branch=branch)
    assert poller.poll() == on(branch, three)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere files have no such names")
def test_branches_whose_names_are_no_utf8_are_told_apart(
    repository: Repository, poller: Poller
) -> None:
    first = repository.commit("one", branch=b"caf\xe9")
    second = repository.commit("two", branch=b"caf\xe8")
    assert poller.poll() == on(r"caf\xe8", second) + on(r"caf\xe9", first)
    assert poller.poll() == []


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (b"", ""),
        (b"subject\nof two lines\n\nbody\n", "subject of two lines"),
        ("ünïcødé 日本語 🎉".encode(), "ünïcødé 日本語 🎉"),
        (b"caf\xe9 \xff\xfe", "caf� ��"),
        (b"red \x1b[31m, bell \x07, return \r!", "red �[31m, bell �, return �!"),
        (b"commit 0123456789abcdef", "commit 0123456789abcdef"),
        (b"'quotes' \"and\" %s %x00 \\0 $(id)", "'quotes' \"and\" %s %x00 \\0 $(id)"),
    ],
)
def test_a_subject_may_be_of_any_bytes(
    repository: Repository, poller: Poller, message: bytes, shown: str
) -> None:
    before, odd, after = repository.commit("before", message, "after")
    assert poller.lines() == [f"main {before} before", f"main {odd} {shown}", f"main {after} after"]


def test_what_a_terminal_cannot_show_is_replaced(
    repository: Repository, poller: Poller, tmp_path: Path
) -> None:
    (one,) = repository.commit("naïve")
    place = str(repository.directory)
    done = run(str(EXAMPLE), place, "--url", poller.url, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"main {one} na?ve\n")


# --- Which repository, which database ---


def test_the_database_is_poller_sqlite_in_the_current_directory(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit("one")
    done = run(str(EXAMPLE), str(repository.directory), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    default = Poller(repository, tmp_path / "poller.sqlite")
    assert default.recorded() == {"main": repository.history()[-1]}


def test_the_example_polls_the_checkout_that_it_lies_in(
    repository: Repository, tmp_path: Path
) -> None:
    (one,) = repository.commit("one")
    copy = repository.directory / "docs" / "git_poller.py"
    copy.parent.mkdir()
    shutil.copy(EXAMPLE, copy)
    done = run(str(copy), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"main {one} one\n" in done.stdout


def test_an_example_outside_any_checkout_polls_the_current_directory(
    repository: Repository, tmp_path: Path
) -> None:
    (one,) = repository.commit("one")
    copy = tmp_path / "git_poller.py"
    shutil.copy(EXAMPLE, copy)
    done = run(str(copy), cwd=repository.directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"main {one} one\n" in done.stdout


def test_a_worktree_of_a_repository_is_the_same_repository(
    repository: Repository, poller: Poller, tmp_path: Path
) -> None:
    (one,) = repository.commit("one")
    poller.poll()
    worktree = tmp_path / "worktree"
    repository.git("worktree", "add", "--quiet", "--detach", str(worktree), one)
    done = run(str(EXAMPLE), str(worktree), "--url", poller.url, cwd=tmp_path)
    assert done.stdout.endswith("No new commits.\n")


def test_repositories_in_one_database_are_kept_apart(
    repository: Repository, poller: Poller, tmp_path: Path
) -> None:
    repository.commit("one")
    poller.poll()
    other = Repository(tmp_path / "other")
    other.git("fetch", "--quiet", str(repository.directory), "main:main", "--update-head-ok")
    assert Poller(other, poller.database).poll() == on("main", repository.history())


def test_all_pollers_of_a_repository_print_one_id(repository: Repository, poller: Poller) -> None:
    processes = [poller.start() for _ in range(5)]
    firsts = {process.communicate()[0].split("\n")[0] for process in processes}
    (first,) = firsts
    assert uuid.UUID(first.split()[1]).version == 4


@pytest.mark.parametrize("place", ["directory", "file", "nowhere"])
def test_what_is_no_repository_fails_with_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    ceiling = str(tmp_path)
    done = run(str(EXAMPLE), str(tmp_path / place), cwd=tmp_path, GIT_CEILING_DIRECTORIES=ceiling)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"git_poller: no git repository at .*\n", done.stderr)


def test_missing_git_fails_with_one_line(repository: Repository, tmp_path: Path) -> None:
    done = run(str(EXAMPLE), str(repository.directory), cwd=tmp_path, PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"git_poller: git cannot be run: .*\n", done.stderr)


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/directory/poller.sqlite"])
def test_a_database_that_cannot_be_opened_fails_with_one_line(
    repository: Repository, tmp_path: Path, url: str
) -> None:
    done = run(str(EXAMPLE), str(repository.directory), "--url", url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"git_poller: .*\n", done.stderr)


# --- However it ends ---


def test_with_an_interval_it_polls_until_interrupted(
    repository: Repository, poller: Poller
) -> None:
    (one,) = repository.commit("one")
    with poller.start("--interval", "0.05") as process:
        assert head(process, 3)[2:] == [f"main {one} one"]
        (two,) = repository.commit("two")
        assert head(process, 1) == [f"main {two} two"]
        while poller.recorded() != {"main": two}:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert rest(process) == ([], "")
    assert process.returncode == 130
    assert poller.poll() == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 300])
def test_killed_while_it_prints_it_repeats_what_it_was_printing(
    repository: Repository, poller: Poller, count: int
) -> None:
    repository.commit("known", branch="other")
    poller.poll()
    main = repository.commit(*[LONG] * MANY)
    with poller.start() as process:
        # With so many lines in the pipe and more to come, it cannot have recorded them.
        printed = commits(head(process, count) + kill(process))
    assert printed == on("main", main)[: len(printed)]
    assert count - 2 <= len(printed) < MANY
    assert "main" not in poller.recorded()
    assert poller.poll() == on("main", main)
    assert poller.poll() == []


def test_killed_between_printing_and_recording_it_repeats_what_it_printed(
    repository: Repository, poller: Poller
) -> None:
    main = repository.commit(*[LONG] * MANY)
    repository.commit("other", branch="other", start=main[0])
    everything = on("main", main) + on("other", repository.history("other"))
    with poller.start() as process:
        head(process, 2)
        # By now its pipe is filling: it cannot have recorded, and from here on it cannot either.
        with nobody_else_writes(poller):
            assert commits(head(process, len(everything))) == everything
            assert kill(process) == []
    assert poller.recorded() == {}
    assert poller.poll() == everything
    assert poller.poll() == []


def test_killed_at_random_moments_it_skips_no_commit(
    repository: Repository, poller: Poller
) -> None:
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    branches = ["a", "main", "z/z"]
    for branch in branches:
        repository.commit(*["begin"] * 100, branch=branch)
    begun = time.monotonic()
    with poller.start() as process:
        rest(process)
    duration = time.monotonic() - begun
    ends = set()
    for number in range(25):
        for branch in branches:
            if moments.random() < 0.5:
                repository.commit(*["more"] * moments.randint(1, 100), branch=branch)
        before = poller.recorded()
        with poller.start() as process:
            # From its start, or from its first line on, before which most of the time goes by.
            started = head(process, moments.randrange(2))
            time.sleep(moments.uniform(0, 0.4 if started else 1.2) * duration)
            printed = commits(kill(process))
        after = poller.recorded()
        expected = unseen(repository, before)
        # Just what is new, from its beginning; and all of it, if it was recorded.
        assert printed == expected[: len(printed)], f"seed {seed}, poll {number}"
        if after != before:
            assert printed == expected, f"seed {seed}, poll {number}"
            assert unseen(repository, after) == [], f"seed {seed}, poll {number}"
        ends.add((after != before, bool(printed)))
    expected = unseen(repository, poller.recorded())
    assert poller.poll() == expected
    assert poller.poll() == []
    assert len(ends) > 1, f"seed {seed}: all polls were killed at the same stage"


def unseen(repository: Repository, seen: dict[str, str]) -> list[tuple[str, str]]:
    """The commits past the ones that were seen last, of branches that share and rewrite none."""
    found = []
    for branch in repository.git("for-each-ref", "--format=%(refname:lstrip=2)").decode().split():
        history = repository.history(branch)
        begin = history.index(seen[branch]) + 1 if branch in seen else 0
        found += on(branch, history[begin:])
    return found


@pytest.mark.parametrize("count", [1, 3, 50])
def test_a_pipe_that_is_closed_early_loses_no_commit(
    repository: Repository, poller: Poller, count: int
) -> None:
    main = repository.commit(*[LONG] * MANY)
    with poller.start() as process:
        command = ["head", "-n", str(count)]
        shown = subprocess.run(command, stdin=process.stdout, capture_output=True, check=True)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert shown.stdout.count(b"\n") == count
    assert (process.returncode, errors) == (1, "git_poller: the output was closed\n")
    assert poller.recorded() == {}
    assert poller.poll() == on("main", main)
    assert poller.poll() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_loses_no_commit(repository: Repository, poller: Poller) -> None:
    main = repository.commit("one")
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with poller.start(stdout=full) as process:
            _, errors = process.communicate()
    finally:
        os.close(full)
    assert process.returncode == 1
    assert re.fullmatch(r"git_poller: .*\n", errors)
    assert poller.poll() == on("main", main)


def test_without_an_output_nothing_is_recorded(
    repository: Repository, poller: Poller, tmp_path: Path
) -> None:
    main = repository.commit("one")
    program = [sys.executable, str(EXAMPLE), str(repository.directory), "--url", poller.url]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *program]
    done = subprocess.run(closed, env=environment(), stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rb"git_poller: .*\n", done.stderr)
    assert poller.poll() == on("main", main)


# --- Several pollers ---


def test_of_pollers_at_once_each_commit_is_printed_by_one_at_least(
    repository: Repository, poller: Poller
) -> None:
    printed: set[tuple[str, str]] = set()
    for _ in range(3):
        repository.commit(*["more"] * 10)
        processes = [poller.start() for _ in range(4)]
        repository.commit(*["meanwhile"] * 10)
        for process in processes:
            output, errors = process.communicate()
            assert (process.returncode, errors) == (0, "")
            printed.update(commits(output.split("\n")))
    printed.update(poller.poll())
    assert printed == set(on("main", repository.history()))


def test_a_slower_poller_sets_a_branch_back_and_skips_nothing(
    repository: Repository, poller: Poller
) -> None:
    main = repository.commit(*[LONG] * MANY)
    with poller.start() as slower:
        read = head(slower, 3)  # it has listed the branches, and its pipe is filling
        later = repository.commit("later")
        assert poller.poll() == on("main", main + later)
        lines, errors = rest(slower)
    assert (slower.returncode, errors) == (0, "")
    assert commits(read + lines) == on("main", main)
    assert poller.recorded() == {"main": main[-1]}
    assert poller.poll() == on("main", later)
    assert poller.poll() == []
