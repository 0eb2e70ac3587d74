"""Effort: what a round's training is for a device, in steps, examples and FLOPs. No I/O.

    steps of a round   epochs * ceil(n / batch_size), at most max_steps; 1 in mode "gradient"
    examples           those that the steps see, in all trainings that a local rule makes (device/local), and all of the
                       device for each gradient that it takes over them
    FLOPs of a round   3 * FLOPs from the input to the loss (core/trainer.py) * these examples

All estimates of a round's time go by `takes` or `trained_on`: the simulator's clock, `edgefl plan-fleet`, `--check` and
the owner's policy. The loss, the optimizer and evaluation are left out; they are small beside the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.trainer import forward_flops
from ...protocol.manifest import Manifest
from ...settings import Mode
from ...strategies import local_steps

if TYPE_CHECKING:
    from ..local.rule import Rule

TRAINING = 3.0  # times the FLOPs of the forward pass: backward takes twice as many


def batches_of(manifest: Manifest, n: int) -> int:
    """Batches of an epoch over n examples."""
    return max(1, local_steps.batches_of(manifest.train, n))


def steps_of(manifest: Manifest, n: int) -> int:
    """Steps of a round on n examples."""
    if manifest.local_mode == "gradient":
        return 1
    return local_steps.steps_of(manifest.train, max(1, n))


def seen_of(manifest: Manifest, n: int) -> int:
    """Different examples that the steps of a round see, of n: `max_steps` may leave most of them out."""
    size = manifest.train.batch_size
    if manifest.local_mode == "gradient" or size == "all":
        return n
    return min(n, steps_of(manifest, n) * size)


def trained_on(manifest: Manifest, n: int) -> float:
    """The examples that a round's training goes through, each as often as it does, on n of them."""
    if manifest.local_mode == "gradient":
        return float(n)
    rule, batches = _rule(manifest), batches_of(manifest, n)
    steps = rule.passes * steps_of(manifest, n) + _steps(manifest, n, rule.more_epochs)
    return n * steps / batches + n * rule.gradients


def takes(manifest: Manifest, mode: Mode, n: int) -> float:
    """The examples that a device of n is busy with in a round of this mode, as if it trained on all of them: in a round
    that trains nothing, once each. One that judges what training makes of a model trains for that too."""
    if mode == "train":
        return trained_on(manifest, n)
    rule = _rule(manifest)
    if mode == "profile" or not rule.trains_to_judge:
        return float(n)
    return n * (1 + _steps(manifest, n, rule.more_epochs) / batches_of(manifest, n))


def flops_of(manifest: Manifest, n: int) -> float:
    """FLOPs of a round on n examples; ModelError if the core refuses the plan."""
    return TRAINING * forward_flops(manifest.plan) * trained_on(manifest, n)


def _steps(manifest: Manifest, n: int, epochs: float) -> float:
    steps = epochs * batches_of(manifest, n)
    return min(steps, manifest.train.max_steps or steps)


def _rule(manifest: Manifest) -> type[Plain] | Rule:
    if manifest.local is None:
        return Plain
    from .. import local

    return local.get(manifest.local)


class Plain:
    """Plain local SGD, as a rule counts it."""

    passes, more_epochs, gradients, trains_to_judge = 1.0, 0.0, 0, False
