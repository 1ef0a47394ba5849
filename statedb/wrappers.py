"""What frameworks put around a driver's connection, and how to get at it by their own rules.

None of them is imported, or asked for anything, to find out which one it is: that is told by the
names of a type's bases, which hold for subclasses too. An attribute would have to be looked up on
the object, where it may be a property that connects, or a proxy's answer for something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from statedb.errors import InvalidTypeError, UnusableConnectionError

#: Ends a sentence that says what a connection can be.
NAMES = "Django's connection, SQLAlchemy's Connection or Session, or what its pools give"


class WrappedConnection(Protocol):
    """What the connections of frameworks have in common."""

    @property
    def connection(self) -> Any: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


def unwrapped(conn: Any) -> Any:
    """The driver's connection, ready for a statement; the same object if nothing is around it.

    What the framework refuses, as where its transaction has failed, raises the framework's error.
    """
    try:
        unwrap = _by_type[type(conn)]
    except KeyError:
        unwrap = _by_type[type(conn)] = _find(type(conn))
    return conn if unwrap is None else unwrap(conn)


def _find(kind: type) -> Callable[[Any], Any] | None:
    names = (f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in kind.__mro__)
    return next((_known[name] for name in names if name in _known), None)


def _of_django(wrapper: Any) -> Any:
    # A cursor of its own connects, or connects again, and is refused to other threads and to event
    # loops; in a transaction that has to be rolled back it is refused when it is used.
    wrapper.cursor().close()
    wrapper.validate_no_broken_transaction()
    return wrapper.connection


def _of_sqlalchemy(conn: Any) -> Any:
    # In this order: of one that is closed, or that was invalidated in a transaction, it raises.
    proxy = conn.connection
    if not conn.in_transaction():
        # As its own statements do. Where it knows of no transaction, commit() does nothing.
        conn.begin()
    return _of_pool(proxy)


def _of_session(session: Any) -> Any:
    return _of_sqlalchemy(session.connection())


def _of_pool(proxy: Any) -> Any:
    # Not driver_connection, which a detached one has not; where drivers block it is the same.
    raw = proxy.dbapi_connection
    if raw is None:
        raise UnusableConnectionError("this connection was given back to its pool, or invalidated")
    return raw


def _of_asyncio(conn: Any) -> Any:
    raise InvalidTypeError(
        f"a {type(conn).__module__}.{type(conn).__qualname__} is asynchronous, and what statedb's"
        f" functions do on a connection blocks: give them one of a blocking driver, in a thread of"
        f" its own, or await asyncio.wrap_future(db.state.…) of a Database"
    )


#: By the top-level module and the name of a type or one of its bases.
_known: dict[str, Callable[[Any], Any]] = {
    "django.BaseDatabaseWrapper": _of_django,
    "django.ConnectionProxy": _of_django,
    "sqlalchemy.AsyncConnection": _of_asyncio,
    "sqlalchemy.AsyncSession": _of_asyncio,
    "sqlalchemy.Connection": _of_sqlalchemy,
    "sqlalchemy.PoolProxiedConnection": _of_pool,
    "sqlalchemy.Session": _of_session,
    "sqlalchemy.async_scoped_session": _of_asyncio,
    "sqlalchemy.scoped_session": _of_session,
    # What stands for an object in a request's context may stand for any of these.
    "werkzeug.LocalProxy": lambda proxy: unwrapped(proxy._get_current_object()),
}
_by_type: dict[type, Callable[[Any], Any] | None] = {}
