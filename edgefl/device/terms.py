"""Terms: the manifest that a device has agreed to, with the objects that it names. Part of DeviceSession; no I/O."""

from __future__ import annotations

from ..errors import ProtocolError
from ..protocol.envelope import Kind, federation_hash
from ..protocol.messages import Manifest
from ..protocol.parts import Splitter, fitting_part_bytes
from .events import Outbox


class Terms:
    """`manifest`, `codec` of updates and `hash`, the 32 bits that every envelope carries.

    Raises ProtocolError for a model above `max_model_bytes`, UsageError for a codec that does not exist here.
    """

    def __init__(self, manifest: Manifest, max_model_bytes: int) -> None:
        size = 4 * manifest.plan.num_params
        if size > max_model_bytes:
            raise ProtocolError(
                f"its model takes {size} bytes, {max_model_bytes} are allowed here: "
                "raise max_model_bytes if this device can take it"
            )
        self.manifest = manifest
        self.codec = manifest.make_codec()
        manifest.make_downlink()
        self.hash = federation_hash(manifest.federation, manifest.run, manifest.plan.hash)

    def split(self, update: Outbox, max_packet_bytes: int | None) -> Splitter:
        """The parts of an update, each in a packet that the broker takes."""
        part_bytes = fitting_part_bytes(self.manifest.part_bytes, len(update.blob), max_packet_bytes)
        return Splitter(
            update.blob, part_bytes, kind=Kind.UPDATE, codec=self.codec.wire_id,
            federation=self.hash, round=update.round, version=update.version,
        )  # fmt: skip
