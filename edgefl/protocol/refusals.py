"""Refusals: why an aggregator refuses a message, as a short code. No I/O.

Records and logs count refusals by these codes, so they are fixed; a newer aggregator may have others. A ProtocolError
and a CodecError carry one. `FROM_A_DEVICE` names those that a device can only cause by what it has made itself: with
keys, they are told of messages whose signature has been verified. `EVIDENT` are the codes of messages that no honest
device, and no slow or faulty link, brings.
"""

from __future__ import annotations

CODES = {
    "unknown": "the device is not enrolled, or is revoked",
    "quarantine": "the device is in quarantine",
    "muted": "the device is muted, for noise or a flood",
    "rate": "more messages or bytes than a device may send",
    "room": "there is no room for one more device or update",
    "size": "longer than an update of this model can be",
    "round": "of a round or a model that is not open, or of a device that the round does not ask",
    "replay": "of a round in which the device has counted",
    "signature": "not signed by the device that its topic names",
    "malformed": "not a message of this protocol",
    "crc": "damaged on its way",
    "header": "an update with a header that can't be",
    "examples": "more examples than the device may claim",
    "codec": "a payload that the codec can't decode",
    "length": "a payload that is shorter or longer than the model",
    "finite": "NaN or infinity in an update",
    "steps": "steps that its examples and the training settings can't make",
    "influence": "more influence than ten times the bound",
    "terms": "of a masked round with other terms, or with terms that can't be",
    "box": "a sealed seed that its helper can't open, or that is of another device",
    "roster": "a device that a helper does not know, or by another key: one of two rosters is older",
    "sum": "masked vectors whose opened sum can't be",
}
FROM_A_DEVICE = frozenset(("header", "examples", "codec", "length", "finite", "steps", "influence"))
EVIDENT = FROM_A_DEVICE | {"malformed", "size", "signature"}
