"""What a wheel, an sdist and an editable install hold, each tried from an empty directory."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
#: Before any test has changed it: pip may need its certificates.
ENVIRONMENT = dict(os.environ)
TOOLS = (".git", ".*_cache", ".tox", ".venv", ".hypothesis", "__pycache__")
PRODUCTS = ("build", "dist", "*.egg-info", "*.sqlite", "*.sqlite-wal", "*.sqlite-shm")
KINDS = pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])


@dataclass(frozen=True)
class Project:
    """A clean copy of the project, and what was built of it."""

    directory: Path
    wheel: Path
    sdist: Path


def run(python: Path | str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What became of a Python that sees nothing but its own site-packages and the directory."""
    environment = {
        key: value
        for key, value in ENVIRONMENT.items()
        if key != "STATEDB_URL" and not key.startswith("PYTHON")
    }
    command = [str(python), *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def output(python: Path | str, *arguments: str, cwd: Path) -> str:
    done = run(python, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    top = tmp_path_factory.mktemp("project")
    copy = top / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*TOOLS, *PRODUCTS))
    output(sys.executable, "-m", "build", "--sdist", "--outdir", f"{top}", f"{copy}", cwd=top)
    output(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", f"{top}", f"{copy}", cwd=top)
    (wheel,) = top.glob("*.whl")
    (sdist,) = top.glob("*.tar.gz")
    return Project(copy, wheel, sdist)


@pytest.fixture(scope="session")
def pythons(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each kind of install the Python of an environment with it, and with no driver."""
    top = tmp_path_factory.mktemp("environments")
    sources = {
        "wheel": [f"{project.wheel}"],
        "sdist": [f"{project.sdist}"],
        "editable": ["--editable", f"{project.directory}"],
    }
    installed = {}
    for kind, source in sources.items():
        output(sys.executable, "-m", "venv", "--without-pip", kind, cwd=top)
        python = top / kind / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = ("-m", "pip", "--python", f"{python}", "install", "--no-deps")
        output(sys.executable, *pip, *source, cwd=top)
        installed[kind] = python
    return installed


@pytest.fixture(scope="session")
def metadata(project: Project) -> Message:
    with zipfile.ZipFile(project.wheel) as wheel:
        (name,) = (one for one in wheel.namelist() if one.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def files_below(directory: Path) -> set[str]:
    """The files in a directory, named as from its parent."""
    found = (path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory.parent).as_posix()
        for path in found
        if "__pycache__" not in path.parts
    }


@KINDS
def test_a_value_is_found_again_from_an_empty_directory(
    pythons: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    program = """
import json, statedb
with statedb.connect("sqlite:///cluster.sqlite") as db:
    objectid = db.state.getObjectId("nightly", "Scheduler").result()
    db.state.setState(objectid, "last", {"build": 7}).result()
with statedb.connect("sqlite:///cluster.sqlite") as db:
    print(json.dumps(db.state.thdGetState(objectid, "last")))
"""
    assert json.loads(output(pythons[kind], "-c", program, cwd=tmp_path)) == {"build": 7}


@KINDS
def test_the_package_is_imported_from_where_it_was_installed(
    pythons: dict[str, Path], project: Project, kind: str, tmp_path: Path
) -> None:
    program = """
import statedb, sysconfig
print(statedb.__file__)
print(sysconfig.get_path("purelib"))
"""
    place, site_packages = output(pythons[kind], "-c", program, cwd=tmp_path).splitlines()
    expected = project.directory if kind == "editable" else Path(site_packages)
    assert Path(place).resolve() == (expected / "statedb" / "__init__.py").resolve()


@KINDS
def test_every_sql_file_and_the_mark_of_a_typed_package_are_found(
    pythons: dict[str, Path], project: Project, kind: str, tmp_path: Path
) -> None:
    program = """
import statedb
from pathlib import Path
from statedb.sqlfiles import load, shipped
assert Path(statedb.__file__).with_name("py.typed").is_file()
for name in ("common", "mysql", "postgresql", "sqlite"):
    assert load([shipped(name)])
    print(*(f"sql/{name}/{path.name}" for path in shipped(name).iterdir()), sep="\\n")
"""
    found = output(pythons[kind], "-c", program, cwd=tmp_path).splitlines()
    assert set(found) == files_below(project.directory / "sql")


def test_the_wheel_holds_the_package_its_sql_and_nothing_else(
    project: Project, metadata: Message
) -> None:
    about = f"statedb-{metadata['Version']}.dist-info"
    with zipfile.ZipFile(project.wheel) as wheel:
        names = {name for name in wheel.namelist() if not name.startswith(f"{about}/")}
    sql = {f"statedb/{name}" for name in files_below(project.directory / "sql")}
    assert names == files_below(project.directory / "statedb") | sql


def test_the_sdist_holds_all_that_it_takes_to_work_on_it(project: Project) -> None:
    with tarfile.open(project.sdist) as sdist:
        names = {one.name.partition("/")[2] for one in sdist.getmembers() if one.isfile()}
    wanted = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md"}
    wanted |= {"pyproject.toml", "setup.cfg", "tox.ini"}
    for directory in ("docs", "sql", "statedb", "tests"):
        wanted |= files_below(project.directory / directory)
    assert wanted - names == set()


def test_nothing_is_required_but_by_an_extra(metadata: Message) -> None:
    requirements = metadata.get_all("Requires-Dist", [])
    assert [one for one in requirements if "extra ==" not in one] == []
    assert set(metadata.get_all("Provides-Extra", [])) >= {"postgresql", "mysql", "all"}
    assert metadata["Requires-Python"] == ">=3.10"


@pytest.mark.parametrize(
    ("extra", "drivers"),
    [
        ("postgresql", ["psycopg[binary]"]),
        ("mysql", ["PyMySQL", "cryptography"]),
        ("cli", ["rich"]),
        ("all", ["statedb[postgresql]", "statedb[mysql]", "statedb[cli]"]),
    ],
)
def test_an_extra_brings_its_drivers(metadata: Message, extra: str, drivers: list[str]) -> None:
    required = [
        requirement.partition(">")[0].partition(";")[0].strip()
        for requirement in metadata.get_all("Requires-Dist", [])
        if f'"{extra}"' in requirement
    ]
    assert required == drivers


def test_the_version_is_said_once(
    pythons: dict[str, Path], metadata: Message, tmp_path: Path
) -> None:
    program = "import statedb; print(statedb.__version__)"
    assert output(pythons["wheel"], "-c", program, cwd=tmp_path) == metadata["Version"]


@KINDS
def test_the_command_makes_the_tables_and_may_be_run_again(
    pythons: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    command = ("-m", "statedb", "upgrade", "--url", "sqlite:///cluster.sqlite")
    first = output(pythons[kind], *command, cwd=tmp_path)
    assert "has the tables" in first
    assert output(pythons[kind], *command, cwd=tmp_path) == first


def test_the_console_script_needs_nothing_but_the_wheel(
    pythons: dict[str, Path], tmp_path: Path
) -> None:
    script = pythons["wheel"].with_name("statedb")

    def command(*arguments: str) -> str:
        return output(script, "--url", "sqlite:///cluster.sqlite", *arguments, cwd=tmp_path)

    command("upgrade")
    assert command("set", "nightly:Scheduler", "color", '"green"', "--create") == '"green"'
    command("dump", "state.jsonl")
    command("delete", "--object", "nightly:Scheduler")
    assert command("objects", "--json") == ""
    command("load", "state.jsonl")
    assert command("get", "nightly:Scheduler", "color") == '"green"'
    assert "nightly" in command("objects")


@pytest.mark.parametrize(
    ("url", "code", "part"),
    [
        ("oracle://host/database", 2, "a database URL begins with sqlite://"),
        ("sqlite:///no/such/directory/x.db", 1, "unable to open database file"),
        ("postgresql://host/database", 1, "pip install 'statedb[postgresql]'"),
    ],
)
def test_the_command_says_in_one_line_why_it_failed(
    pythons: dict[str, Path], tmp_path: Path, url: str, code: int, part: str
) -> None:
    done = run(pythons["wheel"], "-m", "statedb", "upgrade", "--url", url, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (code, "")
    assert line.startswith("statedb: ")
    assert part in line


@pytest.mark.parametrize(
    ("scheme", "extra"),
    [
        ("postgresql", "postgresql"),
        ("postgres", "postgresql"),
        ("mysql", "mysql"),
        ("mariadb", "mysql"),
    ],
)
def test_a_missing_driver_is_an_error_that_names_its_extra(
    pythons: dict[str, Path], tmp_path: Path, scheme: str, extra: str
) -> None:
    program = f"""
import statedb
try:
    statedb.connect("{scheme}://user:secret@host/database")
except statedb.DriverMissingError as error:
    print(error)
"""
    said = output(pythons["wheel"], "-c", program, cwd=tmp_path)
    assert f"pip install 'statedb[{extra}]'" in said
    assert "secret" not in said


def test_importing_statedb_imports_no_driver_and_nothing_slow(
    pythons: dict[str, Path], tmp_path: Path
) -> None:
    program = """
import sys
before = set(sys.modules)
import statedb
print(*sorted(set(sys.modules) - before), sep="\\n")
"""
    imported = set(output(pythons["wheel"], "-c", program, cwd=tmp_path).splitlines())
    assert "statedb.database" in imported
    drivers = {"psycopg", "pymysql", "sqlite3", "_sqlite3"}
    assert imported & (drivers | {"importlib.metadata", "importlib.resources"}) == set()
