"""The records of a federation's keys: what was issued, to whom, and until when. One file, which is replaced whole.

What is not in the records was never handed out, and all other files but private keys follow from them. So an
interrupted command leaves the folder as it was before, or a name that is marked `unfinished`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct, field

from ..errors import UsageError
from ..trust.certificate import SignerCertificate
from ..trust.helper_certificate import HelperCertificate

ROUNDS = 101  # of the token's hash: the token has 160 random bits
Role = Literal["device", "viewer", "helper"]


class Certificate(Struct, frozen=True, omit_defaults=True):
    """A TLS certificate: its serial number in hex, and the Unix time at which it expires."""

    serial: str
    ends: int
    revoked: int | None = None  # when

    @property
    def number(self) -> int:
        return int(self.serial, 16)


class Member(Struct, omit_defaults=True):
    """A name that was enrolled. Its certificates are all that were made for it, the newest last. `helper`: what the
    root says of a helper's keys; `operator`: who runs it, "" if nobody has said."""

    role: Role = "device"
    key: str = ""  # of a device: its public signing key, in base64
    certificates: list[Certificate] = field(default_factory=list)
    max_examples: int | None = None
    canary: bool = False
    revoked: int | None = None
    helper: HelperCertificate | None = None
    operator: str = ""
    unfinished: bool = False  # its bundle may not be whole: the command that made it was interrupted


class BatchRecord(Struct, frozen=True, omit_defaults=True):
    """A batch of devices from one image. `password` is what the broker keeps of its token. `approved`: the names of the
    devices that it has enrolled, by id."""

    password: str
    count: int
    until: int
    max_examples: int | None = None
    canary: bool = False
    approved: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, token: str, count: int, until: int, max_examples: int | None, canary: bool) -> BatchRecord:
        """A new batch with this token."""
        return cls(hashed(token), count, until, max_examples, canary)


def hashed(password: str) -> str:
    """A password as mosquitto_passwd writes it: PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


class Records(Struct):
    """All of it. `roster` and `revocations` number the newest documents of these names."""

    members: dict[str, Member] = field(default_factory=dict)
    aggregator: list[Certificate] = field(default_factory=list)
    broker: list[Certificate] = field(default_factory=list)
    signer: SignerCertificate | None = None
    roster: int = 1
    revocations: int = 1
    batches: dict[str, BatchRecord] = field(default_factory=dict)

    def of_role(self, role: Role) -> list[str]:
        """The names in this role that are neither revoked nor unfinished."""
        return [name for name, one in self.enrolled() if one.role == role and one.revoked is None]

    def enrolled(self) -> Iterator[tuple[str, Member]]:
        """All names with a whole bundle, the revoked ones too."""
        return ((name, one) for name, one in self.members.items() if not one.unfinished)

    @property
    def revoked_names(self) -> list[str]:
        """The names that the broker lets nobody use; a name that is enrolled anew, as long as that is unfinished."""
        return [name for name, one in self.members.items() if one.revoked is not None or one.unfinished]

    def revoked_certificates(self, now: float) -> list[tuple[int, int]]:
        """Serial number and time of each revocation that still matters: an expired certificate is refused anyway."""
        mine = [one for member in self.members.values() for one in member.certificates]
        every = [*mine, *self.aggregator, *self.broker]
        return [(one.number, one.revoked) for one in every if one.revoked is not None and one.ends > now]


def encode(records: Records) -> bytes:
    return msgspec.json.format(msgspec.json.encode(records), indent=1) + b"\n"


def decode(data: bytes, what: str) -> Records:
    """The records in the file `what`; UsageError."""
    try:
        return msgspec.json.decode(data, type=Records)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} can't be read ({error}): put a copy of it back from your backup") from None


def revoke(certificates: list[Certificate], now: float) -> list[Certificate]:
    """The same, each revoked now unless it was before."""
    when = int(now)
    return [one if one.revoked is not None else msgspec.structs.replace(one, revoked=when) for one in certificates]
