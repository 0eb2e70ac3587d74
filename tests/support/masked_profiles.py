"""A coordinator whose profile rounds are masked, over columns that differ by 1e6, and the reports of its devices."""

from __future__ import annotations

import msgspec
import numpy as np
from keyed import SIGNER, certificate, signed_round
from machines import feed, make_coordinator, make_manifest, status, update_parts
from masked_rounds import device_key as key_of
from masked_rounds import helper_certificate, helper_keys, nothing_known, party, resigned, roster, round_in

import edgefl
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import SignerRead
from edgefl.coordinator.masked.terms import MaskedTerms
from edgefl.core.columns import Scaling
from edgefl.device import masked
from edgefl.device.events import TrainJob
from edgefl.device.owner.policy import OPEN, Policy
from edgefl.device.training import train_update
from edgefl.machine import Connected, Received
from edgefl.onnx import zoo
from edgefl.onnx.scaling import with_scaling
from edgefl.protocol.envelope import federation_hash
from edgefl.protocol.round import Round
from edgefl.protocol.terms import Terms
from edgefl.settings import FeatureSettings, PrivacySettings
from edgefl.simulation.tasks.task import Drawn

MODEL = with_scaling(edgefl.load(zoo.from_spec("mlp:3-4-3", 1), loss="cross_entropy"))
SCALING = Scaling.of(MODEL.plan)
assert SCALING is not None
MANIFEST = make_manifest(plan=MODEL.plan)
HASH = federation_hash(MANIFEST.federation, MANIFEST.run, MODEL.plan.hash)
FEDERATED = FeatureSettings("federated")
PRIVACY = PrivacySettings(masked=True, helpers="north", least=3, helper_s=40.0, share=1.0, bits=20)


def data(device: str, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Columns that differ by 1e6 in scale, about means of their own on each device."""
    rng = np.random.default_rng([ord(letter) for letter in device])
    scale = np.array([1e-3, 1.0, 1e3])
    x = (rng.normal(size=(n, 3)) + rng.normal(size=3)) * scale + 10 * scale
    return x.astype(np.float32), rng.integers(0, 3, n)


def profile_maker(privacy: PrivacySettings = PRIVACY, **options) -> MaskedTerms:
    keys = [helper_keys(name) for name in privacy.helper_names]
    options = {"most": 6, "rounds": 0, "fleet": 12} | options
    certificates = [helper_certificate(each) for each in keys]
    return MaskedTerms(privacy, MANIFEST, helpers=[party(each) for each in keys], certificates=certificates, **options)


def make_profiled(
    privacy: PrivacySettings = PRIVACY, *, features: FeatureSettings = FEDERATED, maker: MaskedTerms | None = None,
    params=MODEL.params, start=None, **config,
) -> RoundCoordinator:  # fmt: skip
    keys = SignerRead(SIGNER, certificate(), 1), roster()
    maker = maker or profile_maker(privacy, features=features)
    start = {"keys": keys, "masked": maker, "features": features, **(start or {})}
    return make_coordinator(manifest=MANIFEST, params=params, start=start, **{"min_reports": privacy.least} | config)


def open_profile(*devices: str, **options) -> tuple[RoundCoordinator, Round, Terms]:
    """A coordinator in a masked round, which these devices are asked in; the round, and its terms."""
    coordinator = make_profiled(**options)
    round = round_in(feed(coordinator, *map(status, devices), Connected()) + nothing_known(coordinator))
    return coordinator, round, Terms.read(round.terms)


def told(round: Round, device: str, table=None, *, policy: Policy = OPEN, seed: str = "") -> bytes:
    """The update of this device in a masked round, as its session signs it."""
    x, y = data(device) if table is None else table
    job = TrainJob(MANIFEST, round, b"" if round.mode == "profile" else MODEL.params.tobytes(), 99)
    trainer = None if round.mode == "profile" else edgefl.Trainer(MODEL.plan)
    made = train_update(trainer, job, device, x, y, policy=policy, randomness=Drawn(f"{device} {seed}"))
    return resigned(masked.sign(made.blob, key_of(device)), device, round=round.round, version=round.version)


def parts(round: Round, device: str, blob: bytes | None = None) -> list[Received]:
    """The messages that bring its update."""
    blob = told(round, device) if blob is None else blob
    return update_parts(
        device, blob, round=round.round, version=round.version, part_bytes=4096, federation=HASH
    )  # fmt: skip


def profile_round(number: int = 1, *, maker: MaskedTerms | None = None, change=lambda terms: terms, **changes) -> Round:
    """Such a round as the signer announces it."""
    round = signed_round(number, manifest=MANIFEST, params=MODEL.params, mode="profile")
    maker = maker or profile_maker()
    terms = maker.terms(
        round=number, version=round.version, model_sha256=round.model_sha256, manifest=MANIFEST.id, mode="profile"
    )
    return msgspec.structs.replace(
        round, requires=["profile", "masked"], terms=change(terms).text, helpers=maker.certificates, **changes
    )
