"""Certificates for the tests: a CA of their own, and what it signs."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM


class Authority:
    """A CA, whose own certificate is the file ``path``."""

    def __init__(self, directory: Path, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.path = directory / f"{name}.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = _builder(self._name, self._name, self._key, DAY).add_extension(
            constraints, critical=True
        )
        self.path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))

    def sign(self, directory: Path, name: str, *, lasts: timedelta = DAY) -> tuple[Path, Path]:
        """A certificate for a host, or an account, of this name; and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        known_as: x509.GeneralName = x509.DNSName(name)
        if name[0].isdigit():
            known_as = x509.IPAddress(ipaddress.ip_address(name))
        names = x509.SubjectAlternativeName([known_as])
        builder = _builder(_named(name), self._name, key, lasts).add_extension(names, False)
        paths = directory / f"{name}.pem", directory / f"{name}.key"
        paths[0].write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))
        secret = key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        paths[1].touch(0o600)
        paths[1].write_bytes(secret)
        return paths


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * DAY)
        .not_valid_after(now + lasts)
    )
