"""The registry of dialects: what statedb knows of each database engine.

A dialect is a record of what differs between engines and their drivers, and a list of directories
with the SQL that differs. ``register`` adds one from outside. The three that come with statedb are
imported, and their drivers with them, when a URL or a connection first asks for them.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from statedb import sqlfiles
from statedb.errors import DriverMissingError, InvalidTypeError, InvalidURLError
from statedb.wrappers import NAMES

if TYPE_CHECKING:
    from pathlib import Path


class Failure(enum.Enum):
    """What a driver's error says of the statement that met it, where trying again can help."""

    BUSY = "the statement did not take effect; its transaction stands"
    CONFLICT = "the engine undid the transaction, or made it unable to succeed"
    REFUSED = "the server did not execute it, and another connection may fare better"
    UNSETTLED = "the statement took effect, but may not last; trying again would only find it there"
    LOST = "the connection is gone, and whether the statement took effect is unknown"


class Transaction(enum.Enum):
    """In which state a connection is, as its driver reports it."""

    AUTOCOMMIT = "none open; each statement commits itself"
    IMPLICIT = "none open; the driver begins one at the next write"
    OPEN = "one is open"
    FAILED = "one is open that can only be rolled back"


@dataclass(frozen=True)
class Dialect:
    """One database engine with one driver: what the rest of statedb asks about it.

    An engine close to one that statedb knows is made with ``dataclasses.replace``.
    """

    name: str
    #: What may stand before ``://`` in its URLs.
    schemes: tuple[str, ...]
    #: The driver's top-level module, by which an application's connection is recognised.
    driver: str
    #: Directories of its statements; a later one's replace an earlier one's.
    sql: tuple[Path, ...]
    #: Where a URL leads; ``str()`` of it shows no password.
    parse: Callable[[str], Any]
    #: Opens an autocommit connection to a parsed URL within so many seconds.
    connect: Callable[[Any, float], Any]
    #: A new cursor whose rows are plain tuples, whatever the application prefers.
    cursor: Callable[[Any], Any]
    #: What a driver's error means where trying again can help, else None.
    failure: Callable[[BaseException], Failure | None]
    is_unique_violation: Callable[[BaseException], bool]
    transaction: Callable[[Any], Transaction]
    #: Begins, on a connection and its cursor, the transaction that its driver would begin itself.
    begin_implicit: Callable[[Any, Any], None]
    #: Ends a sentence that begins with "this connection", or None where nothing is amiss.
    why_unusable: Callable[[Any], str | None]
    #: Makes the check whether an idle connection has lost its server, which costs no round trip;
    #: None where there is no server.
    death_check: Callable[[Any], Callable[[], bool]] | None
    #: Ends, from another thread, the statement that a connection is waiting for.
    cut: Callable[[Any], None]
    #: Bounds the wait for another's lock, in seconds, from the next statement on.
    limit_lock_wait: Callable[[Any, float], None]
    #: The id that an INSERT gave its row, asked of its cursor; None where it inserted none.
    new_id: Callable[[Any], int | None]
    #: The moment of a statement by the database's clock, in microseconds since 1970, in SQL.
    now: str
    #: Puts the parameters of a statement into the driver's style.
    to_driver: Callable[[str], str]
    #: What the driver wants for a ``%(name)b``.
    binary: Callable[[bytes], Any] = bytes
    #: What to do about a driver's error that waiting does not mend, if that is known.
    remedy: Callable[[BaseException], str | None] = lambda error: None
    #: Whether a failure that is REFUSED will be so on every connection to the target, by what the
    #: one that met it has been told by its server.
    is_lasting: Callable[[Any, Any, BaseException], bool] = lambda target, raw, error: False
    #: Whether a connection that met the error would go on meeting it when its reason is gone.
    spoils: Callable[[BaseException], bool] = lambda error: False
    #: The name that a connection's session has on its server, if it has one; and, given another's
    #: cursor, the statements and that name, ends the session: whether it is gone, so that nothing
    #: of it is to come.
    session: Callable[[Any], str | None] = lambda raw: None
    end_session: Callable[[Any, sqlfiles.Statements, str], bool] = lambda cursor, sql, name: True
    #: What runs a query on a cursor at once, where its ``execute`` would first see to locks.
    query: Callable[[Any], Callable[..., Any]] = lambda cursor: cursor.execute
    #: The shortest such bound that the server takes.
    least_lock_wait: float = 0.0
    begin: str = "BEGIN"
    #: What begins a transaction that only reads, all of it as it is at that moment.
    begin_snapshot: tuple[str, ...] = ("BEGIN",)
    #: The condition that a text holds another.
    contains: str = "INSTR({field}, {value}) > 0"
    #: Whether missing tables are created on the first connection.
    creates_schema: bool = False
    #: Whether creating a table commits the transaction that is open.
    creating_commits: bool = False
    #: Whether a parsed URL leads to a database, where opening it would make one.
    is_there: Callable[[Any], bool] = lambda target: True
    #: Whether several callers' writes are committed at once, each in a savepoint of its own; else
    #: those of one operation may become one statement.
    shares_commits: bool = False
    #: Whether an UPDATE that finds no row may lock out those who would insert one.
    locks_gaps: bool = False
    #: Asks whether a commit is held against other servers' by what each has written; the answer is
    #: a row that ends with ON. None where there is no such server.
    certification: str | None = None
    #: Whether a connection must not even be closed by a forked child.
    close_before_fork: bool = False
    #: Whether a parsed URL leads into this process's own memory.
    in_memory: Callable[[Any], bool] = lambda target: False

    def is_driver_error(self, error: BaseException) -> bool:
        return any(_top_level(kind) == self.driver for kind in type(error).__mro__)


def _top_level(kind: type) -> str:
    return kind.__module__.partition(".")[0]


@cache
def statements(dialect: Dialect) -> sqlfiles.Statements:
    """The dialect's statements, read once."""
    source = {
        name: text.replace("/*now*/", dialect.now)
        for name, text in sqlfiles.load(dialect.sql).items()
    }
    return sqlfiles.Statements(source, dialect.to_driver)


class _BuiltIn(NamedTuple):
    """A dialect of statedb's own that need not have been imported yet."""

    module: str
    schemes: tuple[str, ...]
    driver: str

    def load(self) -> Dialect:
        try:
            dialect = importlib.import_module(f"statedb.dialects.{self.module}").DIALECT
        except ImportError as error:
            # Not only that the driver is not there: psycopg alone, without libpq, is of no use.
            raise DriverMissingError(
                f"{self.schemes[0]}:// needs the driver {self.driver}:"
                f" pip install 'statedb[{self.module}]' ({error})"
            ) from error
        assert isinstance(dialect, Dialect)
        return dialect


_known: dict[str, _BuiltIn | Dialect] = {
    "sqlite": _BuiltIn("sqlite", ("sqlite",), "sqlite3"),
    "postgresql": _BuiltIn("postgresql", ("postgresql", "postgres"), "psycopg"),
    "mysql": _BuiltIn("mysql", ("mysql", "mariadb"), "pymysql"),
}
_by_connection_type: dict[type, Dialect] = {}


def register(dialect: Dialect) -> None:
    """Make a dialect known, for the schemes of its URLs and the connections of its driver.

    Where names, schemes or drivers are shared, the one registered last is taken.
    """
    _known.pop(dialect.name, None)
    _known[dialect.name] = dialect
    _by_connection_type.clear()


def registered() -> tuple[Dialect, ...]:
    """All known dialects, the latest last. Their drivers are imported: all must be there."""
    return tuple(_loaded(name) for name in list(_known))


def _loaded(name: str) -> Dialect:
    found = _known[name]
    if isinstance(found, _BuiltIn):
        found = _known[name] = found.load()
    return found


def for_url(url: str) -> Dialect:
    """The dialect of a URL's scheme."""
    if not isinstance(url, str):
        raise InvalidTypeError(f"a database URL is a str, not {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    for name, one in reversed(list(_known.items())):
        if separator and scheme.lower() in one.schemes:
            return _loaded(name)
    schemes = dict.fromkeys(scheme for one in _known.values() for scheme in one.schemes)
    # What was given is not shown: in a mistyped URL anything may be the password.
    raise InvalidURLError(f"a database URL begins with {_either(f'{one}://' for one in schemes)}")


def for_connection(raw: Any, given: Any = None) -> Dialect:
    """The dialect of an application's own connection, by the module of its driver.

    Where the connection was found within something else, errors name that too.
    """
    kind = type(raw)
    dialect = _by_connection_type.get(kind)
    if dialect is None:
        drivers = {_top_level(base) for base in kind.__mro__}
        for name, one in reversed(list(_known.items())):
            if one.driver in drivers and hasattr(raw, "cursor") and hasattr(raw, "commit"):
                dialect = _by_connection_type[kind] = _loaded(name)
                return dialect
        known = dict.fromkeys(one.driver for one in _known.values())
        within = "" if given is None or given is raw else f", within a {_full_name(type(given))},"
        raise InvalidTypeError(
            f"a {_full_name(kind)}{within} is no connection of statedb, {_either(known)}; legal are"
            f" these and, around one of these drivers', {NAMES}"
        )
    return dialect


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _either(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
