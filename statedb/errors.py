"""The errors that statedb raises: one root, and the builtin that a caller would catch anyway."""

from __future__ import annotations


class Error(Exception):
    """Root of every error of statedb's own."""

    # KeyError shows the repr of its message; ours are sentences, whichever builtin they inherit.
    __str__ = Exception.__str__


class InvalidTypeError(Error, TypeError):
    """An argument is of a type that its parameter does not take."""


class InvalidNameError(Error, ValueError):
    """A name is empty, over 64 KiB, or holds a NUL or a lone surrogate."""


class InvalidValueError(Error, TypeError):
    """A value cannot be stored as JSON."""


class ValueTooLargeError(Error, ValueError):
    """A value's JSON is over 4 MiB."""


class StoredValueError(Error, TypeError):
    """What the database holds as a value is not JSON."""


class InvalidResultSpecError(Error, ValueError):
    """A ResultSpec or Filter asks for what there is not."""


class InvalidURLError(Error, ValueError):
    """A database URL is malformed or of no known engine."""


class InvalidSettingError(Error, ValueError):
    """A setting of connect() or join(), or a number of seconds, is out of its bounds."""


class NoSuchStateError(Error, KeyError):
    """An object has no value of this name."""


class NoSuchObjectError(Error, KeyError):
    """No object has this id."""


class SchemaError(Error):
    """The tables are missing, or older or newer than this version of statedb."""


class MasterLostError(Error, RuntimeError):
    """A master's place is not, or no longer, this process's, and nothing brings it back."""


class MasterInDoubtError(Error, RuntimeError):
    """A member has not been able to check in for so long that others may have expired it."""


class MasterActiveError(Error, ValueError):
    """A master that was to be forgotten is active."""


class AlreadyClaimedError(Error, RuntimeError):
    """Another master holds the thing: the one with the id ``owner``."""

    def __init__(self, message: str, owner: int) -> None:
        super().__init__(message, owner)
        #: The id of the master that holds it.
        self.owner = owner

    def __str__(self) -> str:
        message: str = self.args[0]
        return message


class ClaimLostError(Error, RuntimeError):
    """A claim is no longer held: it was released, or its master has lost its place."""


class UnusableConnectionError(Error, ValueError):
    """An application's connection is in a state in which a statement of ours would do harm."""


class DriverMissingError(Error, ImportError):
    """The driver that a URL asks for is not installed."""


class PoolClosedError(Error, RuntimeError):
    """The Database is closed."""


class QueueFullError(Error, RuntimeError):
    """As many futures as the Database accepts are pending."""


class DatabaseError(Error):
    """A driver's failure, which is this error's cause."""


class ConflictError(DatabaseError):
    """A deadlock or the like undid a transaction; done again from its start it may succeed."""


class CallTimeoutError(DatabaseError, TimeoutError):
    """A call did not get done within the Database's timeout; nothing of it took effect."""


class OutcomeUnknownError(DatabaseError):
    """The answer to a write was lost: it may have taken effect, or may yet, or never."""
