"""Encryption to MySQL and MariaDB: which parameters a URL has for it, and what they mean.

PyMySQL would have them mean other things from one version to the next: that a CA is named has meant
that the server's certificate is verified by it, and has not.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pymysql
from pymysql.constants import CR

from statedb.errors import InvalidURLError

TEXTS = ("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password")
SWITCHES = ("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity")


def check_parameters(options: dict[str, Any]) -> None:
    """Refuse what contradicts itself, or would have something be trusted that is not verified."""
    asked = [name for name in (*TEXTS, *SWITCHES[1:]) if options.get(name)]
    if options.get("ssl_disabled") and asked:
        raise InvalidURLError(f"a MySQL URL with ssl_disabled has no use for {', '.join(asked)}")
    if options.get("ssl_verify_identity") and options.get("ssl_verify_cert") is False:
        raise InvalidURLError(
            "a MySQL URL with ssl_verify_identity cannot have ssl_verify_cert be false: a name in a"
            " certificate that anybody may have made says nothing"
        )
    if options.get("ssl_key") and not options.get("ssl_cert"):
        raise InvalidURLError("a MySQL URL with ssl_key has the certificate for it as ssl_cert")


def split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What concerns encryption, and the rest."""
    ours = {name: value for name, value in options.items() if name in (*TEXTS, *SWITCHES)}
    return ours, {name: value for name, value in options.items() if name not in ours}


def settings(options: dict[str, Any]) -> dict[str, Any]:
    """What PyMySQL is told about encryption; read anew for each connection, since files change."""
    if options.get("ssl_disabled"):
        return {"ssl_disabled": True}
    if not any(options.values()):
        return {}  # it encrypts if the server does, and verifies nothing
    authority = options.get("ssl_ca")
    # Who names a CA wants the certificate verified by it, as the servers' own clients see it.
    verifies = options.get("ssl_verify_cert", bool(authority) or options.get("ssl_verify_identity"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = bool(options.get("ssl_verify_identity"))
    if not verifies:
        context.verify_mode = ssl.CERT_NONE
    elif authority:
        _load(f"ssl_ca {authority!r}", lambda: context.load_verify_locations(authority))
    else:
        context.load_default_certs()
    certificate, key = options.get("ssl_cert"), options.get("ssl_key")
    if certificate:
        # Without a password OpenSSL would ask for one at the terminal.
        password = options.get("ssl_key_password", "")
        files = f"ssl_cert {certificate!r}" + (f" with ssl_key {key!r}" if key else "")
        _load(files, lambda: context.load_cert_chain(certificate, key, password))
    return {"ssl": context}


def _load(files: str, load: Callable[[], None]) -> None:
    try:
        load()
    except OSError as error:
        number = CR.CR_SSL_CONNECTION_ERROR
        raise pymysql.OperationalError(number, f"{files} cannot be used: {error}") from error
