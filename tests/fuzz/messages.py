"""Control messages: the first byte chooses the kind. What is accepted is bounded, and the same after encoding it."""

from __future__ import annotations

import msgspec

from edgefl.core.plan import Node, Param, Plan
from edgefl.protocol.enrol import Approval, Ask
from edgefl.protocol.features import Requirements, unknown_features
from edgefl.protocol.fleet import DeviceRow, FleetPage, OpenRound, PastRound, Summary, encode_summary
from edgefl.protocol.inbox import Inbox, Judge, Missing, Receipt, Verdict
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import CONTROL_LIMIT, RETAINED_LIMIT, Claim, Status, decode, encode
from edgefl.protocol.round import Draw, Frame, Round
from edgefl.protocol.topics import Topics
from edgefl.settings import TrainSettings
from edgefl.viewer.picture import Picture
from edgefl.viewer.table import in_order, render

KINDS = (
    Manifest,
    Round,
    Status,
    Inbox,
    Claim,
    Requirements,
    Verdict,
    Ask,
    Approval,
    Summary,
    FleetPage,
)
TOPICS, EMPTY = Topics("digits"), encode_summary(Summary("digits", "", 1, "waiting", 1, 0, pages=1))
DIGEST, SHA256 = "0123456789abcdef", "0123456789abcdef" * 4


def seeds() -> list[bytes]:
    plan = Plan(
        [3], [Node("dense", [0], [0, 1]), Node("tanh", [1])], [Param("w", [3, 2]), Param("b", [2])], "mse", 2, 2
    )
    train = TrainSettings()
    made = [
        (0, Manifest("digits", DIGEST, plan, train)),
        (0, Manifest("digits", DIGEST, plan, train, "ecq", {"step": 0.5}, 4096, True, "planes", {}, 4, 0.1)),
        (1, Round(DIGEST, "open", 5, 2, 4, SHA256, [Frame(4, DIGEST, 900, 0)], 60.0)),
        (1, Round(DIGEST, "done", 5, 2, 4, SHA256,
                  [Frame(3, DIGEST, 9, 0, 1), Frame(4, DIGEST, 0, 5)], 1.5,
                  Draw(7, 0.5), 3, "evaluate", 2.0, 1, 3.0, ["x"], True, ["dev-a"])),
        (1, Round(DIGEST, "waiting", 6, 2, 4, SHA256, [Frame(4, DIGEST, 900, 0)], 60.0, ["dev-a", "dev-b"])),
        (2, Status("ready", 3, 100)),
        (2, Status("trouble", 2**53, 0, "no such file", "data", 900, False)),
        (3, Receipt(5, 2, "rejected", "too long", 6, 4)),
        (3, Missing(5, [0, 1, 65534])),
        (4, Claim(DIGEST, 3, DIGEST, 1, "holding")),
        (5, Requirements(["masked"])),
        (3, Judge(Round(DIGEST, "open", 5, 2, 4, SHA256, [Frame(4, DIGEST, 900, 0)], 60.0))),
        (6, Verdict(2, SHA256, 0.5, 0.75, DIGEST)),
        (7, Ask("-----BEGIN CERTIFICATE REQUEST-----", "a2V5", "c2ln", "pi-01")),
        (9, Summary("digits", DIGEST, 9, "open", 5, 4, 2, 3, 2, {"ready": 2}, open=OpenRound(5, 4, "train", 8, 99),
                    troubled=[DeviceRow("dev-a", "trouble", "data", "no such file", celsius=47)],
                    last=[PastRound(4, "committed", 4, 3, 3, 1.5, 900, 800, 0.5, 1.25, 7)])),
        (10, FleetPage(0, 9, [DeviceRow("dev-a", "ready", since=5, seen=6, bytes_up=2**53, missed="late")])),
        (8, Approval(f"batch-{DIGEST}", "pi-01", "-----BEGIN CERTIFICATE-----")),
    ]  # fmt: skip
    return [bytes([kind]) + encode(message) for kind, message in made]


def run(data: bytes) -> None:
    kind = KINDS[data[0] % len(KINDS)] if data else Status
    payload = data[1:]
    limit = RETAINED_LIMIT if kind in (Manifest, Round) else CONTROL_LIMIT
    if kind is Requirements:
        unknown_features(payload)
        return
    message = decode(kind, payload, limit)
    assert len(payload) <= limit
    again = encode(message)
    assert msgspec.json.encode(decode(kind, again, max(limit, 2 * len(again)))) == again
    use(message, payload)


def watch(message: Summary | FleetPage, payload: bytes) -> None:
    """What `edgefl status` does with it."""
    picture = Picture("digits", TOPICS, None)
    picture.hear(TOPICS.summary, payload if isinstance(message, Summary) else EMPTY)
    picture.hear(TOPICS.fleet(0), payload)
    assert picture.complete or picture.summary is None or picture.summary.pages
    if picture.summary is not None:
        lines = render(picture, 1e9, 80, in_order(picture.devices, picture.summary.troubled))
        assert all(line.isprintable() for line in lines)


def use(message: object, payload: bytes) -> None:
    """What a device does with it before it trusts any of it."""
    if isinstance(message, Manifest):
        assert message.raw == payload and len(message.id) == 16 and len(message.plan.hash) == 64
        assert 0 <= message.plan.num_trainable <= message.plan.num_params
        message.check_codecs()
    elif isinstance(message, Round):
        assert message.same_work(message) and message.order <= message.order
        if message.asks("dev-a"):
            assert message.state == "open"
        message.is_late_for("dev-a", 3, "train")
    elif isinstance(message, Summary | FleetPage):
        watch(message, payload)
    elif isinstance(message, Status):
        assert len(message.reason) <= 500
