"""The operator's folder of one federation's keys, which stays off line.

    federation.toml    name, broker, root topic: what the operator says. It is written last: with it the folder is whole
    records.json       what was issued (records.py)
    root/              root.key, ca.key, ca.crt: nothing replaces them
    aggregator/        for the aggregator's machine: aggregator.toml ca.crt aggregator.crt aggregator.key root.pub
                       signer.key signer.json roster.json
    broker/            for the broker's machine: mosquitto.conf acl denied ca.crt server.crt server.key crl.pem
                       for each helper helper-NAME.json
    devices/ viewers/ helpers/    NAME.tar, a bundle for each
    batches/           batch-ID.tar, for the image of a fleet (batches.py). Then aggregator/ has batches.json and
                       approved/, and broker/ has batches and enrol.conf

`settle` makes every file that follows from the records and from the private keys. Each command ends with it, and each
begins with it, since the one before may have been interrupted. A new key is written first; `settle` sees that its
certificate is another key's, and issues one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..atomic import remove_partials
from ..errors import UsageError
from ..protocol.enrol import APPROVED, BATCHES, Batch
from ..protocol.topics import AGGREGATOR_USER, HELPER
from ..settings import files
from ..settings.render import render
from ..trust import ed25519
from ..trust.certificate import SignerCertificate
from ..trust.ed25519 import SigningKey
from ..trust.helper_certificate import HelperCertificate
from ..trust.key_files import ROOT_PUBLIC, ROSTER, SIGNER_CERTIFICATE, SIGNER_KEY, helper_file
from ..trust.roster import Member, Roster
from . import broker_files, records
from .authority import DAY_S, EARLY_S, Authority, Issued, list_number, new_key
from .federation import Federation
from .private import LOCK, key_line, locked, read, read_private, read_seed, write_private
from .records import Certificate, Records, Role

BUNDLES: dict[Role, str] = {"device": "devices", "viewer": "viewers", "helper": "helpers"}
FOLDERS = ("root", "aggregator", "broker", *BUNDLES.values())
SETTINGS, RECORDS = "federation.toml", "records.json"


class Folder:
    """An open folder. `records` may be changed; `save` makes that durable, and `settle` what follows from it."""

    def __init__(self, path: Path, settings: Federation, now: float) -> None:
        self.path, self.settings, self.now = path, settings, now
        root = path / "root"
        self.root = SigningKey(read_seed(root / "root.key"))
        self.authority = Authority(read_private(root / "ca.key"), read(root / "ca.crt"))
        self.records = records.decode(read(path / RECORDS), f"{path / RECORDS}")

    def save(self) -> None:
        write_private(self.path / RECORDS, records.encode(self.records))

    def number_roster(self) -> None:
        """The roster has changed."""
        self.records.roster = self._number(self.records.roster)

    def number_revocations(self) -> None:
        """A certificate was revoked."""
        self.records.revocations = self._number(self.records.revocations)

    def _number(self, last: int) -> int:
        """The number of the next document of a kind: the Unix time, so that a folder which was restored from a backup
        does not fall behind what machines have seen."""
        return max(last + 1, int(self.now))

    def settle(self) -> None:
        """Write what is missing or differs; a private key is neither made nor replaced here."""
        self._certify_signer()
        self._certify("aggregator", "aggregator", self._for_aggregator, self.records.aggregator)
        self._certify("broker", "server", self._for_broker, self.records.broker)
        folder = self.path / "aggregator"
        self._put(folder / SIGNER_CERTIFICATE, self.signer_certificate)
        self._put(folder / ROSTER, self.roster)
        self._put(folder / ROOT_PUBLIC, self.root_public)
        self._settle_helpers(folder)
        open_batches = {
            name: Batch(one.count, one.until) for name, one in self.records.batches.items() if self.now < one.until
        }
        if self.records.batches:
            self._put(folder / BATCHES, msgspec.json.encode(open_batches))
        for one in ("aggregator", "broker"):
            self._put(self.path / one / "ca.crt", self.authority.pem)
        self._settle_broker()

    def _settle_helpers(self, folder: Path) -> None:
        """What the root says of each helper that may still be asked."""
        for name, one in self.records.enrolled():
            path = folder / helper_file(name.removeprefix(HELPER))
            if one.helper is not None and one.revoked is None:
                self._put(path, one.helper.seal(self.root))
            elif one.role == "helper":
                path.unlink(missing_ok=True)

    def _settle_broker(self) -> None:
        folder, known = self.path / "broker", self.records
        revocations = folder / "crl.pem"
        if not revocations.exists() or list_number(read(revocations)) != known.revocations:
            revoked = known.revoked_certificates(self.now)
            write_private(revocations, self.authority.revocations(revoked, known.revocations))
        broker_files.write(
            folder, federation=self.settings.federation, root=self.settings.root, revoked=known.revoked_names,
            viewers=known.of_role("viewer"), helpers=known.of_role("helper"), port=self.settings.port,
            home=self.settings.home, guard=self.settings.guard,
            batches={name: one.password for name, one in known.batches.items() if self.now < one.until},
            enrol_port=self.settings.enrol_port if known.batches else None,
        )  # fmt: skip

    def _put(self, path: Path, data: bytes) -> None:
        if not path.exists() or read(path) != data:
            write_private(path, data)

    @property
    def root_public(self) -> bytes:
        """The file root.pub."""
        return key_line(self.root.public)

    @property
    def roster(self) -> bytes:
        """The file roster.json."""
        return self._roster().seal(self.root)

    @property
    def signer_certificate(self) -> bytes:
        """The file signer.json."""
        assert self.records.signer is not None
        return self.records.signer.seal(self.root)

    def _certify_signer(self) -> None:
        """The root certifies the key in signer.key if that is a new one."""
        path, last = self.path / "aggregator" / SIGNER_KEY, self.records.signer
        if last is not None and not path.exists():
            return  # the operator keeps it on the aggregator's machine only
        public = SigningKey(read_seed(path)).public
        if last is None or last.public != public:
            self.certify_signer(public, epoch=last.epoch if last else 1)
            self.save()

    def certify_helper(self, name: str, box: bytes, key: bytes) -> HelperCertificate:
        """The root's word on the keys of this helper's next epoch; the caller records it. `name` is its user name."""
        former = self.records.members.get(name)
        last = former.helper if former else None
        until = min(int(self.now) + self.settings.days * DAY_S, self.authority.ends)
        return HelperCertificate.of(
            name.removeprefix(HELPER), box, key, federation=self.settings.federation,
            serial=self._number(last.serial if last else 0), epoch=last.epoch + 1 if last else 1,
            not_before=int(self.now) - EARLY_S, not_after=until,
        )  # fmt: skip

    def certify_signer(self, public: bytes, *, epoch: int) -> None:
        """Certify this signing key in place of the last one; `save` and `settle` must follow."""
        last = self.records.signer
        until = min(int(self.now) + self.settings.days * DAY_S, self.authority.ends)
        self.records.signer = SignerCertificate.of(
            public, federation=self.settings.federation, serial=self._number(last.serial if last else 0), epoch=epoch,
            not_before=int(self.now) - EARLY_S, not_after=until,
        )  # fmt: skip

    def _certify(
        self, folder: str, name: str, issue: Callable[[bytes], tuple[bytes, Issued]], known: list[Certificate]
    ) -> None:
        """Issue a certificate for the key NAME.key in `folder` if the one beside it is another key's."""
        key_path, path = (self.path / folder / f"{name}.{ending}" for ending in ("key", "crt"))
        if not key_path.exists():
            return  # the operator keeps it on the machine that needs it only
        key = read_private(key_path)
        if path.exists() and self.authority.certifies(read(path), key, str(key_path)):
            return
        certificate, issued = issue(key)
        known.append(self.recorded(issued))
        self.save()
        write_private(path, certificate)

    def _for_aggregator(self, key: bytes) -> tuple[bytes, Issued]:
        return self.authority.for_client(AGGREGATOR_USER, key, self.now, self.settings.days)

    def _for_broker(self, key: bytes) -> tuple[bytes, Issued]:
        hosts = [self.settings.broker, *self.settings.also]
        return self.authority.for_server(hosts, key, self.now, self.settings.days)

    def _roster(self) -> Roster:
        devices = {
            name: Member(one.key, one.max_examples, one.canary, one.revoked is not None)
            for name, one in self.records.enrolled()
            if one.role == "device"
        }
        return Roster(self.settings.federation, self.records.roster, devices)

    @staticmethod
    def recorded(issued: Issued) -> Certificate:
        return Certificate(f"{issued.serial:x}", issued.ends)


@contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """The folder of a federation, locked for one command and settled; UsageError if it is none."""
    if not (path / SETTINGS).exists():
        raise UsageError(f"{path} has no {SETTINGS}: give the folder that `edgefl keys init` has made")
    with locked(path):
        for inner in (path, *(path / name for name in (*FOLDERS, "batches", f"aggregator/{APPROVED}"))):
            remove_partials(inner)
        folder = Folder(path, files.load(path / SETTINGS, Federation), time.time())
        folder.settle()
        yield folder


@contextmanager
def created(path: Path, settings: Federation) -> Iterator[Folder]:
    """A new folder for this federation; it is whole when the block has ended. An interrupted one is gone on with."""
    if (path / SETTINGS).exists():
        raise UsageError(f"{path} holds the keys of a federation: choose another folder")
    _make_folders(path)
    with locked(path):
        _begin_again(path)
        now, root = time.time(), path / "root"
        _make(root / "root.key", lambda: key_line(ed25519.new_seed()))
        _make(root / "ca.key", new_key)
        key = read_private(root / "ca.key")
        write_private(root / "ca.crt", Authority.certify_itself(key, settings.federation, now))
        write_private(path / RECORDS, records.encode(Records()))
        folder = Folder(path, settings, now)
        yield folder
        write_private(path / SETTINGS, render(settings).encode())


def _make_folders(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        known = {*FOLDERS, RECORDS, LOCK}
        strangers = sorted(one.name for one in path.iterdir() if one.name not in known and one.name[0] != ".")
        if strangers:
            raise UsageError(f"{path} holds other files, such as {strangers[0]}: choose a new folder")
        for name in FOLDERS:
            (path / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make {path}: {error.strerror}: choose another folder") from None


def _begin_again(path: Path) -> None:
    """Remove what an interrupted `init` has left, but for the root's keys."""
    if (path / RECORDS).exists() and records.decode(read(path / RECORDS), f"{path / RECORDS}").members:
        raise UsageError(f"{path} has lost its {SETTINGS}: put a copy of it back from your backup")
    remove_partials(path / "root")
    for folder in (path / "aggregator", path / "broker"):
        for file in folder.iterdir():
            file.unlink()


def _make(path: Path, new: Callable[[], bytes]) -> None:
    if not path.exists():
        write_private(path, new())
