"""A hostile device that claims to be several in a masked profile: what that does to `min_devices`, and its bound."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from machines import commit_of, feed, of
from masked_profiles import MODEL, PRIVACY, data, open_profile, parts, profile_maker, told
from masked_rounds import answer_of, asked, helper_keys, make_helper, masked_blob, resigned

from edgefl.coordinator.events import SaveProfile
from edgefl.device.columns.statistics import of_examples
from edgefl.helper.events import JobDone, Open
from edgefl.helper.noise import Draw
from edgefl.machine import Publish, Received
from edgefl.masking.profile import tell
from edgefl.privacy.ledger import Ledger
from edgefl.profiles import Profile
from edgefl.protocol.terms import Terms
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import FeatureSettings
from edgefl.trust.ed25519 import fingerprint

RARE, LEAST = 2, 3  # a label that one honest device has, and `min_devices`
FEATURES = FeatureSettings("federated", min_devices=LEAST)


def table(device: str) -> tuple[np.ndarray, np.ndarray]:
    """Device b alone has the rare label."""
    x, y = data(device)
    return x, np.where(y == RARE, RARE if device == "b" else 0, y)


def lies(terms: Terms, q: np.ndarray) -> bytes:
    """What device a masks, whatever training or table has made of it."""
    blob = masked_blob(terms, "a", q)
    return resigned(UpdateHeader.masked(profile=True).to_bytes() + blob[UpdateHeader.size_of(blob) :], "a")


def claiming(terms: Terms, devices: int, examples: int = 0) -> bytes:
    """That the rare label is on so many devices more, and so often."""
    x, y = table("a")
    q = tell(of_examples(MODEL.plan, x, y), len(x), terms)
    assert terms.profile is not None
    q[1 + RARE] += examples
    q[1 + terms.profile.labels + RARE] += devices
    return lies(terms, q)


def closed(claim) -> tuple[Profile | None, str]:
    """The profile of four devices, or None, and the reason why there is no profile."""
    coordinator, round, terms = open_profile(*"abcd", features=FEATURES)
    out = feed(coordinator, *parts(round, "a", claim(terms)), now=1.0)
    for device in "bcd":
        out += feed(coordinator, *parts(round, device, told(round, device, table(device))), now=1.0)
    out = feed(coordinator, *answer_of(make_helper(), asked(out)), now=2.0)
    found = of(out, SaveProfile)
    return (found[0].profile if found else None), commit_of(out).record.why


def test_a_device_that_claims_to_be_several_shows_what_one_other_alone_has():
    """The aggregator can't tell it from honest devices: that is what masks hide. It learns the sum either way."""
    honest, _ = closed(lambda terms: claiming(terms, 0))
    assert honest is not None and [label.label for label in honest.labels] == [0], "and 1, or the rare one would follow"
    found, _ = closed(lambda terms: claiming(terms, LEAST - 1))
    assert found is not None
    (rare,) = [label for label in found.labels if label.label == RARE]
    assert (rare.devices, rare.count) == (LEAST, int((table("b")[1] == RARE).sum())), "the count is b's own"


def test_it_can_hide_what_others_have_too():
    def hides(terms: Terms) -> bytes:
        x, y = table("a")
        q = tell(of_examples(MODEL.plan, x, y), len(x), terms)
        q[1 + terms.profile.labels] -= 2
        return lies(terms, q)

    found, _ = closed(hides)
    assert found is not None and [label.label for label in found.labels] == [1]


@pytest.mark.parametrize(
    ("devices", "examples"),
    [(4, 0), (-2, 0), (2, -9), (-1, 0)],
    ids=["more than report", "fewer than none", "more than have examples", "examples of no device"],
)
def test_what_no_four_devices_can_have_told_is_refused(devices, examples):
    found, why = closed(lambda terms: claiming(terms, devices, examples))
    assert found is None and "no devices can have told together" in why


def noisy(claimed: float) -> tuple[Profile | None, str]:
    """The same with noise, where a device tells shares: `claimed` of the rare label, in devices."""
    privacy = msgspec.structs.replace(PRIVACY, noise="independent", sigma=0.02, bits=24)
    ledger = Ledger(fingerprint(helper_keys().root), 1e-5)
    features = msgspec.structs.replace(FEATURES, ranges="0.005:0.015, 5:15, 5000:15000")
    maker = profile_maker(privacy, features=features, ledger=ledger)
    coordinator, round, terms = open_profile(*"abcd", maker=maker, features=features)
    q = np.ones(terms.length, np.int32)
    q[: terms.coordinates] = 0
    q[RARE] = int(claimed * terms.reach)
    out = feed(coordinator, *parts(round, "a", lies(terms, q)), now=1.0)
    for device in "bcd":
        out += feed(coordinator, *parts(round, device, told(round, device, table(device))), now=1.0)
    helper, waiting, answers = make_helper(), list(asked(out)), []
    while waiting:
        for action in helper.step(waiting.pop(0), 0.0):
            match action:
                case Open(job):
                    waiting.append(JobDone(job, job.run(Draw(None, np.random.default_rng(1).bytes))))
                case Publish(topic, payload):
                    answers.append(Received(topic, payload))
    out = feed(coordinator, *answers, now=2.0)
    found = of(out, SaveProfile)
    return (found[0].profile if found else None), commit_of(out).record.why


def test_with_noise_it_can_claim_as_much_but_no_more_than_there_are_devices():
    pytest.importorskip("dp_accounting")
    found, _ = noisy(0.0)
    assert found is not None and RARE not in [label.label for label in found.labels]
    found, _ = noisy(LEAST)
    assert found is not None and RARE in [label.label for label in found.labels]
    found, why = noisy(2 * LEAST)
    assert found is None and "4 devices can't reach" in why
