"""State and masters for programs made of several cooperating processes, in an ordinary database.

``connect(url)`` gives a Database. ``statedb.state`` holds the operations as functions of a
connection, an application's own included.
"""

from statedb import dialects, errors, state
from statedb.connection import Connection
from statedb.database import Database, StateConnector, connect
from statedb.errors import (
    CallTimeoutError,
    ConflictError,
    DatabaseError,
    DriverMissingError,
    Error,
    InvalidNameError,
    InvalidResultSpecError,
    InvalidSettingError,
    InvalidTypeError,
    InvalidURLError,
    InvalidValueError,
    NoSuchObjectError,
    NoSuchStateError,
    OutcomeUnknownError,
    PoolClosedError,
    QueueFullError,
    SchemaError,
    StoredValueError,
    UnusableConnectionError,
    ValueTooLargeError,
)
from statedb.resultspec import Filter, ResultSpec
from statedb.state import NO_DEFAULT, ObjectModel

__version__ = "0.1.0"

__all__ = [
    "NO_DEFAULT",
    "CallTimeoutError",
    "ConflictError",
    "Connection",
    "Database",
    "DatabaseError",
    "DriverMissingError",
    "Error",
    "Filter",
    "InvalidNameError",
    "InvalidResultSpecError",
    "InvalidSettingError",
    "InvalidTypeError",
    "InvalidURLError",
    "InvalidValueError",
    "NoSuchObjectError",
    "NoSuchStateError",
    "ObjectModel",
    "OutcomeUnknownError",
    "PoolClosedError",
    "QueueFullError",
    "ResultSpec",
    "SchemaError",
    "StateConnector",
    "StoredValueError",
    "UnusableConnectionError",
    "ValueTooLargeError",
    "connect",
    "dialects",
    "errors",
    "state",
]
