"""A federation's folder of keys, and readers of what is in it."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from cryptography import x509

from edgefl.keys.folder import Federation
from edgefl.trust.certificate import SignerCertificate
from edgefl.trust.key_files import read_public
from edgefl.trust.roster import Roster

SETTINGS = Federation(federation="f", broker="broker.example.org")
DAY_S = 86400


def unpack(bundle: Path, to: Path) -> Path:
    with tarfile.open(bundle) as tar:
        tar.extractall(to, filter="data")
    return to


def roster(keys: Path) -> Roster:
    root = read_public(keys / "aggregator" / "root.pub")
    return Roster.open((keys / "aggregator" / "roster.json").read_bytes(), root, "f")


def signer(keys: Path) -> SignerCertificate:
    root = read_public(keys / "aggregator" / "root.pub")
    return SignerCertificate.open((keys / "aggregator" / "signer.json").read_bytes(), root, "f")


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def name_of(read: x509.Certificate) -> str:
    return read.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value


def revoked_serials(keys: Path) -> set[int]:
    return {entry.serial_number for entry in x509.load_pem_x509_crl((keys / "broker" / "crl.pem").read_bytes())}


def openssl_accepts(keys: Path, path: Path, purpose: str) -> bool:
    words = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-crl_check"]
    files = ["-CAfile", str(keys / "root" / "ca.crt"), "-CRLfile", str(keys / "broker" / "crl.pem"), str(path)]
    return subprocess.run([*words, *files], capture_output=True).returncode == 0
