"""What an operator does with a federation's keys: begin, add, revoke, renew, begin the next epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UsageError, nearest
from ..masking.sealed import new_box_key
from ..protocol.topics import HELPER, VIEWER, check_device_id, check_helper
from ..trust import ed25519
from ..trust.ed25519 import SigningKey
from ..trust.helper_certificate import HelperCertificate
from ..trust.key_files import (
    BOX_KEY,
    HELPER_CERTIFICATE,
    ROOT_PUBLIC,
    ROSTER,
    SIGNER_CERTIFICATE,
    SIGNER_KEY,
    SIGNING_KEY,
)
from . import bundle
from .authority import new_key
from .federation import Federation
from .folder import BUNDLES, Folder, created, opened
from .masked_policy import policy_of
from .private import key_line, write_private
from .records import Member, Records, Role, revoke

PREFIXES: dict[Role, str] = {"device": "", "viewer": VIEWER, "helper": HELPER}
LONGEST = 64  # characters of a certificate's common name, and of an operator's
DATA = "csv:/var/lib/edgefl/data.csv?target=label"  # what a device's agent.toml names, if nothing else is said


class Terms(NamedTuple):
    """What devices are enrolled with."""

    source: str = DATA  # "{name}" stands for the device
    policy: Mapping[str, Any] | None = None  # [policy] of agent.toml, over what the helpers ask for (masked_policy.py)
    max_examples: int | None = None
    canary: bool = False
    operator: str = ""  # of a helper: who runs it

    def completed(self, records: Records) -> Terms:
        """The same, with what a federation that has helpers asks of its devices' policy; UsageError."""
        return self._replace(policy=policy_of(records, self.policy or {}, canary=self.canary) or None)


USUAL = Terms()


def init(path: Path, settings: Federation) -> None:
    """Make a federation's folder: the root, the authority, and the aggregator's and the broker's keys."""
    with created(path, settings) as folder:
        write_private(path / "aggregator" / "aggregator.key", new_key())
        write_private(path / "aggregator" / SIGNER_KEY, key_line(ed25519.new_seed()))
        write_private(path / "broker" / "server.key", new_key())
        write_private(path / "aggregator" / "aggregator.toml", bundle.aggregator_toml(settings))
        folder.settle()


def add(path: Path, names: Sequence[str], terms: Terms = USUAL, role: Role = "device") -> list[Path]:
    """Enrol these names, and write a bundle for each; returns the bundles.

    A name whose enrolment was interrupted, or that is revoked, is enrolled anew. A helper that is enrolled gets its
    operator, if one is said, and keeps its keys: it has no bundle. UsageError, with nothing done, if one of the names
    can't be enrolled.
    """
    names = [PREFIXES[role] + name for name in names]
    with opened(path) as folder:
        if len(terms.operator) > LONGEST:
            raise UsageError(f"the operator's name is longer than {LONGEST} characters: choose a shorter one")
        known = [name for name in names if terms.operator and _is_enrolled(folder, name)]  # helpers: others have none
        names = [name for name in names if name not in known]
        _check(names, role, folder)
        for name in known:
            folder.records.members[name].operator = terms.operator
        if not names:
            folder.save()
            return []
        if role == "device":
            terms = terms.completed(folder.records)
        made = {name: _enrol(folder, name, terms, role) for name in names}
        folder.save()
        paths = [folder.path / BUNDLES[role] / f"{name}.tar" for name in names]
        for bundle_path, data in zip(paths, made.values(), strict=True):
            write_private(bundle_path, data)
        for name in names:
            folder.records.members[name].unfinished = False
        folder.number_roster()
        folder.save()
        folder.settle()
    return paths


def terms_here(path: Path, terms: Terms) -> Terms:
    """What devices are enrolled with in this folder."""
    with opened(path) as folder:
        return terms.completed(folder.records)


def numbered(prefix: str, count: int, first: int = 1) -> list[str]:
    """Names of a fleet: the prefix and numbers of equal length, from `first` on."""
    last = first + count - 1
    return [f"{prefix}{number:0{len(str(last))}}" for number in range(first, last + 1)]


def _is_enrolled(folder: Folder, name: str) -> bool:
    known = folder.records.members.get(name)
    return known is not None and known.revoked is None and not known.unfinished


def _check(names: Sequence[str], role: Role, folder: Folder) -> None:
    seen: set[str] = set()
    for name in names:
        (check_helper if role == "helper" else check_device_id)(name[len(PREFIXES[role]) :])
        if len(name) > LONGEST:
            raise UsageError(f"name {name!r} is longer than {LONGEST} characters: choose a shorter one")
        if name in seen:
            raise UsageError(f"{name} is named twice: name it once")
        if _is_enrolled(folder, name):
            also = "; --operator says who runs it" if role == "helper" else ""
            raise UsageError(
                f"{name} is enrolled already: `renew` gives it a new certificate; `revoke` and `add` give it all anew"
                f"{also}"
            )
        seen.add(name)


def _enrol(folder: Folder, name: str, terms: Terms, role: Role) -> bytes:
    """Enter the name in the records, unfinished; returns its bundle."""
    files, certificate = _certified(folder, name, role)
    former = folder.records.members.get(name)
    old = revoke(former.certificates, folder.now) if former else []
    if old:
        folder.number_revocations()
    key, helper = "", None
    if role == "device":
        seed = ed25519.new_seed()
        key = ed25519.to_text(SigningKey(seed).public)
        source = terms.source.replace("{name}", name)
        files[SIGNING_KEY] = key_line(seed)
        files["agent.toml"] = bundle.agent_toml(folder.settings, name, source, terms.policy)
    elif role == "viewer":
        files["viewer.toml"] = bundle.viewer_toml(folder.settings)
    else:
        keys, helper = _helper_keys(folder, name)
        files |= {"helper.toml": bundle.helper_toml(folder.settings, helper.name), **keys}
    folder.records.members[name] = Member(
        role, key, [*old, certificate], terms.max_examples, terms.canary, helper=helper, unfinished=True,
        operator=terms.operator or (former.operator if former else ""),
    )  # fmt: skip
    return bundle.pack(files, folder.now)


def _helper_keys(folder: Folder, name: str) -> tuple[dict[str, bytes], HelperCertificate]:
    """New keys of a helper for its next epoch, with the roster; the certificate is the last file, since a helper that
    runs reads all again when it sees a new one."""
    box, signing = ed25519.new_seed(), ed25519.new_seed()
    certificate = folder.certify_helper(name, new_box_key(box)[0], SigningKey(signing).public)
    files = {
        ROSTER: folder.roster, BOX_KEY: key_line(box), SIGNING_KEY: key_line(signing),
        HELPER_CERTIFICATE: certificate.seal(folder.root),
    }  # fmt: skip
    return files, certificate


def _certified(folder: Folder, name: str, role: Role) -> tuple[dict[str, bytes], Any]:
    """New TLS files for a name, and whom a device pins; the record of its certificate."""
    key = new_key()
    certificate, issued = folder.authority.for_client(name, key, folder.now, folder.settings.days)
    tls = {"ca.crt": folder.authority.pem, f"{role}.crt": certificate, f"{role}.key": key}
    pinned = {ROOT_PUBLIC: folder.root_public}
    if role == "device":
        pinned[SIGNER_CERTIFICATE] = folder.signer_certificate
    return {**tls, **pinned}, folder.recorded(issued)


def revoke_names(path: Path, names: Sequence[str]) -> None:
    """Revoke these names: at the broker, in its list of certificates, and in the aggregator's roster."""
    with opened(path) as folder:
        for name in names:
            one = _known(folder, name)
            if one.revoked is None:
                one.revoked = int(folder.now)
                one.certificates = revoke(one.certificates, folder.now)
        folder.number_roster()
        folder.number_revocations()
        folder.save()
        folder.settle()


def renew(path: Path, names: Sequence[str]) -> list[Path]:
    """New certificates for these names, in bundles that are unpacked over the old ones; signing keys stay."""
    paths = []
    with opened(path) as folder:
        members = {name: _known(folder, name) for name in names}
        for name, one in members.items():
            if one.revoked is not None or one.unfinished:
                raise UsageError(f"{name} is {'revoked' if one.revoked else 'not enrolled'}: `add` enrols it anew")
        for name, one in members.items():
            files, certificate = _certified(folder, name, one.role)
            one.certificates = [*(old for old in one.certificates if old.ends > folder.now), certificate]
            folder.save()
            paths.append(folder.path / BUNDLES[one.role] / f"{name}.tar")
            write_private(paths[-1], bundle.pack(files, folder.now))
    return paths


def renew_aggregator(path: Path) -> None:
    """A new TLS key and certificate for the aggregator. Those before it are revoked: a thief of one could read all
    updates, and take the aggregator's connection."""
    with opened(path) as folder:
        write_private(path / "aggregator" / "aggregator.key", new_key())
        folder.settle()
        *old, new = folder.records.aggregator
        folder.records.aggregator = [*revoke(old, folder.now), new]
        folder.number_revocations()
        folder.save()
        folder.settle()


def renew_broker(path: Path) -> None:
    """A new TLS key and certificate for the broker, with the names that federation.toml has now."""
    with opened(path) as folder:
        write_private(path / "broker" / "server.key", new_key())
        folder.settle()


def renew_signer(path: Path) -> None:
    """A new signing key for the aggregator, certified by the root for the same epoch."""
    with opened(path) as folder:
        write_private(path / "aggregator" / SIGNER_KEY, key_line(ed25519.new_seed()))
        folder.settle()


def renew_revocations(path: Path) -> None:
    """The list of revoked certificates anew."""
    with opened(path) as folder:
        folder.number_revocations()
        folder.save()
        folder.settle()


def next_epoch(path: Path) -> int:
    """Certify the signing key for the next epoch; returns its number."""
    with opened(path) as folder:
        last = folder.records.signer
        assert last is not None, "settled"
        folder.certify_signer(last.public, epoch=last.epoch + 1)
        folder.save()
        folder.settle()
        return last.epoch + 1


def next_helper_epoch(path: Path, names: Sequence[str]) -> list[Path]:
    """New keys for these helpers, each in a bundle that is unpacked over the old files. What was sealed to the old ones
    can't be opened any more once those are gone."""
    paths = []
    with opened(path) as folder:
        members = {name: _known(folder, name) for name in names}
        for name, one in members.items():
            if one.role != "helper" or one.revoked is not None or one.unfinished:
                raise UsageError(f"{name} is no helper that is enrolled: `add --helper` enrols one")
        for name, one in members.items():
            files, certificate = _helper_keys(folder, name)
            paths.append(folder.path / BUNDLES["helper"] / f"{name}.tar")
            write_private(paths[-1], bundle.pack(files, folder.now))  # first: nobody is told of keys that may be lost
            one.helper = certificate
            folder.save()
        folder.settle()
    return paths


def _known(folder: Folder, name: str) -> Member:
    found = folder.records.members.get(name)
    if found is None:
        raise UsageError(f"{name} is not enrolled here: {nearest(name, folder.records.members)}")
    return found
