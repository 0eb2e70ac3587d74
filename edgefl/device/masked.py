"""Masked: what a device sends in a masked round, and under which terms it does. No I/O.

The terms come from the aggregator, and the keys of the helpers from the root. A device takes part if both fit together,
and are no less than its owner has pinned (policy.py). What it sends tells of its update nothing but what the sum does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..core.columns import Columns
from ..errors import ProtocolError
from ..masking.update import bound, mask, signed
from ..masking.vector import Scored, quantize
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.terms import Terms
from ..protocol.update_header import UpdateHeader
from ..trust.ed25519 import SigningKey, fingerprint
from ..trust.helper_certificate import HelperCertificate

Randomness = Callable[[int], bytes]
AHEAD_S = 24 * 3600  # of a clock that may be wrong


def encode(
    terms: Terms, delta: np.ndarray, *, device: str, num_examples: int, scored: Scored | None, randomness: Randomness
) -> bytes:
    """The payload of delta (P,) float32, which is not signed yet; CodecError."""
    found = quantize(delta, terms.weight_of(num_examples), terms, randomness, scored)
    return mask(found.q, terms, device, None, randomness)


def scored(told: Mapping[str, Any]) -> Scored | None:
    """What a header would tell of the received model on the examples held out; None if it tells nothing."""
    return Scored(told["num_eval"], told["eval_loss"], told["eval_accuracy"]) if told else None


def sign(blob: bytes, key: SigningKey) -> bytes:
    """The update, whose payload is signed for the helpers."""
    size = UpdateHeader.size_of(blob)
    return blob[:size] + signed(blob[size:], key)


class Helpers(NamedTuple):
    """What a device knows of the helpers' keys. `seen`: the newest certificate of each that it has gone by, as its
    serial and the fingerprint of its keys."""

    root: bytes
    seen: Mapping[str, tuple[int, str]]

    def check(self, terms: Terms, round: Round, federation: str, unix_s: float | None) -> dict[str, tuple[int, str]]:
        """ProtocolError unless the root has certified each helper's keys in the terms; what has been seen then."""
        found = dict(self.seen)
        certificates = {}
        for text in round.helpers:
            one = HelperCertificate.open(text.encode(), self.root, federation)
            certificates[one.name] = one
        for party in terms.helpers:
            certificate = certificates.get(party.name)
            if certificate is None:
                raise ProtocolError(f"the root's word on helper {party.name} is missing")
            if (party.epoch, party.box, party.key) != (certificate.epoch, certificate.box, certificate.key):
                raise ProtocolError(f"helper {party.name} has other keys than the root has certified")
            if unix_s is not None and not certificate.not_before - AHEAD_S <= unix_s <= certificate.not_after:
                raise ProtocolError(f"the certificate of helper {party.name} is out of its dates")
            found[party.name] = self._newest(certificate)
        return found

    def _newest(self, certificate: HelperCertificate) -> tuple[int, str]:
        keys = fingerprint(certificate.box_public + certificate.public)
        serial, known = self.seen.get(certificate.name, (0, keys))
        if certificate.serial < serial:
            raise ProtocolError(
                f"certificate {certificate.serial} of helper {certificate.name} was replaced by {serial}"
            )
        if certificate.serial == serial and keys != known:
            raise ProtocolError(f"helper {certificate.name} has other keys than before, in the same certificate")
        return certificate.serial, keys


def longest(text: str) -> int:
    """The longest payload under these terms; no budget shortens it. 0 for terms that can't be, which are refused."""
    try:
        return bound(Terms.read(text))
    except ProtocolError:
        return 0


def terms_of(round: Round, manifest: Manifest) -> Terms:
    """The terms of a masked round; ProtocolError unless they are this round's, and of updates or columns of this
    manifest."""
    terms = Terms.read(round.terms)
    terms.check_round(round, manifest.federation)
    if terms.profile is not None:
        if terms.profile.columns != (columns := Columns.of(manifest.plan).number):
            raise ProtocolError(f"terms for {terms.profile.columns} columns, the data have {columns}", "terms")
    elif terms.params != manifest.update_size:
        raise ProtocolError(
            f"terms for updates of {terms.params} numbers, the model has {manifest.update_size}", "terms"
        )
    return terms
