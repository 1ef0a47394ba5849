"""Programs, the database servers' above all: found where a package put them, or installed first."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal, get_args

Engine = Literal["postgresql", "mariadb", "mysql"]
#: Programs whose packages have their names.
Tool = Literal["pgbouncer", "sqlite3", "jq"]

SBIN_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])


class ProgramMissing(RuntimeError):
    """Programs that a test needs are not here and could not be installed."""


def require(name: Engine | Tool) -> Path:
    """Where the engine's programs are, or the tool's, installed first if they are missing."""
    programs = find(name)
    if programs is None:
        # Another test run may be installing the same.
        with (cache() / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if find(name) is None:
                _install(name)
        programs = find(name)
    if programs is None:
        raise ProgramMissing(f"{name} was installed, but its programs are not found")
    return programs


def find(name: Engine | Tool) -> Path | None:
    """Where the programs are, or None; MySQL's are in the tree that was unpacked."""
    if name == "postgresql":
        return _find_postgresql()
    if name == "mariadb":
        return _find_mariadb()
    if name == "mysql":
        tree = cache() / "mysql"
        return tree if tree.exists() else None
    tool = shutil.which(name, path=SBIN_PATH)
    return Path(tool).parent if tool is not None else None


def _find_postgresql() -> Path | None:
    debian = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    debian.sort(key=lambda path: int(path.parent.name))
    on_path = shutil.which("postgres", path=SBIN_PATH)
    others = [] if on_path is None else [Path(on_path).resolve().parent]
    complete = [path for path in others + debian if (path / "initdb").exists()]
    return complete[-1] if complete else None


def _find_mariadb() -> Path | None:
    server = shutil.which("mariadbd", path=SBIN_PATH)
    found = server is not None and shutil.which("mariadb-install-db", path=SBIN_PATH)
    return Path(server).parent if server is not None and found else None


def _install(name: Engine | Tool) -> None:
    """Installs the programs, or raises ProgramMissing."""
    if name == "mysql":
        _unpack_debian("sid", "mysql-server-core", cache() / "mysql")
    else:
        _apt_install("mariadb-server" if name == "mariadb" else name)


def cache() -> Path:
    """Where what the tests fetch is kept between runs: STATEDB_TEST_CACHE, if that is set."""
    chosen = os.environ.get("STATEDB_TEST_CACHE")
    path = Path(chosen) if chosen else Path.home() / ".cache" / "statedb-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


# The policy is asked by Debian's packages before they start a service. It forbids that only while
# the installation runs, so that one which was killed leaves no lasting ban behind.
APT_INSTALL = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ] || grep -q statedb-tests $policy; then
    trap 'rm -f $policy' EXIT
    trap 'exit 1' HUP INT TERM
    ban='kill -0 %s 2>/dev/null && exit 101'
    printf "#!/bin/sh\\n# statedb-tests\\n$ban\\nexit 0\\n" $$ > $policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=600 update
apt-get -qq -y -o DPkg::Lock::Timeout=600 install --no-install-recommends "$1"
"""


def _apt_install(package: str) -> None:
    advice = (
        f"{package} is not installed: apt-get install {package} (or your system's package of it)"
    )
    if package not in get_args(Tool):
        advice += ", or run the tests of SQLite alone with: tox -e sqlite"
    command = ["sh", "-c", APT_INSTALL, "sh", package]
    if os.geteuid() != 0:
        sudo = shutil.which("sudo")
        if sudo is None or subprocess.call([sudo, "-n", "true"], stderr=subprocess.DEVNULL):
            raise ProgramMissing(advice)
        command = [sudo, "-n", *command]
    if shutil.which("apt-get") is None:
        raise ProgramMissing(advice)
    try:
        _run(command)
    except subprocess.CalledProcessError as error:
        raise ProgramMissing(f"{advice}\napt-get said:\n{error.stdout[-2000:]}") from error


def _unpack_debian(suite: str, package: str, destination: Path) -> None:
    """Unpacks a package of another suite and all it needs, checked by apt, the system untouched."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*")]
    configured = "\n".join(
        p.read_text("utf-8") for p in sources if p.suffix in {".list", ".sources"} and p.exists()
    )
    mirror = re.search(r"^[^#\n]*?(https?://\S+/debian/?)\s", configured, re.MULTILINE)
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if mirror is None or not keyring.exists() or shutil.which("apt-get") is None:
        raise ProgramMissing(
            f"{package} is fetched from Debian's {suite}, which needs apt with a Debian mirror"
            f" among its sources and {keyring}: run it on Debian, or leave it to those who do"
        )
    with tempfile.TemporaryDirectory(dir=destination.parent) as temporary:
        apt, tree = Path(temporary), Path(temporary) / "tree"
        for name in (
            "etc/apt.conf.d",
            "etc/preferences.d",
            "state/lists",
            "cache/archives",
            "tree",
        ):
            (apt / name).mkdir(parents=True)
        (apt / "state/status").touch()
        source = f"deb [signed-by={keyring}] {mirror[1]} {suite} main\n"
        (apt / "etc/sources.list").write_text(source, "utf-8")
        options = {
            "Dir::Etc": apt / "etc",
            "Dir::State": apt / "state",
            "Dir::State::status": apt / "state/status",
            "Dir::Cache": apt / "cache",
            "Debug::NoLocking": 1,
        }
        command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
        fetch = ["-y", "--no-install-recommends", "--download-only", "install", package]
        try:
            for arguments in (["update"], fetch):
                _run([*command, *arguments])
            for archive in sorted((apt / "cache/archives").glob("*.deb")):
                _run(["dpkg", "-x", str(archive), str(tree)])
        except subprocess.CalledProcessError as error:
            raise ProgramMissing(
                f"{package} of Debian's {suite} could not be fetched; {error.cmd[0]} said:\n"
                + error.stdout[-2000:]
            ) from error
        tree.rename(destination)


def _run(command: list[str]) -> None:
    out = subprocess.PIPE
    subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, encoding="utf-8", check=True)
