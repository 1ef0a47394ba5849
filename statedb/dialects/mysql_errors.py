"""What the errors of MySQL, MariaDB and their clusters say of the statement that met them."""

from __future__ import annotations

import ssl

import pymysql

from statedb.dialects import Failure, remedies

# The transaction is undone: deadlock, also what Galera says at COMMIT to whoever was second; a wait
# for a lock, or for Galera's other nodes; MariaDB's snapshot isolation; a table changed since the
# snapshot; a group's certification at COMMIT.
_CONFLICT = {1213, 1205, 1020, 1412, 3101}
# No connection: refused, unknown host, too many (for the server, its threads, or the account), bad
# handshakes, offline. A Galera node without a quorum, a group's member that is not in step. A
# server that is read-only. An idle connection that the server had ended before.
_REFUSED = {2002, 2003, 2005, 1040, 1041, 1042, 1043, 1129, 1135, 1203, 1226, 1637, 3032}
_REFUSED |= {1047, 3796, 3797, 3798, 3799}
_REFUSED |= {1836, 4031}
# Gone away, lost, killed, shut down, a packet that did not come through; and a COMMIT in trouble:
# of a Galera node or a group's member that lost its quorum meanwhile, the others may have it.
_LOST = {0, 2006, 2013, 2014, 2027, 2055, 1053, 1077, 1079, 1080, 1152, 1184, 1927, 3169}
_LOST |= {1156, 1157, 1158, 1159, 1160, 1161}
_LOST |= {1180, 3100}
# How OpenSSL's names of what a server says of a client's certificate end.
_DISTRUSTED = (
    *("UNKNOWN_CA", "_CERTIFICATE", "CERTIFICATE_EXPIRED"),
    *("CERTIFICATE_REVOKED", "CERTIFICATE_UNKNOWN", "CERTIFICATE_REQUIRED"),
)
# "Running with the --read-only option", but of other options too, which are there to stay.
_OPTION_PREVENTS = 1290


def code(error: BaseException) -> int | None:
    number = error.args[0] if error.args else None
    return number if isinstance(number, int) else None


def failure(error: BaseException) -> Failure | None:
    if not isinstance(error, pymysql.MySQLError):
        return None
    number = code(error)
    if number in _CONFLICT:
        return Failure.CONFLICT
    if number in _REFUSED or (number == _OPTION_PREVENTS and _is_read_only(error)):
        return None if is_distrust(error) else Failure.REFUSED
    if _is_distrusted(error):
        return None
    # An InternalError without a code is PyMySQL's own: packets came in a wrong order.
    torn = number is None and isinstance(error, pymysql.InternalError)
    return Failure.LOST if number in _LOST or torn else None


def _is_read_only(error: BaseException) -> bool:
    """Whether it says so: the option's name is the same in every language."""
    text = str(error).lower().replace("_", "-")
    return "read-only" in text


def is_distrust(error: BaseException) -> bool:
    """Whether there was a server, whose certificate is not to be trusted."""
    return isinstance(_original(error), ssl.SSLCertVerificationError)


def _is_distrusted(error: BaseException) -> bool:
    """Whether it is the server that does not trust a client's certificate, or wants one."""
    reason = getattr(error.__context__, "reason", None)
    return isinstance(reason, str) and "ALERT" in reason and reason.endswith(_DISTRUSTED)


def _original(error: BaseException) -> BaseException | None:
    """What went wrong beneath the driver."""
    return getattr(error, "original_exception", None)


def is_unique_violation(error: BaseException) -> bool:
    return isinstance(error, pymysql.IntegrityError) and code(error) == 1062


def remedy(error: BaseException) -> str | None:
    if not isinstance(error, pymysql.MySQLError):
        return None
    if code(error) == 1146 and ".statedb_" in str(error):
        return remedies.TABLE
    distrust = _original(error)
    if isinstance(distrust, ssl.SSLCertVerificationError):
        return remedies.CERTIFICATES.get(distrust.verify_code, remedies.AUTHORITY)
    if _is_distrusted(error):
        return remedies.ACCOUNTS_CERTIFICATE
    return remedies.MYSQL.get(code(error) or 0)


def spoils(error: BaseException) -> bool:
    """Whether it is a right that is missing: one to a whole database is looked up at its USE."""
    return isinstance(error, pymysql.MySQLError) and code(error) in (1044, 1142, 1143, 1370)
