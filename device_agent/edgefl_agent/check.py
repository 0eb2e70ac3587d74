"""`edgefl-agent --check`: whether this device can take part, without taking part, and beside an agent that runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path

from edgefl import codecs
from edgefl.checks import broker, daemon, machine, training
from edgefl.checks.report import Finding, Table, ok, parted, problem, skipped, warning
from edgefl.device.owner.policy import Policy
from edgefl.device.seen import LOST
from edgefl.errors import DataError, UsageError
from edgefl.hosting.acting import as_owner_of
from edgefl.hosting.store import set_aside
from edgefl.plural import plural
from edgefl.protocol.approval import approved_by, plan_id
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.round import Round
from edgefl.protocol.topics import is_aggregators
from edgefl.settings import files

from . import model_check, seen_rows
from .checked_device import PACKAGES, Device
from .config import AgentConfig
from .governor import read_all, reasons
from .keys import load_keys, root_of
from .misfit import user_name
from .plans import PlanFolder


def configuration(device: Device) -> Iterator[Finding]:
    """What agent.toml says beyond single values, which were checked when it was read."""
    config = device.config
    if is_aggregators(config.mqtt.client_id or device.id):
        raise UsageError(f"[mqtt] client_id {config.mqtt.client_id!r} is an aggregator's: choose another")
    for codec in config.plugins.codecs:
        codecs.offer(codec)
    config.limits.budget()
    yield ok(f"device {device.id}, federation {config.federation}, data {config.data.source.partition('?')[0]}")
    if config.pause_file is not None and Path(config.pause_file).exists():
        yield warning(f"paused: {config.pause_file} exists", f"rm {config.pause_file} when it should take part again")


def keys(device: Device) -> Finding:
    """The pinned root, the device's own key, and its certificate."""
    config = device.config
    if config.keys.dir is None:
        text = "this federation is open: messages are not verified, updates are not signed"
        return skipped(f"{text}; docs/security.md says how to change that")
    load_keys(config.keys, config.federation, None)
    return ok(f"{config.keys.dir}: root and signing key can be used")


def masked(device: Device) -> Finding:
    """What the device remembers of masked rounds, or that this was lost."""
    root, path = root_of(device.config.keys), device.state_dir / "agent.db"
    if not root:
        return skipped("without keys this device takes part in no masked round")
    if not path.exists() and set_aside(path):
        return problem(*parted(LOST))
    if not path.exists():
        return ok(f"nothing to remember yet: no agent has run with {device.state_dir}")
    with as_owner_of(device.state_dir):  # SQLite may make files beside its database
        seen = seen_rows.look(path, root)
    if isinstance(seen, str):
        return skipped(seen)
    if seen.lost:
        return problem(*parted(LOST))
    if not (seen.masked_round or seen.epsilon):
        return ok("no masked round yet")
    return ok(f"remembers masked round {seen.masked_round} and epsilon {seen.epsilon:g}")


def certificate(device: Device) -> Finding:
    """The TLS certificate: its name, its issuer, and when it expires."""
    config = device.config
    return daemon.certificate(config.mqtt, device.id if config.keys.dir else None, "this device's")


def access(device: Device) -> Iterator[Finding]:
    """What the broker lets this client read and write."""
    visit, topics = device.visit, device.topics
    if not visit.is_in:
        yield skipped("the broker was not asked")
        return
    for denied in visit.denied:
        yield problem(*parted(denied))
    part = topics.update(device.id, 0, 0)
    answer = visit.answers.get(part)
    if visit.protocol != "5":
        yield skipped("whether it may publish: this broker hides refusals; a running agent finds out within a minute")
    elif answer is None:
        yield problem(f"the broker does not acknowledge what is published on {part!r}", "look at the broker's log")
    elif answer.refused:
        todo = f"{user_name(device.id)}; and the broker's ACL must let it write there"
        yield problem(f"may not publish its updates on {part!r} ({answer.reason})", todo)
    elif broker.nobody_listens(answer):
        yield warning("may publish its updates, and nobody listens", "start the aggregator, or wait until it is back")
    else:
        yield ok("may publish its updates, and reads its inbox and its status")


def federation(device: Device) -> Iterator[Finding]:
    """The manifest and the round that are on the broker."""
    if not device.visit.is_in:
        known = isinstance(device.model, Manifest)
        yield skipped("the broker was not asked" + ("; the last manifest of this device stands in" if known else ""))
        return
    manifest, round = device.manifest, device.round
    if isinstance(manifest, str):
        todo = (
            "check `federation`, [mqtt] root and the broker's ACL; or the aggregator has not started yet"
            if manifest.startswith("nothing is retained") else "compare this device's bundle with the operator's keys"
        )  # fmt: skip
        yield problem(f"no manifest: {manifest}", todo)
        return
    plan = manifest.plan
    text = f"{plan.num_params} params, input {tuple(plan.input_shape)}, loss {plan.loss_text}"
    if isinstance(round, str) and round.startswith("nothing is retained"):
        yield ok(f"{text}; no round has opened yet")
    elif isinstance(round, str):
        yield warning(f"{text}; no round: {round}", "see that the aggregator runs")
    else:
        yield ok(f"{text}; round {round.round} is {round.state}, at model version {round.version}")
    if (size := 4 * manifest.whole_size) > device.config.limits.model_bytes():
        yield problem(f"the model has {size} bytes: too many", "raise [limits] max_model_mb")


def owner(device: Device) -> Finding:
    """What the owner's policy says to the federation, and whether the owner's limits pause the device now."""
    manifest, policy, examples = device.model, device.policy, device.examples
    wanted = device.config.limits.governor(device.config.state_dir)
    if paused := reasons(wanted, read_all(wanted), {}, time.monotonic()):
        why = next(iter(paused.values())).why.text
        return warning(f"[limits] pause this device now: {why}", "wait, or change them")
    if isinstance(manifest, str) or isinstance(examples, str):
        return skipped(f"the policy: {manifest if isinstance(manifest, str) else examples}")
    n = len(examples.x_train)
    if why := policy.of_manifest(manifest) or policy.of_update(manifest, n) or policy.of_work(manifest, n):
        return problem(f"this device's [policy] refuses the federation: {why}", "change [policy], or ask the operator")
    return _approval(device, manifest, policy)


def _approval(device: Device, manifest: Manifest, policy: Policy) -> Finding:
    plans, found, fitting = PlanFolder(device.state_dir), plan_id(manifest), approved_by(manifest)
    first = policy.plans == "first" and not plans.all()
    if policy.plans == "any" or first or fitting & policy.approved:
        return ok("the policy allows what the federation asks for")
    if policy.plans == "pinned":
        text = f"the plan {found[:12]} is not among those of [policy] approved"
        return problem(text, f'add "{found}" there, if it may be trained here')
    if fitting & plans.approved():
        return ok("the owner has approved the plan")
    return warning(f"the plan {found[:12]} waits for its owner", f"edgefl-agent approve {found[:12]}, if it may")


def data(device: Device) -> Iterator[Finding]:
    """Whether the examples can be read."""
    if device.config.model.only:
        yield skipped("[model] only: this device takes models, and trains nothing")
        return
    dataset = device.dataset()
    yield ok(f"{plural(len(dataset.x_train), 'example')} of shape {dataset.x_train.shape[1:]}, {dataset.x_train.dtype}")
    if left_out := dataset.tally.text():
        yield warning(left_out, "see the agent's log for the first of them, and docs/data.md for `missing` and `bad`")
    yield from training.ranges(dataset)


def fit(device: Device) -> Iterator[Finding]:
    """Whether the federation's model takes the examples."""
    manifest, examples = device.model, device.examples
    if isinstance(manifest, str) or isinstance(examples, str):
        yield skipped(f"the model and the data: {manifest if isinstance(manifest, str) else examples}")
        return
    yield from training.shape(examples, manifest.plan)


def train(device: Device) -> Iterator[Finding]:
    """A timed step, and the codec."""
    manifest, examples = device.model, device.examples
    if isinstance(manifest, str) or isinstance(examples, str):
        yield skipped(f"a step: {manifest if isinstance(manifest, str) else examples}")
        return
    most_s = device.policy.max_seconds
    if isinstance(device.round, Round):
        most_s = min(most_s, device.round.deadline_s)
    arena_bytes = device.config.limits.arena_bytes()
    try:
        training.fitted(examples, manifest.plan)
    except DataError:
        yield skipped("a step: the model does not take the data")
        return
    threads = device.config.limits.threads
    yield from training.step(manifest, examples, arena_bytes=arena_bytes, threads=threads, deadline_s=most_s)


def model(device: Device) -> Iterator[Finding]:
    """Whether the owner's files of models can be written."""
    return model_check.look(device.config.model, device.model)


CHECKS: Table[Device] = {
    **machine.CHECKS,
    "agent": daemon.runs,
    "settings": configuration,
    "keys": keys,
    "masked": masked,
    "certificate": certificate,
    "broker": broker.reached,
    "mqtt": broker.mqtt,
    "access": access,
    "federation": federation,
    "data": data,
    "fit": fit,
    "owner": owner,
    "training": train,
    "model": model,
}


def main(path: str, sets: list[str], *, as_json: bool) -> int:
    """Check, and print what was found; the exit code."""
    read = functools.partial(files.load, path, AgentConfig, sets)
    return machine.check("agent", path, lambda: Device(read()), CHECKS, PACKAGES, as_json=as_json)
