"""Policy: what a device's owner lets a federation train here, and how much. No I/O.

The plan decides what an update can reveal, so it is approved by its id (protocol/approval.py). The rest is bounds: some
on what the manifest says, some on the work that it means for this device's examples. `OPEN` bounds nothing, as without
keys; `STRICT` has the defaults of a device with keys. docs/policy.md says what each bound is worth.

effort.py counts the work. `max_seconds` bounds what is not counted, and what this machine can't do as fast as its owner
thought.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ...core.params import l2_norm
from ...errors import PolicyError
from ...protocol.approval import approved_by, describe, plan_id, short
from ...protocol.manifest import Manifest
from ...protocol.terms import Terms
from ...protocol.trouble import Trouble
from ..events import Action, SavePlan
from .effort import batches_of, flops_of, seen_of, steps_of

Plans = Literal["pinned", "ask", "first", "any"]


NO_STATISTICS = "no column statistics leave it ([policy] statistics)"


@dataclass(frozen=True)
class Policy:
    """The owner's `[policy]`; docs/settings.md has the meaning of each."""

    plans: Plans = "any"
    approved: frozenset[str] = frozenset()
    min_examples: int = 1
    min_steps: int = 1
    allow_gradient: bool = True
    allow_full_batch: bool = True
    max_lr: float = math.inf
    max_epochs: float = math.inf
    max_flops: float = math.inf
    max_seconds: float = math.inf
    clip: float = math.inf
    statistics: bool = True
    masked: bool = False
    least_devices: int = 2
    most_weight: int = 2**20
    most_clip: float = math.inf
    least_noise: float = 0.0
    least_separation: int = 0
    most_epsilon: float = math.inf
    most_delta: float = 1e-5
    helpers: frozenset[str] = frozenset()
    least_helpers: int = 1
    operators: Mapping[str, str] = field(default_factory=dict)

    def of_terms(self, terms: Terms) -> str:
        """Why the terms of a masked round are refused; "" if they are not."""
        noise, apart = terms.noise.sigma / math.sqrt(terms.norm2), terms.noise.separation
        bounded, silent = not math.isinf(self.most_epsilon), terms.noise.kind == "none"
        tells = terms.profile is not None
        clip = 0.0 if tells else terms.clip
        strange = sorted({party.name for party in terms.helpers} - self.helpers) if self.helpers else []
        parties = len(self.operators_of(terms))
        faults = (
            (tells and not self.statistics, NO_STATISTICS),
            (bool(strange), f"helper {', '.join(strange)} is none of its helpers"),
            (parties < self.least_helpers, f"helpers of {parties} operator(s), least_helpers is {self.least_helpers}"),
            (terms.least < self.least_devices, f"a sum of {terms.least} devices, at least {self.least_devices} wanted"),
            (terms.weights > self.most_weight, f"a weight of {terms.weights}, at most {self.most_weight} is allowed"),
            (clip > self.most_clip, f"updates clipped at {clip:g}, at most {self.most_clip:g} is allowed"),
            (noise < self.least_noise, f"noise of {noise:.4g} times an update, at least {self.least_noise:g} wanted"),
            (apart < self.least_separation, f"devices back after {apart} rounds, not {self.least_separation}"),
            (terms.epsilon > self.most_epsilon, f"an epsilon of {terms.epsilon:g}, at most {self.most_epsilon:g}"),
            (bounded and silent, f"a sum without noise, and an epsilon of at most {self.most_epsilon:g} wanted"),
            (bounded and not (terms.epsilon and terms.delta), "noise, and no epsilon and delta that it is worth"),
            (bounded and terms.delta > self.most_delta, f"a delta of {terms.delta:g}, at most {self.most_delta:g}"),
        )  # fmt: skip
        return next((text for is_fault, text in faults if is_fault), "")

    def operators_of(self, terms: Terms) -> set[str]:
        """Who can open a sum only together. No two helpers of terms have one key (protocol/terms.py)."""
        return parties([party.name for party in terms.helpers], self.operators)

    def of_manifest(self, manifest: Manifest) -> str:
        """Why the manifest's settings are refused; "" if they are not."""
        train = manifest.train
        if gradient_of(manifest) and not self.allow_gradient:
            return f"it asks for one gradient over all examples ({gradient_of(manifest)}), which is not allowed"
        if manifest.local_mode == "sgd" and train.batch_size == "all" and not self.allow_full_batch:
            return 'its steps are over all examples at once (batch_size "all"), which is not allowed'
        own = {} if manifest.local is None else manifest.local.options  # of a local rule
        if (lr := max(train.lr, own.get("lr", 0.0))) > self.max_lr:
            return f"its lr is {lr:g}, at most {self.max_lr:g} is allowed"
        if (epochs := max(train.epochs, own.get("epochs", 0), own.get("head_epochs", 0))) > self.max_epochs:
            return f"it asks for {epochs:g} epochs, at most {self.max_epochs:g} are allowed"
        return ""

    def of_work(self, manifest: Manifest, n: int, *, hides: bool = False) -> str:
        """Why a round's work on so many examples is more than what is allowed; "" if it is not. With `hides` that does
        not say how many there are."""
        if math.isinf(self.max_flops):
            return ""
        flops = flops_of(manifest, n)
        if flops <= self.max_flops:
            return ""
        if hides or self.masked:
            return f"a round takes more than the {self.max_flops:.3g} FLOPs that are allowed"
        return f"a round takes {flops:.3g} FLOPs with {n} examples, at most {self.max_flops:.3g} are allowed"

    def of_update(self, manifest: Manifest, n: int) -> str:
        """Why an update of training on n examples must not leave; "" if it may."""
        seen = seen_of(manifest, n)
        if seen < self.min_examples:
            return f"an update of {seen} examples, at least {self.min_examples} must be behind it"
        if manifest.local_mode == "gradient":
            return ""  # its one step is what allow_gradient allows
        steps, batches = steps_of(manifest, n), batches_of(manifest, n)
        if steps < self.min_steps:
            return f"an update of {steps} steps, at least {self.min_steps} must be behind it"
        if batches == 1 and not self.allow_full_batch:
            return f"one step sees all {n} examples (batch_size {manifest.train.batch_size}), which is not allowed"
        return ""

    def check_update(self, manifest: Manifest, n: int) -> None:
        """PolicyError, before anything is trained on n examples."""
        if why := self.of_update(manifest, n) or self.of_work(manifest, n):
            raise PolicyError(f"refused by this device's owner: {why}")

    def of_statistics(self, n: int) -> int:
        """How many of n examples, the first ones, statistics may be told of: whole groups of `min_examples`. So where a
        table grows, two reports differ in that many rows at least. PolicyError if none may leave."""
        if not self.statistics:
            raise PolicyError(f"refused by this device's owner: {NO_STATISTICS}")
        if n < self.min_examples:
            raise PolicyError(
                f"refused by this device's owner: statistics of {n} examples, at least {self.min_examples} must be "
                "behind them"
            )
        return n - n % self.min_examples

    def clipped(self, delta: np.ndarray) -> np.ndarray:
        """delta (P,), scaled down to an L2 norm of `clip` if it is longer."""
        norm = l2_norm(delta)
        if norm <= self.clip:
            return delta
        scaled: np.ndarray = delta * np.float32(self.clip / norm * (1 - 1e-6))  # rounding must not lengthen it
        return scaled


OPEN = Policy()
STRICT = Policy(
    plans="ask", min_examples=10, min_steps=2, allow_gradient=False, allow_full_batch=False, max_lr=10.0,
    max_epochs=50, max_flops=1e13, max_seconds=600.0, statistics=False,
)  # fmt: skip


def parties(helpers: Iterable[str], operators: Mapping[str, str]) -> set[str]:
    """Who runs these helpers. Where `operators` say it of some, no other helper counts; else each is a party of its
    own."""
    return {operators[name] for name in helpers if name in operators} if operators else set(helpers)


def gradient_of(manifest: Manifest) -> str:
    """What in the manifest has a device send a gradient over all its examples; "" if nothing has."""
    if manifest.local_mode == "gradient":
        return 'local_mode "gradient"'
    return f"behind each delta: {', '.join(manifest.sent_sides)}" if manifest.sent_sides else ""


@dataclass
class OwnersWord:
    """What the policy says to manifests, with the plans that were `approved` on this device since. `met`: a plan has
    come to this device before, so the next one is not the first."""

    policy: Policy
    approved: frozenset[str] = field(default=frozenset())
    met: bool = False

    def on_manifest(self, manifest: Manifest, n: int, *, hides: bool = False) -> tuple[Trouble | None, list[Action]]:
        """Why the manifest is refused, for a device with about n examples, and what has to be saved for the owner."""
        policy = self.policy
        if why := policy.of_manifest(manifest) or policy.of_work(manifest, n, hides=hides):
            return Trouble("policy", f"refused by this device's owner: {why}"), []
        if policy.plans == "any":
            return None, []
        found, fitting = plan_id(manifest), approved_by(manifest)
        if fitting & policy.approved or (policy.plans != "pinned" and fitting & self.approved):
            return None, []
        is_first, self.met = not (self.met or policy.approved or self.approved), True
        if policy.plans == "first" and is_first:
            self.approved = frozenset({found})
            return None, [SavePlan(found, describe(manifest), approved=True)]
        saved: list[Action] = [SavePlan(found, describe(manifest))]
        if policy.plans == "pinned":
            return Trouble(
                "policy", f"refused by this device's owner: plan {short(found)} is not one of its plans"
            ), saved
        waits = f"plan {short(found)} waits for its owner: edgefl-agent approve {short(found)}"
        return Trouble("plan", waits), saved
