"""What a device has agreed to (Terms), and what it is doing for a round (Work). Part of DeviceSession; no I/O."""

from __future__ import annotations

from msgspec import Struct

from ..errors import ModelError, UsageError
from ..protocol.envelope import MAX_PARTS, Kind, federation_hash
from ..protocol.manifest import Manifest
from ..protocol.parts import Splitter, fitting_part_bytes
from ..protocol.round import Round
from .events import Action, CancelTraining, Outbox, TrainJob
from .model.fetch import ModelFetch
from .report.saved_update import SavedUpdate
from .report.update_report import UpdateReport


class Terms:
    """The manifest that the device accepts, the `codec` of its updates and `hash`, the 32 bits in every envelope.

    Raises ModelError for a model above `max_model_bytes`, UsageError for a codec or a local rule that is not
    installed here, and for side vectors in updates that the rule does not send.
    """

    def __init__(self, manifest: Manifest, max_model_bytes: int) -> None:
        size = 4 * manifest.whole_size
        if size > max_model_bytes:
            raise ModelError(
                f"its model takes {size} bytes, {max_model_bytes} are allowed here: "
                "raise [limits] max_model_mb if this device can take it"
            )
        self.manifest = manifest
        manifest.check_codecs()
        if (base := manifest.base) is not None:
            longest = manifest.base_codec.bound(manifest.moving.num_personal)
            if not base.sha256 or not 0 < base.size <= longest:
                raise ModelError(
                    f"its frozen params are not as long as it says ({base.size} bytes), or have no SHA-256"
                )
        rule = None
        if manifest.local is not None:
            from . import local

            rule = local.get(manifest.local)
        sent = () if rule is None else rule.sent_sides
        if tuple(manifest.sent_sides) != sent:
            raise UsageError(f"its updates have side vectors {manifest.sent_sides}, its local rule sends {list(sent)}")
        self.codec = manifest.update_codec
        self.hash = federation_hash(manifest.federation, manifest.run, manifest.plan.hash)

    def split(self, update: Outbox, max_packet_bytes: int | None, longest: int) -> Splitter:
        """The parts of an update, each in a packet that the broker accepts; `longest` suits the link."""
        fewest = -(-len(update.blob) // MAX_PARTS)
        wanted = min(self.manifest.part_bytes, max(longest, fewest))
        part_bytes = fitting_part_bytes(wanted, len(update.blob), max_packet_bytes)
        return Splitter(
            update.blob, part_bytes, kind=Kind.UPDATE, codec=self.codec.wire_id,
            federation=self.hash, round=update.round, version=update.version,
        )  # fmt: skip


class Training(Struct):
    """A job that the host is doing."""

    round: Round
    job: TrainJob
    wake_at: None = None

    def on_connected(self, now: float) -> list[Action]:
        """Training needs no connection."""
        return []

    on_tick = on_connected

    def on_disconnected(self) -> None:
        """Training goes on without a connection."""

    def cancel(self) -> list[Action]:
        """Stop the host's job."""
        return [CancelTraining()]

    def follow(self, round: Round) -> None:
        """The same round has been announced again."""
        self.round = round


# Fetch the model; train or evaluate; report. Each wants a Tick at `wake_at`, unless that is None; says what to do in
# `on_connected`, `on_tick` and `cancel`; and follows later announcements of its round.
Work = ModelFetch | Training | UpdateReport


def goes_on(work: Work, saved: SavedUpdate, round: Round, asked: bool) -> bool:
    """Whether `work` serves `round`, which is announced again or is the next one."""
    if isinstance(work, UpdateReport):
        opens = round.state == "open" or saved.device in round.unearned  # which earns waiting at any time
        return opens and (saved.late(round) or (asked and saved.serves(round)))
    if isinstance(work, Training) and round.is_late_for(saved.device, work.round.round, work.round.mode):
        return True
    same = asked and work.round.same_work(round)
    return same and (isinstance(work, Training) or work.round.frames == round.frames)
