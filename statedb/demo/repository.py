"""Repository: the git repository that the demo makes for its schedulers, and polls."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from statedb.errors import Error

_BRANCHES = "refs/heads/"
#: Seconds that git may take; what the demo asks of it takes some milliseconds.
_PATIENCE = 2.0


class GitError(Error):
    """Git is not installed, or did not do what it was to do."""


class Repository:
    """A git repository, used without anyone's configuration, identity, hooks or signature."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        nowhere = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        # For git before 2.32, which does not know those.
        home = {"HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
        self._environment = own | nowhere | home | {"GIT_CONFIG_NOSYSTEM": "1"}

    def create(self) -> None:
        """Make it, without a branch; raises GitError, as all here does."""
        self._directory.mkdir()
        self._git("init", "--quiet", "--bare", "--template=")

    def commit(self, branch: str, subjects: Iterable[str], *, when: int) -> None:
        """Add commits to a branch, which is made if there is none."""
        tip = self.heads().get(branch)
        stream = ""
        for subject in subjects:
            stream += f"commit {_BRANCHES}{branch}\n"
            stream += f"committer Demo <demo@example.org> {when} +0000\n"
            stream += f"data {len(subject.encode())}\n{subject}\n"
            if tip is not None:
                # The others' parents are those before them.
                stream += f"from {tip}\n"
                tip = None
        self._git("fast-import", "--quiet", stdin=stream)

    def heads(self) -> dict[str, str]:
        """Each branch's revision."""
        output = self._git("for-each-ref", "--format=%(objectname) %(refname)", _BRANCHES)
        found = (line.partition(" ") for line in output.splitlines())
        return {name.removeprefix(_BRANCHES): revision for revision, _, name in found}

    def new_subjects(self, new: str, old: str | None) -> list[str]:
        """The subjects of the commits that ``new`` has and ``old`` has not, oldest first."""
        past = [] if old is None else [f"^{old}"]
        output = self._git("log", "--reverse", "--topo-order", "--format=%s", new, *past, "--")
        return output.splitlines()

    def _git(self, *arguments: str, stdin: str = "") -> str:
        # No housekeeping in the background, which could outlast the repository.
        command = ["git", "-C", str(self._directory), "-c", "gc.auto=0", *arguments]
        try:
            done = subprocess.run(
                command,
                env=self._environment,
                input=stdin,
                capture_output=True,
                check=True,
                encoding="utf-8",
                errors="replace",
                timeout=_PATIENCE,
            )
        except FileNotFoundError as error:
            raise GitError("the demo polls a git repository, and git is not installed") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GitError(f"git {arguments[0]}: {error}") from error
        except subprocess.CalledProcessError as error:
            raise GitError(f"git {arguments[0]}: {error.stderr}") from error
        return done.stdout
