import itertools
import os
import random

from machines import commit_of, feed, status
from masked_rounds import (
    DEVICES,
    PRIVACY,
    answer_of,
    asked,
    expected,
    make_helper,
    masked_parts,
    open_masked,
)

from edgefl.coordinator.events import Commit
from edgefl.core.params import params_to_bytes
from edgefl.machine import Tick
from edgefl.protocol.terms import Terms

STAGES = ("absent", "begun", "gone", "whole")  # when a device drops out: before, amid or after its update; or never
EXHAUSTIVE = bool(os.environ.get("EDGEFL_EXHAUSTIVE"))  # `make soak-masked`


def updates_of(terms: Terms) -> dict[str, list]:
    return {device: masked_parts(terms, device) for device in DEVICES}


def play(stages: dict[str, str], updates: dict[str, list], order: list[str]) -> tuple:
    """A round in which each device drops out at its stage; its terms, the commit, and what the helper was asked."""
    coordinator, terms = open_masked(*stages, goal=None)
    out = []
    for device in order:
        parts = {"absent": [], "begun": updates[device][:1]}.get(stages[device], updates[device])
        out += feed(coordinator, *parts, now=1.0)
    for device, stage in stages.items():
        if stage != "whole":
            out += feed(coordinator, status(device, "lost"), now=2.0)
    while coordinator.phase == "open":
        out += feed(coordinator, Tick(), now=coordinator.wake_at)
    asks = asked(out)
    if asks:
        out += feed(coordinator, *answer_of(make_helper(), asks), now=70.0)
    return terms, commit_of(out[: 1 + next(i for i, a in enumerate(out) if isinstance(a, Commit))]), asks


def check(stages: dict[str, str], updates: dict[str, list], order: list[str]) -> None:
    counted = sorted(device for device, stage in stages.items() if stage in ("gone", "whole"))
    terms, commit, asks = play(stages, updates, order)
    assert commit is not None, stages
    if len(counted) < PRIVACY.least:
        assert (commit.params, commit.record.state, asks) == (None, "abandoned", [])
    else:
        assert commit.record.devices == counted
        assert params_to_bytes(commit.params) == expected(terms, counted), stages


def test_i35_the_opened_sum_is_exact_for_every_pattern_of_devices_and_stages():
    _, terms = open_masked()
    updates = updates_of(terms)
    devices = DEVICES[:4] if not EXHAUSTIVE else DEVICES[:6]
    for stages in itertools.product(STAGES, repeat=len(devices)):
        check(dict(zip(devices, stages, strict=True)), updates, list(devices))


def test_i35_the_opened_sum_is_exact_for_patterns_of_twelve_devices():
    """All 4096 sets of devices that drop out, each at a stage that is drawn, in an order that is drawn; some of them
    in every run."""
    _, terms = open_masked()
    updates, rng = updates_of(terms), random.Random(0)
    sets = list(itertools.product((False, True), repeat=len(DEVICES)))
    for drops in sets if EXHAUSTIVE else rng.sample(sets, 120):
        stages = {d: rng.choice(STAGES[:3]) if out else "whole" for d, out in zip(DEVICES, drops, strict=True)}
        check(stages, updates, rng.sample(DEVICES, len(DEVICES)))
