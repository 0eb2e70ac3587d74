"""The TLS authority of one federation: P-256 keys, certificates, and the list of revoked certificates (RFC 5280).

P-256 because every broker takes it; AWS IoT Core lists no Ed25519. A certificate's common name is its holder's name at
the broker. Keys and certificates are PEM. No file and no clock here: `now` is Unix time in seconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ..errors import UsageError

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    raise UsageError("`edgefl keys` needs cryptography: pip install 'edgefl-toolkit[operator]'") from None

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

DAY_S = 86400
AUTHORITY_DAYS = 20 * 365
EARLY_S = 3600  # certificates hold from an hour before they are made: clocks differ
UNREADABLE = "is damaged or of another kind: put a copy of it back from your backup"


def new_key() -> bytes:
    """A new private key."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Authority:
    """Issues certificates. Its own certificate names the federation and holds for AUTHORITY_DAYS."""

    def __init__(self, key: bytes, certificate: bytes) -> None:
        """UsageError if the two can't be read, or do not belong together."""
        self._key = _private(key, "root/ca.key")
        self._certificate = _read(certificate, "root/ca.crt")
        if self._key.public_key() != self._certificate.public_key():
            raise UsageError("root/ca.key and root/ca.crt do not belong together: put both back from one backup")
        self.pem = certificate

    @staticmethod
    def certify_itself(key: bytes, federation: str, now: float) -> bytes:
        """The certificate of a new authority."""
        private = _private(key, "root/ca.key")
        name = _name(f"EdgeFL {federation}")
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = _builder(name, name, private.public_key(), now, now + AUTHORITY_DAYS * DAY_S)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        return _pem(builder.sign(private, hashes.SHA256()))

    @property
    def ends(self) -> int:
        """When its own certificate expires, and with it everything that it has issued."""
        return ends_at(self._certificate)

    def for_client(self, name: str, key: bytes, now: float, days: int) -> tuple[bytes, Issued]:
        """A client's certificate for this private key; the broker takes its holder for `name`."""
        return self.certify_client(name, _private(key, name).public_key(), now, days)

    def certify_client(
        self, name: str, public_key: CertificatePublicKeyTypes, now: float, days: int
    ) -> tuple[bytes, Issued]:
        """A client's certificate for a public key whose private key is elsewhere."""
        return self._issue(name, public_key, now, days, [])

    def for_server(self, hosts: list[str], key: bytes, now: float, days: int) -> tuple[bytes, Issued]:
        """A broker's certificate, for the names and addresses that clients reach it by."""
        return self._issue(hosts[0][:64], _private(key, "server.key").public_key(), now, days, hosts)

    def revocations(self, serials: Iterable[tuple[int, int]], number: int) -> bytes:
        """The list of revoked certificates: serial numbers, each with the time of its revocation.

        It holds from the authority's beginning to its end: a broker turns every client away while its list is expired,
        or, by a clock that is behind, not in force yet.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(self._certificate.not_valid_before_utc)
            .next_update(_date(self.ends))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        for serial, when in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_date(when)).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _issue(
        self, name: str, key: CertificatePublicKeyTypes, now: float, days: int, hosts: list[str]
    ) -> tuple[bytes, Issued]:
        until = min(now + days * DAY_S, self.ends)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = _builder(_name(name), self._certificate.subject, key, now, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(self._identifier(), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(map(_host, hosts)), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return _pem(certificate), Issued(certificate.serial_number, ends_at(certificate))

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())

    def certifies(self, certificate: bytes, key: bytes, what: str) -> bool:
        """Whether this authority has issued the certificate, and for this private key."""
        try:
            read = _read(certificate, what)
            read.verify_directly_issued_by(self._certificate)
        except (UsageError, ValueError, TypeError, InvalidSignature):
            return False
        return read.public_key() == _private(key, what).public_key()


class Issued(tuple[int, int]):
    """(serial number, Unix time at which it expires) of a certificate."""

    def __new__(cls, serial: int, ends: int) -> Issued:
        return super().__new__(cls, (serial, ends))

    @property
    def serial(self) -> int:
        return self[0]

    @property
    def ends(self) -> int:
        return self[1]


def list_number(revocations: bytes) -> int:
    """The number of a list of revoked certificates; 0 if it can't be read."""
    try:
        read = x509.load_pem_x509_crl(revocations)
        return read.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (ValueError, x509.ExtensionNotFound):
        return 0


def revocations_end(revocations: bytes, what: str) -> int:
    """When a list of revoked certificates expires; UsageError."""
    try:
        end = x509.load_pem_x509_crl(revocations).next_update_utc
    except ValueError:
        end = None
    if end is None:
        raise UsageError(f"{what} {UNREADABLE}")
    return int(end.timestamp())


def ends_at(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, now: float, until: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_date(now - EARLY_S))
        .not_valid_after(_date(until))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _date(unix_s: float) -> datetime:
    return datetime.fromtimestamp(int(unix_s), timezone.utc)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _read(certificate: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError:
        raise UsageError(f"{what} {UNREADABLE}") from None


def _private(key: bytes, what: str) -> ec.EllipticCurvePrivateKey:
    try:
        read = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        read = None
    if not isinstance(read, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{what} {UNREADABLE}")
    return read
