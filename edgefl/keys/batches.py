"""Batches: fleets that are flashed from one image. A batch's token lets a device ask to be enrolled, and no more.

    begin     make a token, and the files of the image
    claims    what devices ask for, as the aggregator has written it down
    approve   enrol such devices: the root's word goes to the aggregator, which hands it on

A batch ends at its date, and enrols at most `count` devices, whatever the token's holders ask for.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from ..errors import ProtocolError, UsageError
from ..plural import plural
from ..protocol.enrol import APPROVED, LIMIT, Approval, Ask, Ticket, is_id, printable, read, shown
from ..protocol.topics import BATCH, check_device_id
from ..trust.key_files import ROOT_PUBLIC, SIGNER_CERTIFICATE
from . import bundle
from .authority import DAY_S
from .enrolment import LONGEST, Terms
from .folder import Folder, opened
from .private import write_private
from .records import BatchRecord, Member, revoke

TOKEN_BYTES = 20


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device asks for. `shown` is its id as the device shows it. `why` it can't be enrolled; "" if it can."""

    id: str
    shown: str
    batch: str
    name: str
    state: Literal["waiting", "approved", "refused"]
    why: str = ""


class _Request(NamedTuple):
    claim: Claim
    ask: Ask


def begin(path: Path, count: int, days: int, terms: Terms, prefix: str) -> Path:
    """A new batch; returns the archive of the files that belong into the image."""
    check_device_id(prefix + "0" * 8)
    with opened(path) as folder:
        terms = terms.completed(folder.records)
        name, token = BATCH + secrets.token_hex(4), secrets.token_urlsafe(TOKEN_BYTES)
        until = int(folder.now) + days * DAY_S
        folder.records.batches[name] = BatchRecord.of(token, count, until, terms.max_examples, terms.canary)
        folder.save()
        folder.settle()
        known = folder.settings
        ticket = Ticket(known.federation, known.enrol_url, known.root, name, token, prefix)
        files = bundle.image(ticket, known, terms.source, terms.policy)
        archive = path / "batches" / f"{name}.tar"
        archive.parent.mkdir(mode=0o700, exist_ok=True)
        pinned = {ROOT_PUBLIC: folder.root_public, SIGNER_CERTIFICATE: folder.signer_certificate}
        pinned["ca.crt"] = folder.authority.pem
        write_private(archive, bundle.pack({**files, **pinned}, folder.now))
    return archive


def end(path: Path, batch: str) -> None:
    """The batch enrols no further device; its token is of no use any more."""
    with opened(path) as folder:
        known = folder.records.batches.get(batch)
        if known is None:
            raise UsageError(f"there is no batch {batch}: known are {', '.join(folder.records.batches) or 'none'}")
        folder.records.batches[batch] = msgspec.structs.replace(known, until=int(folder.now))
        folder.save()
        folder.settle()


def claims(path: Path, asked: Path) -> list[Claim]:
    """What devices ask for, in the files of the folder `asked`: the aggregator's state_dir/claims, or a copy of it."""
    with opened(path) as folder:
        return [request.claim for request in _requests(folder, asked)]


def approve(
    path: Path, asked: Path, wanted: Sequence[str], *, every: bool = False, names: Mapping[str, str] | None = None
) -> list[Claim]:
    """Enrol the devices with these ids, or names that they ask for; `every`: all that wait. `names` has other names, by
    these. UsageError, with nothing done, if one of them can't be enrolled."""
    with opened(path) as folder:
        chosen = _choose(_requests(folder, asked), wanted, every)
        chosen = [_renamed(request, names or {}) for request in chosen]
        _check(folder, chosen)
        for request in chosen:
            _enrol(folder, request)
        if chosen:
            folder.number_roster()
            folder.save()
            folder.settle()
    return [request.claim for request in chosen]


def _requests(folder: Folder, asked: Path) -> list[_Request]:
    try:
        files = sorted(asked.glob(f"{BATCH}*.json"))
        if not files and not asked.is_dir():
            raise UsageError(f"{asked} is no folder: give the aggregator's state_dir/claims, or a copy of it")
        return [found for file in files if (found := _request(folder, file)) is not None]
    except OSError as error:
        raise UsageError(f"can't read {asked}: {error.strerror}: copy it as a user who may") from None


def _request(folder: Folder, file: Path) -> _Request | None:
    """The request in a file: its first line is the batch, its second the message. None if the file has none."""
    if not file.is_file():
        return None
    with open(file, "rb") as stream:
        batch, _, payload = stream.read(2 * LIMIT).partition(b"\n")
    try:
        ask = read(Ask, payload)
    except ProtocolError:
        return None
    name, fault = printable(batch.decode(errors="replace")[:32]), _fault(folder, ask, file)
    known = folder.records.batches.get(name)
    if not fault and known is not None and _is_enrolled(folder, known, ask):
        return _Request(Claim(ask.id, shown(ask.id), name, known.approved[ask.id], "approved"), ask)
    why = fault or (_closed(folder, known, ask) if known is not None else f"there is no batch {name}")
    return _Request(Claim(ask.id, shown(ask.id), name, printable(ask.name), "refused" if why else "waiting", why), ask)


def _fault(folder: Folder, ask: Ask, file: Path) -> str:
    """What is wrong with a request itself, "" if nothing is."""
    try:
        ask.check(folder.settings.federation)
        _public_key(ask)
        if file.stem != ask.id:
            raise ProtocolError("its file has another name")
    except ProtocolError as error:
        return str(error)
    return ""


def _closed(folder: Folder, batch: BatchRecord, ask: Ask) -> str:
    """Why the batch enrols these keys no more, "" if it does: they were approved once, and then revoked or replaced by
    others, or the batch has ended."""
    name = batch.approved.get(ask.id, "")
    member = folder.records.members.get(name)
    if member is not None and member.key != ask.key:
        return f"it was {name}, whose keys are others now"
    if member is not None and member.revoked is not None:
        return f"it is {name}, and revoked"
    return "its batch has ended" if folder.now >= batch.until else ""


def _is_enrolled(folder: Folder, batch: BatchRecord, ask: Ask) -> bool:
    """Whether its approval is written, and holds; an enrolment that was interrupted waits to be repeated."""
    member = folder.records.members.get(batch.approved.get(ask.id, ""))
    if member is None or member.unfinished or member.revoked is not None or member.key != ask.key:
        return False
    return _approval(folder, ask.id).exists()


def _approval(folder: Folder, id: str) -> Path:
    return folder.path / "aggregator" / APPROVED / f"{id}.json"


def _choose(requests: list[_Request], wanted: Sequence[str], every: bool) -> list[_Request]:
    if every:
        return [request for request in requests if request.claim.state == "waiting"]
    chosen = []
    for word in wanted:
        fits = [one for one in requests if word in (one.claim.id, one.claim.shown)]
        if not fits and not is_id(word):  # else a device that asks for this name would be taken for the one with the id
            fits = [one for one in requests if word == one.claim.name]
        if not fits:
            raise UsageError(f"no device asks as {word}: `edgefl keys claims` lists those that do")
        if len(fits) > 1:
            ids = ", ".join(one.claim.shown for one in fits)
            raise UsageError(f"{len(fits)} devices ask for the name {word}: give the id of one: {ids}")
        chosen += fits
    return chosen


def _renamed(request: _Request, names: Mapping[str, str]) -> _Request:
    claim = request.claim
    name = next((names[word] for word in (claim.id, claim.shown, claim.name) if word in names), claim.name)
    return request._replace(claim=msgspec.structs.replace(claim, name=name))


def _check(folder: Folder, chosen: list[_Request]) -> None:
    seen: set[str] = set()
    for claim, _ in chosen:
        if claim.state == "refused":
            raise UsageError(f"{claim.shown} can't be enrolled: {claim.why}")
        known = folder.records.members.get(check_device_id(claim.name))
        if len(claim.name) > LONGEST:
            raise UsageError(f"name {claim.name!r} is longer than {LONGEST} characters: choose a shorter one")
        mine = claim.id in folder.records.batches[claim.batch].approved
        if claim.name in seen or (known is not None and not mine and not known.unfinished):
            raise UsageError(f"{claim.shown} asks for the name {claim.name}, which is taken: --name gives it another")
        seen.add(claim.name)
    for batch in {claim.batch for claim, _ in chosen}:
        known_batch = folder.records.batches[batch]
        ids = {claim.id for claim, _ in chosen if claim.batch == batch} | set(known_batch.approved)
        if len(ids) > known_batch.count:
            made_for = plural(known_batch.count, "device")
            raise UsageError(f"{batch} was made for {made_for}, and {len(ids)} would be enrolled")


def _enrol(folder: Folder, request: _Request) -> None:
    """Enter the device in the records, unfinished until its approval is written; a device that is approved already gets
    its approval again."""
    claim, ask = request
    path, batch = _approval(folder, claim.id), folder.records.batches[claim.batch]
    if _is_enrolled(folder, batch, ask):
        return
    member = folder.records.members.get(claim.name)
    certificate, issued = folder.authority.certify_client(
        claim.name, _public_key(ask), folder.now, folder.settings.days
    )
    old = revoke(member.certificates, folder.now) if member else []
    if old:
        folder.number_revocations()
    certificates = [*old, folder.recorded(issued)]
    member = Member("device", ask.key, certificates, batch.max_examples, batch.canary, unfinished=True)
    folder.records.members[claim.name] = member
    batch.approved[claim.id] = claim.name
    folder.save()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(path, Approval(claim.id, claim.name, certificate.decode()).seal(folder.root))
    member.unfinished = False
    folder.save()


def _public_key(ask: Ask) -> ec.EllipticCurvePublicKey:
    """The key that asks for a certificate; ProtocolError unless it is on P-256, and has signed the request."""
    try:
        request = x509.load_pem_x509_csr(ask.csr.encode())
        key = request.public_key()
        good = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        if not good or not request.is_signature_valid:
            raise ProtocolError("its request is not signed by a P-256 key")
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise ProtocolError("its request for a certificate can't be read") from None
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key
