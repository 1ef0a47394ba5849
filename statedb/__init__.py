"""State and masters for programs made of several cooperating processes, in an ordinary database.

``connect(url)`` gives a Database. ``statedb.state`` and ``statedb.masters`` hold the operations as
functions of a connection, an application's own included.
"""

from statedb import dialects, errors, masters, state
from statedb.chronicle import Stats
from statedb.connection import Connection
from statedb.connectors import MastersConnector, StateConnector
from statedb.database import Database, connect
from statedb.errors import (
    AlreadyClaimedError,
    CallTimeoutError,
    ClaimLostError,
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
    MasterActiveError,
    MasterInDoubtError,
    MasterLostError,
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
from statedb.masters import Claim, MasterModel
from statedb.membership import Member
from statedb.resultspec import Filter, ResultSpec
from statedb.state import NO_DEFAULT, ObjectModel

__version__ = "0.1.0"

__all__ = [
    "NO_DEFAULT",
    "AlreadyClaimedError",
    "CallTimeoutError",
    "Claim",
    "ClaimLostError",
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
    "MasterActiveError",
    "MasterInDoubtError",
    "MasterLostError",
    "MasterModel",
    "MastersConnector",
    "Member",
    "NoSuchObjectError",
    "NoSuchStateError",
    "ObjectModel",
    "OutcomeUnknownError",
    "PoolClosedError",
    "QueueFullError",
    "ResultSpec",
    "SchemaError",
    "StateConnector",
    "Stats",
    "StoredValueError",
    "UnusableConnectionError",
    "ValueTooLargeError",
    "connect",
    "dialects",
    "errors",
    "masters",
    "state",
]
