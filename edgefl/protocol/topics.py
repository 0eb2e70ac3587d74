"""Topics: where each message of a federation lives on the MQTT broker, below `{root}/{federation}/`.

    manifest, round, aggregator    retained, published by the aggregator
    model/{slot}/{part}            retained, published by the aggregator; a round names the slots (downlink.py)
    d/{id}/status                  retained, published by the device; also its will
    d/{id}/u/{round}/{part}        one part of an update, published by the device
    d/{id}/inbox                   receipts and requests for parts, published by the aggregator

    enrol/{batch}/{id}/ask, enrol/{batch}/{id}/answer    of devices that are not enrolled yet (enrol.py)
    summary, fleet/{page}          retained, published by the aggregator for those who watch (fleet.py)
    helper/{name}/ask/{part}       published by the aggregator: what a masked round asks of a helper
    helper/{name}/answer/{part}    published by that helper; {name} is its MQTT user name, helper-NAME

The sender of a message is known by its topic, which the broker's access control list guards, and never by the payload.
Such a list needs three rules: a device writes below `d/{its id}/`, reads its `inbox` and its `status`, and reads
`manifest`, `round` and `model/#`. A root has one or two levels, so that no topic has more than seven slashes: AWS IoT
Core allows no more.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..digests import sha256
from ..errors import ProtocolError, UsageError
from ..trust.document import NAME

ROOT = "edgefl/2"
MAX_ROOT = 64
SKELETON_SLOT = 65535  # of the skeleton of the model's ONNX file; payloads of versions have low slots (downlink.py)
BASE_SLOT = 65533  # of the params that no training changes; 65534 is the aggregator's own, to try a broker out
VERDICT = 65534  # in place of a part: an update of so many would take 16 MB at the least
LONGEST_CLIENT_ID = 23  # that every MQTT 3.1.1 broker accepts
_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FEDERATION = re.compile(NAME)
_ROOT = re.compile(r"[^/+#$]+(?:/[^/+#$]+)?")
_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,9})")
AGGREGATOR_USER, _AGGREGATORS = "aggregator", "agg-"  # the aggregator's MQTT user name, and how its client id begins
VIEWER, HELPER = "viewer-", "helper-"  # how the MQTT user names of those who watch, or help with masks, begin
BATCH = "batch-"  # how user name and client id of a device begin that is not enrolled yet (enrol.py)
_NO_DEVICES = rf"(?!{AGGREGATOR_USER}(?:/|\Z)|{_AGGREGATORS}|{VIEWER}|{HELPER}|{BATCH})"
_DEVICE = re.compile(_NO_DEVICES + _DEVICE_ID.pattern)
_HELPER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")  # shorter than a federation's, for what is before it


def check_device_id(device: str) -> str:
    """`device` itself if it fits in a topic and is nobody else's user name or client id; UsageError otherwise."""
    if not _DEVICE_ID.fullmatch(device):
        raise UsageError(
            f"device id {device!r} must be 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', and begin with a letter or a "
            "digit: choose another"
        )
    if device == AGGREGATOR_USER or is_aggregators(device):
        raise UsageError(
            f"device id {device!r} is an aggregator's: its MQTT user name is {AGGREGATOR_USER!r}, and its client id "
            f"begins with {_AGGREGATORS!r}: choose another"
        )
    if device.startswith((VIEWER, HELPER, BATCH)):
        raise UsageError(f"device id {device!r} begins as a viewer's, a helper's or a batch's does: choose another")
    return device


def check_helper(name: str) -> str:
    """`name` itself if a helper may have it; UsageError otherwise. Its MQTT user name has `helper-` before it."""
    if not _HELPER_NAME.fullmatch(name):
        raise UsageError(f"helper name {name!r} must be 1 to 41 of a-z, 0-9 and '-': choose another")
    return name


def check_federation(federation: str) -> str:
    """`federation` itself if it fits in a topic; UsageError otherwise."""
    if not _FEDERATION.fullmatch(federation):
        raise UsageError(f"federation name {federation!r} must be 1 to 48 of a-z, 0-9 and '-': choose another")
    return federation


def check_root(root: str) -> str:
    """`root` itself if topics may begin with it; UsageError otherwise."""
    if not (_ROOT.fullmatch(root) and len(root) <= MAX_ROOT and root.isprintable()):
        raise UsageError(
            f"topic root {root!r} must be one or two levels, such as {ROOT!r}, at most {MAX_ROOT} characters without "
            "'+', '#' and '$': choose another"
        )
    return root


def aggregator_client_id(federation: str) -> str:
    """The MQTT client id of a federation's aggregator: at most 23 characters, and different for each federation."""
    if len(federation) <= LONGEST_CLIENT_ID - len(_AGGREGATORS):
        return f"{_AGGREGATORS}{federation}"
    return f"{_AGGREGATORS}{federation[:10]}-{sha256(federation.encode()).hexdigest()[:8]}"


def is_aggregators(client_id: str) -> bool:
    """Whether some federation's aggregator may have this MQTT client id. Two clients with one id disconnect each other
    for as long as both run."""
    return client_id.startswith(_AGGREGATORS)


class UpdateTopic(NamedTuple):
    """`d/{device}/u/{round}/{part}`."""

    device: str
    round: int
    part: int


class HelperTopic(NamedTuple):
    """`helper/helper-{helper}/ask/{part}` or `helper/helper-{helper}/answer/{part}`."""

    helper: str
    part: int


class ModelTopic(NamedTuple):
    """`model/{slot}/{part}`."""

    slot: int
    part: int


class Topics:
    """All topics of one federation."""

    def __init__(self, federation: str, root: str = ROOT) -> None:
        self.base = f"{check_root(root)}/{check_federation(federation)}"
        self.manifest = f"{self.base}/manifest"
        self.round = f"{self.base}/round"
        self.aggregator = f"{self.base}/aggregator"
        self.summary = f"{self.base}/summary"
        self.any_page = f"{self.base}/fleet/+"
        self.any_status = f"{self.base}/d/+/status"
        self.any_update = f"{self.base}/d/+/u/+/+"
        self.any_answer = f"{self.base}/helper/+/answer/+"
        self._devices = f"{self.base}/d/"
        base, number = re.escape(self.base), f"({_NUMBER.pattern})"
        self._model_part = re.compile(f"{base}/model/{number}/{number}")
        self._page = re.compile(f"{base}/fleet/{number}")
        helper = f"{base}/helper/{HELPER}({_HELPER_NAME.pattern})"
        self._ask_part = re.compile(f"{helper}/ask/{number}")
        self._answer_part = re.compile(f"{helper}/answer/{number}")
        self._update_part = re.compile(f"{base}/d/({_DEVICE.pattern})/u/{number}/{number}")

    def fleet(self, page: int) -> str:
        """The topic of some devices' rows."""
        return f"{self.base}/fleet/{page}"

    def page_of(self, topic: str) -> int | None:
        """The page that `topic` names; None if it is not one of this federation's pages."""
        found = self._page.fullmatch(topic)
        return int(found[1]) if found else None

    def model(self, slot: int, part: int) -> str:
        """The topic of one part of the payload in `slot`."""
        return f"{self.base}/model/{slot}/{part}"

    def status(self, device: str) -> str:
        """The topic of a device's presence."""
        return f"{self._devices}{device}/status"

    def inbox(self, device: str) -> str:
        """The topic on which the aggregator answers a device."""
        return f"{self._devices}{device}/inbox"

    def update(self, device: str, round: int, part: int) -> str:
        """The topic of one part of a device's update."""
        return f"{self._devices}{device}/u/{round}/{part}"

    def verdict(self, device: str, round: int) -> str:
        """The topic of a canary's verdict: below its updates, where it may write, and apart from their parts."""
        return self.update(device, round, VERDICT)

    def ask(self, helper: str, part: int) -> str:
        """The topic of one part of what a helper is asked."""
        return f"{self.base}/helper/{HELPER}{helper}/ask/{part}"

    def any_ask(self, helper: str) -> str:
        """The filter of all that one helper is asked."""
        return f"{self.base}/helper/{HELPER}{helper}/ask/+"

    def answer(self, helper: str, part: int) -> str:
        """The topic of one part of a helper's answer."""
        return f"{self.base}/helper/{HELPER}{helper}/answer/{part}"

    def ask_part(self, topic: str) -> HelperTopic | None:
        """The helper and part that `topic` names; None if it is not an ask's topic of this federation."""
        return _helper_topic(self._ask_part.fullmatch(topic))

    def answer_part(self, topic: str) -> HelperTopic | None:
        """The helper and part that `topic` names; None if it is not an answer's topic of this federation."""
        return _helper_topic(self._answer_part.fullmatch(topic))

    def model_part(self, topic: str) -> ModelTopic | None:
        """The slot and part that `topic` names; None if it is not a model's topic of this federation."""
        found = self._model_part.fullmatch(topic)
        return ModelTopic(int(found[1]), int(found[2])) if found else None

    def device_of(self, topic: str) -> str | None:
        """The device that a topic below `d/` belongs to; None for any other topic."""
        if not topic.startswith(self._devices):
            return None
        device = topic[len(self._devices) :].split("/", 1)[0]
        return device if _DEVICE.fullmatch(device) else None

    def parse_update(self, topic: str) -> UpdateTopic:
        """The device, round and part that `topic` names; ProtocolError if it is not an update's topic."""
        found = self._update_part.fullmatch(topic)
        if found is None:
            raise ProtocolError(f"{topic[:120]!r} is not the topic of an update's part: dropped")
        return UpdateTopic(found[1], int(found[2]), int(found[3]))


def _helper_topic(found: re.Match[str] | None) -> HelperTopic | None:
    return HelperTopic(found[1], int(found[2])) if found else None
