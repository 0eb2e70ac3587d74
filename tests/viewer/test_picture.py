"""What a viewer believes: where keys are on, only what the federation's signer has sealed for that topic."""

from __future__ import annotations

import pytest

from edgefl.protocol.fleet import DeviceRow, FleetPage, Summary, encode_page, encode_summary
from edgefl.protocol.topics import Topics
from edgefl.trust.certificate import SignerCertificate, purpose_of
from edgefl.trust.ed25519 import SigningKey
from edgefl.trust.seal import seal
from edgefl.viewer.picture import Picture

TOPICS = Topics("pond")
ROOT, SIGNER, OTHER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))
SUMMARY = encode_summary(Summary("pond", "0" * 16, 9, "waiting", 3, 2, pages=1))
PAGE = encode_page(FleetPage(0, 9, [DeviceRow("a", "ready")]))


def certificate(serial=1, epoch=1, key=SIGNER, root=ROOT, federation="pond") -> bytes:
    made = SignerCertificate.of(
        key.public, federation=federation, serial=serial, epoch=epoch, not_before=0, not_after=2**40
    )
    return made.seal(root)


def sealed(topic, payload, key=SIGNER, epoch=1, **of) -> bytes:
    about = certificate(epoch=epoch, key=key, **of) if topic == TOPICS.summary else b""
    return seal(payload, purpose_of(topic, epoch), key, about)


def viewer() -> Picture:
    return Picture("pond", TOPICS, ROOT.public)


def test_what_the_signer_has_sealed_is_shown():
    picture = viewer()
    picture.hear(TOPICS.summary, sealed(TOPICS.summary, SUMMARY))
    assert not picture.complete
    picture.hear(TOPICS.fleet(0), sealed(TOPICS.fleet(0), PAGE))
    assert picture.complete and picture.verified and [row.id for row in picture.devices] == ["a"]
    assert not picture.why_not


@pytest.mark.parametrize("forged", [
    SUMMARY,
    seal(SUMMARY, purpose_of(TOPICS.summary, 1), SIGNER),  # without its certificate
    sealed(TOPICS.summary, SUMMARY, key=OTHER, root=OTHER),
    sealed(TOPICS.summary, SUMMARY, federation="pool"),
    seal(SUMMARY, purpose_of(TOPICS.round, 1), SIGNER, certificate()),
    seal(SUMMARY, purpose_of(TOPICS.summary, 2), SIGNER, certificate(epoch=1)),
    sealed(TOPICS.summary, SUMMARY).replace(b'"round":3', b'"round":4'),
    b"", b"\xff\n{}", b"{}\n{}",
])  # fmt: skip
def test_what_another_has_written_is_not(forged):
    picture = viewer()
    picture.hear(TOPICS.summary, forged)
    assert picture.summary is None and (picture.why_not or not forged)


def test_a_page_of_another_topic_or_signer_is_dropped():
    picture = viewer()
    picture.hear(TOPICS.summary, sealed(TOPICS.summary, SUMMARY))
    for forged in (PAGE, sealed(TOPICS.fleet(1), PAGE), sealed(TOPICS.fleet(0), PAGE, key=OTHER)):
        picture.hear(TOPICS.fleet(0), forged)
        assert not picture.devices and "not s" in picture.why_not


def test_a_device_in_trouble_that_no_page_has_yet_is_shown():
    picture, late = viewer(), DeviceRow("b", "trouble", "policy", "helper south is none of its helpers")
    summary = encode_summary(Summary("pond", "0" * 16, 9, "waiting", 3, 2, pages=1, troubled=[late]))
    picture.hear(TOPICS.summary, sealed(TOPICS.summary, summary))
    picture.hear(TOPICS.fleet(0), sealed(TOPICS.fleet(0), PAGE))
    assert [row.id for row in picture.devices] == ["a", "b"]


def test_a_certificate_that_was_replaced_is_not_believed_again():
    picture = viewer()
    picture.hear(TOPICS.summary, sealed(TOPICS.summary, SUMMARY, serial=2))
    picture.hear(TOPICS.summary, sealed(TOPICS.summary, SUMMARY.replace(b'"round":3', b'"round":4'), serial=1))
    assert picture.summary.round == 3 and "replaced" in picture.why_not


def test_without_keys_a_sealed_message_is_read_and_not_called_verified():
    picture = Picture("pond", TOPICS, None)
    picture.hear(TOPICS.summary, sealed(TOPICS.summary, SUMMARY))
    assert picture.summary.round == 3 and picture.sealed and not picture.verified


def test_of_a_device_on_two_pages_the_newer_row_counts():
    picture = Picture("pond", TOPICS, None)
    for page, at, state in ((0, 20, "ready"), (1, 10, "lost"), (2, 15, "lost")):
        picture.hear(TOPICS.fleet(page), encode_page(FleetPage(page, at, [DeviceRow("a", state)])))
    assert [row.state for row in picture.devices] == ["ready"]
    picture.hear(TOPICS.fleet(0), b"")
    assert [row.state for row in picture.devices] == ["lost"]
