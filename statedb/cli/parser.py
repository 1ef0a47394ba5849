"""Parser: the commands of the command line and their arguments."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import statedb
from statedb.cli import files, manual
from statedb.demo import command as demo
from statedb.errors import InvalidSettingError
from statedb.times import check_seconds


class _Parser(argparse.ArgumentParser):
    """One whose errors show no URL: in a mistyped command anything may be the password."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )

    def error(self, message: str) -> NoReturn:
        super().error(re.sub(r"\S*(:/|@).*", "(a URL)", message, flags=re.DOTALL))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What is asked for; ``url`` is STATEDB_URL's unless given, but for the demo."""
    whole = _whole()
    options = whole.parse_args(arguments)
    if options.command != "demo" and not options.url:
        options.url = os.environ.get("STATEDB_URL")
        if not options.url:
            whole.error("which database is meant? Give --url URL, or set STATEDB_URL")
    return options


def _whole() -> argparse.ArgumentParser:
    everywhere = _Parser(add_help=False)
    _add_options(everywhere, argparse.SUPPRESS)
    whole = _Parser(prog="statedb", description=manual.DESCRIPTION, epilog=manual.EPILOG)
    whole.add_argument("--version", action="version", version=f"statedb {statedb.__version__}")
    _add_options(whole, None)
    commands = whole.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    for name, said in manual.COMMANDS.items():
        one = commands.add_parser(
            name,
            parents=[everywhere],
            help=said.summary,
            description=f"{said.summary[0].upper()}{said.summary[1:]}.",
            epilog=said.epilog(),
        )
        for argument in _ARGUMENTS[name]:
            one.add_argument(*argument.names, **argument.settings)
    told = commands.add_parser("demo", help=demo.HELP, description=demo.DESCRIPTION)
    told.add_argument("--url", default=argparse.SUPPRESS, help=demo.URL_HELP)
    return whole


def _add_options(to: argparse.ArgumentParser, default: str | None) -> None:
    """What may stand before the command as well as after it, where it hides nothing before."""
    to.add_argument("--url", default=default, help=manual.URL)
    to.add_argument("--json", action="store_true", default=default or False, help=manual.JSON)
    to.add_argument(
        "--timeout", type=_seconds, default=default or 30.0, metavar="SECONDS", help=manual.TIMEOUT
    )


def _seconds(text: str) -> float:
    return _number_of_seconds(text, 0.001)


def _patience(text: str) -> float:
    return _number_of_seconds(text, 0)


def _number_of_seconds(text: str, least: float) -> float:
    try:
        return check_seconds("it", float(text), least)
    except (ValueError, InvalidSettingError):
        raise argparse.ArgumentTypeError("a number of seconds is wanted") from None


class _Argument:
    """An argument of a command, as argparse takes it."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.names = names
        self.settings = settings


def _switch(name: str, said: str, dest: str | None = None) -> _Argument:
    return _Argument(name, action="store_true", help=said, **({"dest": dest} if dest else {}))


def _seconds_of(name: str, default: float | None, said: str) -> _Argument:
    kind = _seconds if default else _patience
    return _Argument(name, type=kind, default=default, metavar="SECONDS", help=said)


_OBJECT: Final = _Argument("object", metavar="OBJECT", help=manual.OBJECT)
_KEY: Final = _Argument("key", metavar="KEY", help=manual.KEY)
_OPTIONAL_KEY: Final = _Argument("key", metavar="KEY", nargs="?", help=manual.KEY)


def _file(said: str) -> _Argument:
    return _Argument("file", metavar="FILE", nargs="?", default=files.STANDARD, help=said)


_ARGUMENTS: Final[Mapping[str, tuple[_Argument, ...]]] = {
    "upgrade": (),
    "objects": (
        _Argument("--name", metavar="PART", help="only those whose names hold this"),
        _Argument("--class", dest="class_name", metavar="CLASS", help="only those of this class"),
    ),
    "states": (_OBJECT,),
    "get": (
        _OBJECT,
        _KEY,
        _Argument("--default", metavar="JSON", help="what to print if there is no such value"),
    ),
    "set": (
        _OBJECT,
        _KEY,
        _Argument("value", metavar="VALUE", help=manual.VALUE),
        _switch("--create", "add the object NAME:CLASS if there is none"),
    ),
    "delete": (
        _OBJECT,
        _OPTIONAL_KEY,
        _switch("--object", "delete the object with all its values", dest="whole"),
    ),
    "masters": (
        _switch("--active", "only those who are active"),
        _switch("--watch", "look again and again, until interrupted"),
        _seconds_of("--interval", 2.0, "how long to wait before looking again (2)"),
    ),
    "claims": (
        _Argument("--master", metavar="MASTER", help="only what this one holds: an id or a name"),
        _Argument("--kind", help="only things of this kind"),
    ),
    "expire": (_seconds_of("--after", None, manual.AFTER),),
    "forget": (_Argument("master", metavar="MASTER", help=manual.MASTER),),
    "dump": (_file(manual.DUMP_FILE),),
    "load": (_file(manual.LOAD_FILE), _switch("--resume", manual.RESUME)),
}
