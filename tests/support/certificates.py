"""Certificates for a PostgreSQL that speaks TLS, and for its clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_NOW = datetime.now(UTC)
_PEM = serialization.Encoding.PEM


class Certificates:
    """Files in a folder, by name: `ca.crt` signed the server and the client, `other.crt` nobody."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ca, other = trustme.CA(), trustme.CA()
        self._put("ca.crt", ca.cert_pem.bytes())
        self._put("other.crt", other.cert_pem.bytes())
        self._put("broken.crt", b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
        self.server = ca.issue_cert("localhost")
        for name, issuer in (("client", ca), ("stranger", other)):
            issued = issuer.issue_cert(common_name="certified")
            self._put(f"{name}.crt", b"".join(part.bytes() for part in issued.cert_chain_pems))
            self._put(f"{name}.key", issued.private_key_pem.bytes())
        self._put("shown.key", (folder / "client.key").read_bytes(), mode=0o644)
        revoked = x509.load_pem_x509_certificate(self.server.cert_chain_pems[0].bytes())
        self._put("revoking.crl", _crl(ca, revoked.serial_number))
        self._put("empty.crl", _crl(ca))

    def _put(self, name: str, content: bytes, mode: int = 0o600) -> None:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(mode)

    def path(self, name: str) -> str:
        return str(self.folder / name)


def _crl(ca: trustme.CA, *serials: int) -> bytes:
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(_NOW - timedelta(days=1))
        .next_update(_NOW + timedelta(days=1))
    )
    for serial in serials:
        revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_NOW)
        builder = builder.add_revoked_certificate(revoked.build())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return builder.sign(key, hashes.SHA256()).public_bytes(_PEM)


def lax(common_name: str) -> tuple[bytes, bytes, bytes]:
    """Returns an authority, a certificate of it and its key, as old scripts make them.

    No alternative names, no key identifiers, constraints that aren't critical: libpq accepts them,
    and Python's default context doesn't since 3.13.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        for name in ("An old authority", common_name)
    ]
    made = [
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(names[0])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - timedelta(days=1))
        .not_valid_after(_NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=False)
        .sign(keys[0], hashes.SHA256())
        .public_bytes(_PEM)
        for name, key, is_ca in zip(names, keys, (True, False), strict=True)
    ]
    key = keys[1].private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made[0], made[1], key
