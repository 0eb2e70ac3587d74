"""Profile rounds on both machines: which devices are asked, what is told, what a liar can do, what a stop costs."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from machines import (
    STATUS,
    commit_of,
    feed,
    give,
    last,
    make_manifest,
    make_round,
    make_session,
    of,
    receipt,
    report,
    round_in,
    run_out,
    status,
    update_parts,
    updates,
    word_to,
)

import edgefl
from edgefl import strategies
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.events import Answered, AskProfile, SaveProfile
from edgefl.coordinator.profile.gathering import Gathering, scaling_of
from edgefl.core.columns import Scaling
from edgefl.device.columns.statistics import of_examples
from edgefl.device.events import Failed, Outbox, SaveUpdate, StartTraining, Trained
from edgefl.device.owner.policy import STRICT
from edgefl.device.training import train_update
from edgefl.errors import PolicyError
from edgefl.machine import Connected, Subscribe
from edgefl.onnx import zoo
from edgefl.onnx.scaling import with_scaling
from edgefl.profiles import Profile
from edgefl.protocol.envelope import federation_hash
from edgefl.protocol.messages import Status
from edgefl.protocol.statistics import Column, Counts, Statistics, encode
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import AdmissionSettings, FeatureSettings, GateSettings, RoundSettings

MODEL = with_scaling(edgefl.load(zoo.from_spec("mlp:3-4-3", 1), loss="cross_entropy"))
SCALING = Scaling.of(MODEL.plan)
assert SCALING is not None
MANIFEST = make_manifest(plan=MODEL.plan)
HASH = federation_hash(MANIFEST.federation, MANIFEST.run, MODEL.plan.hash)
FEDERATED = FeatureSettings("federated")
BOUNDED = AdmissionSettings(influence=1.5)


def data(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Columns that differ by 1e6 in scale, about means of their own on each device."""
    rng = np.random.default_rng(seed)
    scale = np.array([1e-3, 1.0, 1e3])
    x = (rng.normal(size=(n, 3)) + rng.normal(size=3)) * scale + 10 * scale
    return x.astype(np.float32), rng.integers(0, 3, n)


def blob_of(x: np.ndarray, y: np.ndarray) -> bytes:
    return UpdateHeader(len(x), 0, 0.0, 0, 100, is_profile=True).to_bytes() + encode(of_examples(MODEL.plan, x, y))


def coordinator_of(*, features=FEDERATED, admission=None, start=None, gate=None, params=MODEL.params, **config):
    settings = RoundSettings(**{"deadline_s": 60.0, "min_reports": 1} | config)
    return RoundCoordinator(
        MANIFEST, settings, strategies.get("fedavg"), params, rng=random.Random(0), features=features,
        admission=admission, gate=gate, **(start or {}),
    )  # fmt: skip


def opened(*devices: str, **options):
    coordinator = coordinator_of(**options)
    return coordinator, feed(coordinator, *map(status, devices), Connected())


def tell(coordinator, device, blob, **where):
    return report(coordinator, device, blob=blob, federation=HASH, **where)


def pooled(seeds, n=40) -> np.ndarray:
    return np.concatenate([data(seed, n)[0] for seed in seeds]).astype(np.float64)


# The coordinator


def test_it_comes_before_the_first_round_that_trains_and_makes_version_1():
    coordinator, out = opened("a", "b", "c", gate=GateSettings(judge="test"))
    announced = round_in(out)
    assert (announced.mode, announced.requires, announced.round, announced.version) == ("profile", ["profile"], 1, 0)
    tell(coordinator, "a", blob_of(*data(1)))
    tell(coordinator, "b", blob_of(*data(2)))
    out = tell(coordinator, "c", blob_of(*data(3)))
    record, params = commit_of(out).record, commit_of(out).params
    assert (record.state, record.version, record.profile, record.train_loss) == ("committed", 1, True, None)
    assert record.devices == ["a", "b", "c"] and record.num_examples == 120
    everything = pooled((1, 2, 3))
    assert np.allclose(params[SCALING.mean], everything.mean(0), rtol=1e-6)
    assert np.allclose(params[SCALING.scale], 1 / everything.std(0), rtol=1e-5)
    assert np.array_equal(params[: SCALING.mean.start], MODEL.params[: SCALING.mean.start])
    following = round_in(out)
    assert (following.mode, following.requires, following.round, following.version) == ("train", [], 2, 1)
    assert following.frames[-1].keyframe, "a delta would lose digits of the scaling"


def test_i29_order_of_reports_changes_no_bit():
    found = set()
    for devices in permutations("abcd"):
        coordinator, _ = opened(*"abcd", admission=BOUNDED)
        for device in devices:
            out = tell(coordinator, device, blob_of(*data(ord(device))))
        found.add(commit_of(out).params.tobytes() + of(out, SaveProfile)[0].profile.to_json())
    assert len(found) == 1


def test_an_order_only_looks():
    scaled = SCALING.into(MODEL.params, np.ones(3), np.full(3, 0.5))
    for features, params in ((FEDERATED, scaled), (FeatureSettings(), MODEL.params)):
        coordinator, out = opened("a", "b", features=features, params=params)
        assert round_in(out).mode == "train"
        feed(coordinator, AskProfile("order-1"))
        out = run_out(coordinator)
        assert round_in(out).mode == "profile"
        tell(coordinator, "a", blob_of(*data(1)), round=2)
        out = tell(coordinator, "b", blob_of(*data(2)), round=2)
        assert of(out, Answered) == [Answered("order-1", True, "round 2 has told the profile")]
        record, made = commit_of(out).record, commit_of(out).params
        assert (record.state, record.version, record.profile, made) == ("evaluated", 0, True, None)
        assert of(out, SaveProfile)[0].profile.version is None
        assert round_in(out).mode == "train"


def test_too_few_reports_abandon_it_and_it_is_asked_again():
    coordinator, _ = opened("a", "b", features=FeatureSettings("federated", min_devices=3))
    feed(coordinator, AskProfile("order-1"))
    tell(coordinator, "a", blob_of(*data(1)))
    tell(coordinator, "b", blob_of(*data(2)))
    assert coordinator.snapshot().phase == "open", "it needs three"
    out = run_out(coordinator)
    record = commit_of(out).record
    assert (record.state, record.profile, record.version) == ("abandoned", True, 0) and "2 of 3 reports" in record.why
    (answer,) = of(out, Answered)
    assert not answer.done and not of(out, SaveProfile)
    assert round_in(out).mode == "profile", "nothing is trained on columns that are not scaled"


def test_i29_small_counts_are_left_out():
    """Outliers, labels and columns of one device alone: neither in the profile nor told by its totals."""
    blank = np.full((20, 3), np.nan, np.float32)
    ones = np.ones((20, 3), np.float32)
    mine = ones.copy()
    mine[:3, 0] = 1e6
    mine[:, 1] = 7
    ones[:, 1] = np.nan
    y = np.zeros(20, np.int64)
    gathering = Gathering(MODEL.plan, FeatureSettings(min_devices=2), bounded=False)
    for x, labels in ((mine, np.where(np.arange(20) < 2, 2, y)), (ones, y), (blank, y)):
        blob = blob_of(x, labels)
        gathering.add(UpdateHeader.from_bytes(blob), memoryview(blob)[UpdateHeader.SIZE :])
    profile = gathering.result(1)
    assert [column.column for column in profile.columns] == [0, 2]
    assert profile.columns[0].bins == [], "the total and the one other bin would tell the outlier's count"
    assert profile.columns[1].bins[0].count == 40 and (profile.columns[1].low, profile.columns[1].high) == (1.0, 1.25)
    assert profile.labels == [], "label 0 and the number of examples would tell how many have label 2"
    mean, scale = scaling_of(profile, 3)
    assert mean[1] == 0 and scale[1] == 1, "a column that is not shown stays as it is"
    assert mean[2] == 1 and scale[2] == 1, "a constant one becomes 0"


def lie(mean: float, variance: float, n: int = 40) -> bytes:
    """A report that could be true, of whatever its device wants."""
    total = int(mean * 2**40) * n
    squares = -(-total * total // n) + int(variance * 2**80) * n
    column = Column(n, total, squares, Counts(np.array([256]), np.array([n])))
    told = Statistics([column] * 3, Counts(np.array([2]), np.array([n])))
    return UpdateHeader(n, 0, 0.0, 0, 100, is_profile=True).to_bytes() + encode(told)


LIES = {
    "huge": lie(1e18, 0.0), "low": lie(-1e18, 0.0), "wide": lie(0.0, 1e30), "heavy": lie(1e17, 1e30, n=2**24),
    "constant": lie(10.0, 0.0), "heavy constant": lie(0.0, 0.0, n=2**24),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_i29_one_liar_moves_no_column_further_than_honest_devices_lie_apart(name):
    honest = "abcdefghi"
    coordinator, _ = opened(*honest, "liar", admission=BOUNDED)
    for device in honest:
        tell(coordinator, device, blob_of(*data(ord(device))))
    params = commit_of(tell(coordinator, "liar", LIES[name])).params
    everything = pooled(map(ord, honest))
    means = np.array([data(ord(device))[0].mean(0, dtype=np.float64) for device in honest])
    mean, deviation = params[SCALING.mean], 1 / params[SCALING.scale]
    assert (mean >= means.min(0)).all() and (mean <= means.max(0)).all()
    assert (np.abs(mean - everything.mean(0)) <= 0.5 * everything.std(0)).all()
    assert (deviation > 0.5 * everything.std(0)).all() and (deviation < 2 * everything.std(0)).all()


def test_without_a_bound_one_liar_decides():
    """What the bound is worth; and an open federation has none unless it is set."""
    coordinator, _ = opened(*"abcdefghi", "liar")
    for device in "abcdefghi":
        tell(coordinator, device, blob_of(*data(ord(device))))
    params = commit_of(tell(coordinator, "liar", LIES["huge"])).params
    assert params[SCALING.mean][0] > 1e15


@pytest.mark.parametrize("spoil", [lambda b: b[:-9], lambda b: b + b"\0", lambda b: b[:40], lambda b: b"\2\0" + b[2:]])
def test_a_report_that_no_data_made_is_refused_and_changes_nothing(spoil):
    coordinator, _ = opened("a", "b", "c")
    out = tell(coordinator, "c", spoil(blob_of(*data(3))))
    assert word_to(out, "c") is None or word_to(out, "c").outcome == "rejected"
    tell(coordinator, "a", blob_of(*data(1)))
    out = tell(coordinator, "b", blob_of(*data(2)))
    out = out if commit_of(out) else run_out(coordinator)
    assert commit_of(out).record.devices == ["a", "b"]
    assert np.allclose(commit_of(out).params[SCALING.mean], pooled((1, 2)).mean(0), rtol=1e-6)


def test_a_report_is_of_no_use_in_a_round_that_trains():
    coordinator, _ = opened("a", "b", features=FeatureSettings())
    out = tell(coordinator, "a", blob_of(*data(1)))
    assert word_to(out, "a").outcome == "rejected" and "profile" in word_to(out, "a").reason


def test_i29_updates_do_not_move_the_scaling():
    scaled = SCALING.into(MODEL.params, np.ones(3), np.full(3, 0.5))
    coordinator, _ = opened("a", params=scaled)
    delta = np.full(MODEL.plan.num_params, 0.25, np.float32)
    blob = UpdateHeader(5, 1, 0.5, 10, 100).to_bytes() + MANIFEST.update_codec.encode(delta)
    params = commit_of(tell(coordinator, "a", blob)).params
    assert np.array_equal(params[SCALING.mean], np.ones(3)) and np.array_equal(params[SCALING.scale], np.full(3, 0.5))
    assert np.array_equal(params[:5], scaled[:5] + np.float32(0.25))


def test_i29_an_aggregator_that_starts_again_opens_it_again():
    coordinator, _ = opened("a", "b")
    tell(coordinator, "a", blob_of(*data(1)))
    again, out = opened("a", "b", start={"attempt": 2})
    assert (round_in(out).mode, round_in(out).round, round_in(out).attempt) == ("profile", 1, 2)
    tell(again, "a", blob_of(*data(1)))  # as it was saved
    out = tell(again, "b", blob_of(*data(2)))
    record, params = commit_of(out).record, commit_of(out).params
    assert record.version == 1 and np.allclose(params[SCALING.mean], pooled((1, 2)).mean(0), rtol=1e-6)
    later, out = opened("a", "b", start={"attempt": 3, "round": 2, "version": 1, "recent": [record]}, params=params)
    assert round_in(out).mode == "train", "the commit ends the asking"
    assert later.version == 1


def test_a_late_report_gets_its_answer_and_counts_nowhere():
    coordinator, _ = opened("a", "b", "c", late="fold", min_reports=2)
    for event in update_parts("c", blob_of(*data(3)), federation=HASH)[:-1]:
        feed(coordinator, event)
    tell(coordinator, "a", blob_of(*data(1)))
    tell(coordinator, "b", blob_of(*data(2)))
    if coordinator.round == 1:
        run_out(coordinator)
    before = coordinator.params.tobytes()
    out = tell(coordinator, "c", blob_of(*data(3)))
    assert coordinator.params.tobytes() == before and not of(out, SaveProfile)
    assert coordinator.admission.quarantine.suspects == {}


def test_a_device_that_does_not_report_loses_nothing():
    """An owner who lets no statistics leave must not cost the device its place in the rounds that train."""
    coordinator, _ = opened("a", "b", "c", min_reports=2)
    tell(coordinator, "a", blob_of(*data(1)))
    tell(coordinator, "b", blob_of(*data(2)))
    out = feed(coordinator, status("c", "trouble"), now=2.0)
    assert commit_of(out).record.missed == {} and round_in(out).mode == "train"
    feed(coordinator, status("c"), now=2.0)
    assert coordinator.tally.is_waiting_for("c")


# The device


def profile_round(number=1, **changes):
    changes = {"mode": "profile", "requires": ["profile"], "params": MODEL.params, "manifest": MANIFEST} | changes
    return make_round(number, **changes)


def asked(**options):
    session = make_session(**options)
    feed(session, Connected(boot=7))
    give(session, MANIFEST)
    return session, give(session, profile_round())


def test_a_device_reports_without_fetching_a_model():
    session, out = asked()
    (start,) = of(out, StartTraining)
    assert start.job.params == b"" and not [a for a in of(out, Subscribe) if "/model/" in a.topics[0]]
    assert last(out, Status, STATUS).state == "training"
    made = train_update(None, start.job, "a", *data(1))
    out = feed(session, Trained(start.job, made.blob))
    assert of(out, SaveUpdate)[0].outbox.mode == "profile" and updates(out)
    feed(session, receipt())
    out = give(session, make_round(2, 1, params=MODEL.params, manifest=MANIFEST))
    assert [a for a in of(out, Subscribe) if "/model/" in a.topics[0]], "it goes on with the round that trains"


def test_a_report_survives_a_restart_of_the_device_and_of_the_aggregator():
    _, out = asked()
    blob = train_update(None, of(out, StartTraining)[0].job, "a", *data(1)).blob
    session = make_session(outbox=Outbox(MANIFEST.id, 1, 0, blob, attempt=1))
    feed(session, Connected(boot=8))
    give(session, MANIFEST)
    out = give(session, profile_round(attempt=2))
    assert updates(out) and not of(out, StartTraining), "it sends what it has saved"
    assert not updates(give(session, make_round(1, 0, attempt=2, params=MODEL.params, manifest=MANIFEST)))


def test_i29_the_owner_decides():
    _, out = asked()
    job = of(out, StartTraining)[0].job
    with pytest.raises(PolicyError, match="no column statistics leave it"):
        train_update(None, job, "a", *data(1), policy=STRICT)
    allowed = replace(STRICT, statistics=True)
    told = train_update(None, job, "a", *data(1), policy=allowed).blob
    assert told[UpdateHeader.SIZE :] == blob_of(*data(1))[UpdateHeader.SIZE :]
    with pytest.raises(PolicyError, match="at least 10"):
        train_update(None, job, "a", *data(1, n=9), policy=allowed)


def test_a_refusal_lasts_for_the_round_and_training_goes_on_afterwards():
    session, out = asked()
    job = of(out, StartTraining)[0].job
    out = feed(session, Failed(job, "refused by this device's owner", "policy", final=True), now=1.0)
    assert (last(out, Status, STATUS).state, last(out, Status, STATUS).code) == ("trouble", "policy")
    assert not of(give(session, profile_round(), now=2.0), StartTraining)
    out = give(session, make_round(2, 0, params=MODEL.params, manifest=MANIFEST), now=3.0)
    assert last(out, Status, STATUS).state != "trouble"


def test_a_round_that_requires_what_a_device_does_not_know_is_sat_out(monkeypatch):
    """As a device of an older version does."""
    monkeypatch.setattr("edgefl.protocol.features.FEATURES", frozenset())
    session, out = asked()
    told = last(out, Status, STATUS)
    assert told.code == "manifest" and "profile" in told.reason and not of(out, StartTraining)
    monkeypatch.undo()
    out = give(session, make_round(2, 0, params=MODEL.params, manifest=MANIFEST))
    assert last(out, Status, STATUS).state == "ready"


def test_profiles_are_read_as_they_were_written(tmp_path):
    coordinator, _ = opened("a", "b")
    tell(coordinator, "a", blob_of(*data(1)))
    profile = of(tell(coordinator, "b", blob_of(*data(2))), SaveProfile)[0].profile
    (tmp_path / "profile.json").write_bytes(profile.to_json())
    assert Profile.read(tmp_path) == profile and Profile.read(tmp_path / "none") is None
    lines = profile.table().splitlines()
    assert len(lines) == 1 + 1 + 3 + 1 + 1 + 3 + 1 and "version 1 of the model is scaled by this" in lines[0]
    named = profile.table(("temp", "rpm"), ("worn",)).splitlines()
    assert [line.split()[0] for line in named[2:5]] == ["temp", "rpm", "2"] and named[7].split()[0] == "worn"
    assert all(x not in profile.to_json().decode() for x in map(str, data(1)[0].ravel()[:5]))
