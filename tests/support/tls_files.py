"""Certificates of a federation for tests: an authority, a broker on localhost, clients, and a revocation list."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgefl.transports.mqtt import TlsConfig

DAY = datetime.timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """Writes in `folder`: `ca.crt`, `server.crt`, `server.key`, `crl.pem`; and each client's `NAME.crt`, `NAME.key`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("a test's authority")
        self._certificates: dict[str, x509.Certificate] = {}
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._ca = self._build(self._name, self._key.public_key()).add_extension(constraints, critical=True)
        ca = self._ca.sign(self._key, hashes.SHA256())
        (folder / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        self._issue("localhost", "server", names, ExtendedKeyUsageOID.SERVER_AUTH)
        self.revoke()

    def client(self, name: str, file: str = "") -> TlsConfig:
        """The files of the client `name`, made on first use; `file` where the name is no file's name."""
        file = file or name
        if name not in self._certificates:
            self._issue(name, file, None, ExtendedKeyUsageOID.CLIENT_AUTH)
        return TlsConfig(*(str(self.folder / one) for one in ("ca.crt", f"{file}.crt", f"{file}.key")))

    def revoke(self, *names: str) -> None:
        """Write a list that revokes these clients' certificates."""
        now = datetime.datetime.now(datetime.timezone.utc)
        crl = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        crl = crl.last_update(now - DAY).next_update(now + 90 * DAY)
        for name in names:
            serial = self._certificates[name].serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
            crl = crl.add_revoked_certificate(revoked)
        pem = crl.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (self.folder / "crl.pem").write_bytes(pem)

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        return (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 90 * DAY)
        )

    def _issue(
        self, common: str, file: str, names: x509.SubjectAlternativeName | None, usage: x509.ObjectIdentifier
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._build(_name(common), key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        self._certificates[common] = certificate
        (self.folder / f"{file}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{file}.key").write_bytes(private)
        (self.folder / f"{file}.key").chmod(0o600)
