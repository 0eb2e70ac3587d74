"""Picture: what the messages of a federation say together, each verified where keys are on. No I/O."""

from __future__ import annotations

from pathlib import Path

from ..errors import ProtocolError
from ..protocol.fleet import DeviceRow, FleetPage, Summary, decode_page, decode_summary
from ..protocol.messages import Claim, decode
from ..protocol.topics import Topics
from ..trust.certificate import SignerCertificate, purpose_of
from ..trust.key_files import ROOT_PUBLIC, read_public
from ..trust.seal import is_sealed, read_seal

STALE = 2.5  # times `every` without a summary: its aggregator is gone
SKEW_S = 30.0  # by which the clocks of aggregator and viewer may differ


def read_root(folder: str | None) -> bytes | None:
    """The root's public key in the folder of [keys]; None where keys are off. UsageError."""
    return None if folder is None else read_public(Path(folder) / ROOT_PUBLIC)


class Picture:
    """`root`: the root's public key; None: nothing is verified. `wants_rows`: pages matter too. `why_not` says why a
    message was dropped, newest last; `changed` counts what has changed."""

    def __init__(self, federation: str, topics: Topics, root: bytes | None, *, wants_rows: bool = True) -> None:
        self.summary: Summary | None = None
        self.claim: Claim | None = None
        self.sealed = self.has_manifest = False
        self.why_not = ""
        self.changed = 0
        self._wants_rows = wants_rows
        self._federation, self._topics, self._root = federation, topics, root
        self._certificate: SignerCertificate | None = None
        self._pages: dict[int, FleetPage] = {}
        self._cleared: set[int] = set()

    @property
    def verified(self) -> bool:
        """Whether the root has vouched for what is shown."""
        return self._root is not None

    @property
    def complete(self) -> bool:
        """Whether all is there that the summary speaks of."""
        summary = self.summary
        return summary is not None and (not self._wants_rows or self._has(summary.pages))

    def _has(self, pages: int) -> bool:
        return all(number in self._pages or number in self._cleared for number in range(pages))

    @property
    def devices(self) -> list[DeviceRow]:
        """All devices, by name. Of a device that has moved to another page the newer row counts."""
        newest: dict[str, tuple[int, DeviceRow]] = {}
        for page in self._pages.values():
            for row in page.devices:
                if row.id not in newest or newest[row.id][0] < page.at:
                    newest[row.id] = page.at, row
        if self.summary is not None:  # which is newer than most pages
            newest |= {row.id: (0, row) for row in self.summary.troubled}
        return [row for _, (_, row) in sorted(newest.items())]

    @property
    def rows_at(self) -> int:
        """When the oldest page was written; 0 without one."""
        return min((page.at for page in self._pages.values()), default=0)

    def is_stale(self, unix_s: float) -> bool:
        """Whether the aggregator should have been heard since. One that is done or was stopped says nothing more."""
        summary = self.summary
        if summary is None or not summary.at or summary.phase in ("done", "stopped"):
            return False
        return unix_s - summary.at > STALE * summary.every + SKEW_S

    def hear(self, topic: str, payload: bytes) -> None:
        """A message has come. What can't be believed is dropped, and `why_not` says so."""
        try:
            self._hear(topic, payload)
        except ProtocolError as error:
            self.why_not = f"{topic}: {str(error).removesuffix(': dropped')}"

    def _hear(self, topic: str, payload: bytes) -> None:
        page = self._topics.page_of(topic)
        if topic == self._topics.summary and payload:
            self.summary = decode_summary(self._opened(topic, payload))
        elif page is not None and payload:
            self._pages[page] = decode_page(self._opened(topic, payload))
        elif page is not None:
            self._pages.pop(page, None)
            self._cleared.add(page)
        elif topic == self._topics.aggregator and payload:
            self.claim = decode(Claim, payload.partition(b"\n")[0])  # what it proves is only that somebody is there
        elif topic == self._topics.manifest:
            self.has_manifest = bool(payload)
        self.changed += 1

    def _opened(self, topic: str, payload: bytes) -> bytes:
        """The message without its seal."""
        if self._root is None:
            self.sealed = self.sealed or is_sealed(payload)
            return payload.partition(b"\n")[0]
        sealed = read_seal(payload)
        if sealed.certificate:
            found = SignerCertificate.open(sealed.certificate, self._root, self._federation)
            if self._certificate is not None and found.serial < self._certificate.serial:
                raise ProtocolError("signed by a key that was replaced: dropped")
            self._certificate = found
        signer = self._certificate
        if signer is None or not sealed.is_signed(purpose_of(topic, signer.epoch), signer.public):
            raise ProtocolError("not signed by this federation's aggregator: dropped")
        return sealed.payload
