"""Who is enrolled, and what expires soon."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from msgspec import Struct

from ..protocol.topics import HELPER
from .authority import DAY_S, revocations_end
from .folder import Folder, opened
from .masked_policy import uncounted
from .private import read
from .records import Certificate, Member

SOON_DAYS = 60


class Row(Struct, frozen=True, omit_defaults=True):
    """A name. `ends` is when its newest certificate expires, in Unix time."""

    name: str
    role: str
    state: str  # enrolled, revoked, unfinished
    ends: int
    max_examples: int | None = None
    canary: bool = False
    operator: str = ""


class Report(Struct, frozen=True):
    """`ends` has what the whole federation needs: authority, revocations, signer, aggregator, broker."""

    federation: str
    broker: str
    epoch: int
    signer: int
    roster: int
    ends: dict[str, int]
    members: list[Row]
    warnings: list[str]


RENEWALS = {
    "revocations": "edgefl keys renew DIR --crl",
    "signer": "edgefl keys renew DIR --signer",
    "aggregator": "edgefl keys renew DIR --aggregator",
    "broker": "edgefl keys renew DIR --broker",
}
NAMES = {"revocations": "the list of revoked certificates, which locks every client out when it expires,"}


def report(path: Path) -> Report:
    """Of the folder at `path`; UsageError."""
    with opened(path) as folder:
        known, signer = folder.records, folder.records.signer
        assert signer is not None, "settled"
        ends = {
            "authority": folder.authority.ends,
            "revocations": revocations_end(read(path / "broker" / "crl.pem"), "crl.pem"),
            "signer": signer.not_after,
            "aggregator": _newest(known.aggregator),
            "broker": _newest(known.broker),
        }
        rows = [_row(name, one) for name, one in sorted(known.members.items())]
        settings = folder.settings
        return Report(
            settings.federation, settings.url, signer.epoch, signer.serial, known.roster, ends, rows,
            [*_shared(folder, ends), *_members(folder, rows)],
        )  # fmt: skip


def date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).strftime("%Y-%m-%d")


def _shared(folder: Folder, ends: dict[str, int]) -> list[str]:
    out = []
    for what, end in ends.items():
        renewal = RENEWALS.get(what, "begin a new folder, and enrol every device anew")
        if word := _soon(end, folder.now):
            out.append(f"{NAMES.get(what, f'the certificate of the {what}')} {word}: {renewal}")
    return out


def _members(folder: Folder, rows: list[Row]) -> list[str]:
    out = [
        f"{row.name}: its certificate {word}: edgefl keys renew DIR {row.name}"
        for row in rows
        if row.state == "enrolled" and (word := _soon(row.ends, folder.now))
    ]
    for name in folder.records.of_role("helper"):
        one = folder.records.members[name].helper
        if one is not None and (word := _soon(one.not_after, folder.now)):
            out.append(f"{name}: the certificate of its keys {word}: edgefl keys epoch DIR {name}")
    out += [
        f"{name}: nobody has said who runs it, so devices that are enrolled now don't count it for least_helpers: "
        f"edgefl keys add DIR {name.removeprefix(HELPER)} --helper --operator WHO"
        for name in uncounted(folder.records)
    ]
    unfinished = [row.name for row in rows if row.state == "unfinished"]
    return out + [f"{name}: its enrolment was interrupted: edgefl keys add DIR {name}" for name in unfinished]


def _soon(end: int, now: float) -> str:
    if end < now:
        return f"expired on {date(end)}"
    return f"expires on {date(end)}" if end < now + SOON_DAYS * DAY_S else ""


def _row(name: str, one: Member) -> Row:
    state = "unfinished" if one.unfinished else "enrolled" if one.revoked is None else "revoked"
    return Row(name, one.role, state, _newest(one.certificates), one.max_examples, one.canary, one.operator)


def _newest(certificates: list[Certificate]) -> int:
    return max((one.ends for one in certificates), default=0)
