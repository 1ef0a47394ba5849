"""Remedies: what to do about an error that waiting does not mend, by the codes of each engine.

Each is the end of a sentence that has said what failed, where, and what the driver said of it.
"""

from __future__ import annotations

from typing import Final

_GRANT: Final = (
    "grant this account SELECT, INSERT, UPDATE and DELETE on the tables; to upgrade them, also what"
    " creates tables"
)
_LOG_IN: Final = "correct the user and the password in the URL, or what the server lets log in"
_DATABASE: Final = "create this database, or correct its name in the URL"
_READ_ONLY: Final = "connect to a server, and as an account, that may write"
#: Where a table of statedb's is not there; it was when the Database was opened.
TABLE: Final = "restore the table, or make it anew and empty: python -m statedb upgrade --url URL"
_PARAMETERS: Final = "correct libpq's parameters in the URL"
_POOLER: Final = (
    "put pooler=transaction or pooler=session, whichever the pooler's mode is, into the URL:"
    " docs/howto/pgbouncer.md"
)
#: Where the server was not told what its client said at once: a pooler has kept it to itself.
UNTOLD: Final = "a pooler stands between, and does not pass on the parameter options"
#: Where a pooler gives each statement to another session, and refuses transactions.
PER_STATEMENT: Final = "statement pooling mode"
_ROOM: Final = "make room on the disk that holds the database"

_FILES: Final = (
    "see that the files that the URL names for TLS are there, in PEM, and that the key is this"
    " user's alone"
)
_EXPIRED: Final = "renew the server's certificate, or set right whichever clock is wrong"
_NAME: Final = "name the host in the URL as the server's certificate does"
#: Where a server's certificate is not to be trusted.
AUTHORITY: Final = "give as ssl_ca in the URL the CA that has signed the server's certificate"
#: Where a server does not trust a client's.
ACCOUNTS_CERTIFICATE: Final = (
    "give the certificate and the key that the server wants of this account, signed by the CA that"
    " it trusts and not expired"
)

#: By OpenSSL's number of what is wrong with a certificate.
CERTIFICATES: Final = {9: _EXPIRED, 10: _EXPIRED, 62: _NAME, 64: _NAME}

#: By SQLite's result codes, without what extends them.
SQLITE: Final = {
    8: "let this user write to the file, to FILE-wal and FILE-shm if they are there, and to their"
    " directory, on a disk that is not read-only",
    10: "see what ails the disk, and what this process may write to it",
    11: "restore the file from a copy: it is damaged",
    13: f"{_ROOM}, or raise what limits its size",
    14: "give the path of a file in a directory that exists, and let this user write to both",
    26: "give the path of a SQLite file, or of none",
}

#: By the SQLSTATE.
POSTGRESQL: Final = {
    "25006": _READ_ONLY,
    "28000": _LOG_IN,
    "28P01": _LOG_IN,
    "3D000": _DATABASE,
    "42501": _GRANT,
    "53100": _ROOM,
}

#: By a part of the message, where libpq could not connect and gives no SQLSTATE. These say that
#: waiting will not help; in another language than English they are tried until the time is up.
LIBPQ: Final = {
    UNTOLD: _POOLER,
    "unsupported startup parameter": _POOLER,
    PER_STATEMENT: "let the pooler's mode be transaction or session",
    # Before what else does not exist.
    "certificate file": _FILES,
    "private key file": _FILES,
    "authentication failed": _LOG_IN,
    "no password supplied": _LOG_IN,
    "no pg_hba.conf entry": _LOG_IN,
    "pg_hba.conf rejects connection": _LOG_IN,
    "not permitted to log in": _LOG_IN,
    'FATAL:  role "': _LOG_IN,
    "does not exist": _DATABASE,
    "permission denied for database": "grant this account CONNECT on this database",
    "does not support SSL": "let the server take TLS, or have sslmode in the URL not ask for it",
    "certificate verify failed": "give as sslrootcert in the URL the CA that has signed the"
    f" server's certificate; or, if it has expired, {_EXPIRED}",
    "server certificate for": _NAME,
    "valid client certificate": ACCOUNTS_CERTIFICATE,
    # What the server says of a client's certificate.
    "alert unknown ca": ACCOUNTS_CERTIFICATE,
    "alert bad certificate": ACCOUNTS_CERTIFICATE,
    "alert certificate": ACCOUNTS_CERTIFICATE,
    "invalid integer value": _PARAMETERS,
    ' value: "': _PARAMETERS,
    "definition of service": _PARAMETERS,
}

#: By the number of the error.
MYSQL: Final = {
    1021: _ROOM,
    1044: f"correct the name of the database in the URL, or {_GRANT}",
    1045: _LOG_IN,
    1049: _DATABASE,
    1114: _ROOM,
    1130: _LOG_IN,
    1142: _GRANT,
    1143: _GRANT,
    1290: _READ_ONLY,
    1370: _GRANT,
    1698: _LOG_IN,
    1792: _READ_ONLY,
    1836: _READ_ONLY,
    2026: "let the server take TLS, and have the URL name files for it that are there, in PEM",
    3159: "leave ssl_disabled out of the URL",
    3118: _LOG_IN,
    4151: _LOG_IN,
}
