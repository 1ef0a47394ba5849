"""A git poller, like those of a CI server: prints the commits that are new since it last looked.

It keeps the last-seen revision of each branch in the database. It first prints, then records:
killed at any moment it skips no commit, and prints again at most those that it was printing. A
commit is printed under each branch to which it is new; a new branch begins where the others were.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import statedb

BRANCHES = "refs/heads/"
POLLER_ID = "poller id"  # no branch's state is called so: those begin with refs/heads/


def poll(db: statedb.Database, objectid: int, repository: Path) -> int:
    """Print what is new in the repository, then record it; the number of commits printed."""
    # The states first: read after the branches, another poller's could be ahead of them.
    states = db.state.thdGetStates(objectid)
    seen = {name: old for name, old in states.items() if name.startswith(BRANCHES)}
    branches = dict(list_branches(repository))
    moved = {name: new for name, new in branches.items() if new != seen.get(name)}
    deleted = [name for name in seen if name not in branches]
    count = 0
    for name, new in moved.items():
        branch, old, past = name.removeprefix(BRANCHES), seen.get(name), list(seen.values())
        if old is not None:
            ancestor = git(repository, "merge-base", "--is-ancestor", old, new, may_fail=True)
            if ancestor.returncode != 0:
                show(f"{branch} was rewritten; it was at {old[:12]}")
            if ancestor.returncode in (0, 1):  # else the old revision is gone: like a new branch
                past = [old]
        for revision, subject in new_commits(repository, new, past):
            show(f"{branch} {revision[:12]} {subject}")
            count += 1
    for name in deleted:
        show(f"{name.removeprefix(BRANCHES)} was deleted; it was at {seen[name][:12]}")
    # Only now, and only what was printed above. Of several pollers at once each does so: they may
    # print a commit twice, and the slower may set a branch back, so that its commits are printed
    # once more; but what is recorded was printed by one of them, so that none is skipped.
    if moved:
        db.state.thdSetStates(objectid, moved)
    for name in deleted:
        db.state.thdDeleteState(objectid, name)  # created again, it is a new branch
    return count


def list_branches(repository: Path) -> Iterator[tuple[str, str]]:
    """Each branch's full name and its revision."""
    output = git(repository, "for-each-ref", "--format=%(objectname) %(refname)", BRANCHES).stdout
    # Git allows a name bytes that are no UTF-8, statedb does not. It allows no backslash: as \xNN
    # they are told from all other names.
    for line in output.decode(errors="backslashreplace").split("\n")[:-1]:
        revision, _, name = line.partition(" ")
        yield name, revision


def new_commits(repository: Path, new: str, past: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Revision and subject of the commits that ``new`` has and ``past`` has not, oldest first."""
    form = ("--reverse", "--topo-order", "--encoding=UTF-8", "--format=%s%x00")
    # On stdin, as there may be many. One that is gone excludes nothing; the new one must be there,
    # so it is named before --ignore-missing.
    excluded = "".join(f"^{revision}\n" for revision in past).encode()
    output = git(repository, "rev-list", *form, new, "--ignore-missing", "--stdin", stdin=excluded)
    for commit in output.stdout.split(b"\0\n")[:-1]:
        line, _, subject = commit.partition(b"\n")
        yield line.decode().removeprefix("commit "), subject.decode(errors="replace")


def git(
    repository: Path, *arguments: str, stdin: bytes = b"", may_fail: bool = False
) -> subprocess.CompletedProcess[bytes]:
    command = ["git", "-C", str(repository), *arguments]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    except OSError as error:
        fail(f"git cannot be run: {error}")
    if done.returncode and not may_fail:
        fail(f"git {arguments[0]} in {repository}: {done.stderr.decode(errors='replace')}")
    return done


def show(line: str) -> None:
    """Print a line and flush it; no control character of a commit's gets to the terminal."""
    print(re.sub(r"[\x00-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", line), flush=True)


def fail(message: str) -> NoReturn:
    sys.exit(f"git_poller: {' '.join(message.split())}")


def find_repository(given: Path | None) -> tuple[Path, str]:
    """A directory in the repository to poll, and what the repository is called in the database."""
    places = [given] if given else [Path(__file__).resolve().parent, Path.cwd()]
    for place in places:
        done = git(place, "rev-parse", "--git-common-dir", may_fail=True)
        if done.returncode == 0:
            # After its own place, not its origin, as the branches are its own: two clones of one
            # origin would each take the other's for rewritten. Worktrees share place and branches.
            return place, (place / os.fsdecode(done.stdout[:-1])).resolve().as_uri()
    why = done.stderr.decode(errors="replace")
    fail(f"no git repository at {' or '.join(map(str, places))}: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = "the one that this example lies in, else the current directory's"
    parser.add_argument("repository", nargs="?", type=Path, help=f"a directory in it; {default}")
    parser.add_argument("--url", default="sqlite:///poller.sqlite", help="default: %(default)s")
    parser.add_argument("--interval", type=float, metavar="SECONDS", help="poll again and again")
    options = parser.parse_args()
    if options.interval is not None and not 0 < options.interval < 1e6:
        parser.error("--interval takes more than 0 seconds, and less than a million")
    if not isinstance(sys.stdout, io.TextIOWrapper):
        fail("there is no standard output to print to")
    sys.stdout.reconfigure(errors="replace")
    repository, name = find_repository(options.repository)
    with statedb.connect(options.url, timeout=10) as db:
        db.upgrade()
        objectid = db.state.thdGetObjectId(name, "GitPoller")
        # Whichever poller is first makes it up; all others, now and later, are told the same.
        poller = db.state.thdAtomicCreateState(objectid, POLLER_ID, lambda: str(uuid.uuid4()))
        show(f"Poller {poller} of {name}")
        show("After an interruption, the commits that were being printed are printed again.")
        if not poll(db, objectid, repository) and options.interval is None:
            show("No new commits.")
        while options.interval is not None:
            time.sleep(options.interval)
            poll(db, objectid, repository)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (statedb.Error, OSError) as error:
        # What a closed pipe or a full disk did not take, Python would try to write once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        fail("the output was closed" if isinstance(error, BrokenPipeError) else str(error))
