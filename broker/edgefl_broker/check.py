"""`edgefl-aggregator --check`: whether this federation can be run from here, without running it."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from edgefl import auto
from edgefl.checks import broker, daemon, machine, training
from edgefl.checks.broker import Visit
from edgefl.checks.probe import Probe
from edgefl.checks.report import Finding, Table, ok, parted, problem, skipped, warning
from edgefl.coordinator.devices import cohort
from edgefl.data import Dataset
from edgefl.errors import DataError, EdgeFLError, UsageError
from edgefl.federation import make_manifest
from edgefl.hosting.config import AggregatorConfig
from edgefl.onnx.evaluate import OnnxEvaluator
from edgefl.onnx.model import Model
from edgefl.plural import plural
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.topics import AGGREGATOR_USER, Topics, aggregator_client_id
from edgefl.settings import files

from .choice import Look, choice_of, within_budget
from .keys import KeyFolder
from .masked import open_helpers
from .model_file import load_both, load_model

PACKAGES = ("numpy", "paho-mqtt", "msgspec", "onnx", "onnxruntime", "rich")
DASHBOARD = ("starlette", "uvicorn", "prometheus-client")
SCRATCH_SLOT = 65534  # of the model's topics: no model has it, and no device reads it
NO_RUN = "0" * 16
FEW = 32  # examples, where there are no test data


class Federation:
    """What the checks look at. What takes time is found once, when it is first asked for."""

    def __init__(self, config: AggregatorConfig) -> None:
        self.config, self.state_dir = config, Path(config.state_dir)
        self.topics = Topics(config.federation, config.mqtt.root)
        self.packages: tuple[str, ...] = (*PACKAGES, "pynacl") if config.keys.dir is not None else PACKAGES
        if config.dashboard.listen is not None:
            self.packages += DASHBOARD
        self.scratch = self.topics.model(SCRATCH_SLOT, 0)
        self.running, self.locked = daemon.claimed(self.state_dir)
        self._chosen = Look(None if self.locked else self.state_dir)  # a folder that has run keeps its choices

    @property
    def part_bytes(self) -> int:
        found = self.config.codec.part_bytes
        return self.config.mqtt.limits.part_bytes if found == "auto" else found

    @cached_property
    def _both(self) -> tuple[Model, Dataset | None]:
        model, test = load_both(self.config)
        return self._within(model), test

    @cached_property
    def model(self) -> Model:
        """ModelError, UsageError."""
        try:
            return self._both[0]
        except (DataError, UsageError):  # perhaps of the test data
            return self._within(load_model(self.config))

    def _within(self, model: Model) -> Model:
        """As [sparse] wants it."""
        return within_budget(self.config, model, self._chosen).model

    @cached_property
    def manifest(self) -> Manifest | str:
        """What devices would be told; or why not, which `settings` and `model` say in full."""
        try:
            return self.make_manifest()
        except EdgeFLError as error:
            return str(error)

    def make_manifest(self) -> Manifest:
        """UsageError, ModelError."""
        config, plan = self.config, self.model.plan
        if choice := choice_of(config, plan, self._chosen):
            config = auto.apply(config, choice)
        if config.codec.part_bytes == "auto":
            config = config.replace(**{"codec.part_bytes": self.part_bytes})
        return make_manifest(config, config.federation, NO_RUN, plan)

    @property
    def test(self) -> Dataset | None:
        """DataError, UsageError."""
        return self._both[1]

    @cached_property
    def visit(self) -> Visit:
        """What one visit to the broker has shown."""
        own_id = aggregator_client_id(self.config.federation)
        return broker.go(self.config.mqtt, own_id, running="the aggregator" if self.running else "", ask=self._ask)

    def _ask(self, probe: Probe) -> None:
        probe.subscribe(self.topics.any_status, self.topics.aggregator)
        broker.retained_round_trip(probe, self.scratch)


# Checks


def settings(federation: Federation) -> Iterator[Finding]:
    """What aggregator.toml says across keys: single values were checked when it was read."""
    config = federation.config
    cohort.check(config.rounds)
    config.gate.check(config.evaluate.test_data is not None, config.evaluate.holdout)
    config.rounds.check_evaluation(config.evaluate.holdout)
    if config.dashboard.listen is not None:
        config.dashboard.check()
    manifest = federation.make_manifest()
    yield ok(
        f"federation {config.federation}, strategy {config.strategy.name}, codec {manifest.codec}, models as "
        f"{manifest.downlink}"
    )
    if manifest.personal:
        yield _personal(manifest, config)


def _personal(manifest: Manifest, config: AggregatorConfig) -> Finding:
    """Which params stay on the devices, and whether anything tells what their models are worth."""
    mask, names = manifest.mask, [manifest.plan.params[index].name for index in manifest.personal]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    text = f"devices keep {shown}; an update has {mask.num_shared} of {mask.num_params} params"
    if config.evaluate.holdout:
        return ok(text)
    return warning(f"{text}; no model that a device uses is evaluated", "set evaluate.holdout")


def model(federation: Federation) -> Iterator[Finding]:
    """The ONNX file, and the loss that was inferred."""
    found, config = federation.model, federation.config
    yield ok(
        f"{config.model}: {found.plan.num_params} params, {found.plan.num_trainable} trained, input "
        f"{tuple(found.plan.input_shape)}; loss: {found.loss_line}"
    )
    if not found.plan.num_trainable:
        yield problem("nothing in the model is trained", "change `freeze`, or export the file with its weights")


def test_data(federation: Federation) -> Iterator[Finding]:
    """The test set, and how long an evaluation takes."""
    test = federation.test
    if test is None:
        yield skipped("none is set: rounds will have no accuracy; evaluate.test_data or evaluate.holdout give one")
        return
    assert test.x_test is not None and test.y_test is not None
    began = time.perf_counter()
    result = OnnxEvaluator(federation.model).evaluate(federation.model.params, test.x_test, test.y_test)
    accuracy = "" if result.accuracy is None else f", accuracy {result.accuracy:.3f}"
    took = f"{plural(len(test.x_test), 'example')} in {time.perf_counter() - began:.3g} s"
    text = f"{took}: loss {result.loss:.4g}{accuracy}"
    yield ok(f"{text}, with the model as it is in the file")


def keys(federation: Federation) -> Finding:
    """The signing key, what the root says of it and of the helpers, and the roster."""
    config = federation.config
    if config.keys.dir is None:
        return skipped("this federation is open: nothing is signed; docs/security.md says how to change that")
    _, roster = KeyFolder(Path(config.keys.dir), config.federation, lambda name, serial: serial).keys
    open_helpers(config, lambda name, serial: serial)
    enrolled = sum(not member.revoked for member in roster.devices.values())
    if not enrolled:
        return warning("no device is enrolled", "edgefl keys add NAME, then copy roster.json here")
    helpers = f", helpers {', '.join(config.privacy.helper_names)}" if config.privacy.masked else ""
    roster_is = f"roster {roster.serial} with {plural(enrolled, 'device')}"  # as a helper's --check tells of its own
    return ok(f"{config.keys.dir}: the signer can be used, {roster_is}{helpers}")


def certificate(federation: Federation) -> Finding:
    """The TLS certificate: its name, its issuer, and when it expires."""
    config = federation.config
    return daemon.certificate(config.mqtt, AGGREGATOR_USER if config.keys.dir else None, "the aggregator's")


def access(federation: Federation) -> Iterator[Finding]:
    """What the broker lets this client write, keep and read."""
    visit = federation.visit
    if not visit.is_in:
        yield skipped("the broker was not asked")
        return
    for denied in visit.denied:
        yield problem(*parted(denied))
    yield broker.retains(visit, federation.scratch, "a topic of models")


def devices(federation: Federation) -> Finding:
    """Which devices have left a status on the broker."""
    visit = federation.visit
    if not visit.is_in:
        return skipped("the broker was not asked")
    found = sorted(filter(None, map(federation.topics.device_of, visit.messages)))
    if not found:
        text = "no device has left a status"
        return ok(f"{text}: `edgefl-agent --check` on a device says whether it can")
    names = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
    return ok(f"{len(found)} have left a status: {names}")


def train(federation: Federation) -> Iterator[Finding]:
    """A step as devices do it, and the codec."""
    manifest = federation.manifest
    if isinstance(manifest, str):
        yield skipped(f"there is no manifest: {manifest}")
        return
    try:
        test = federation.test
    except EdgeFLError:
        test = None
    if test is None or test.x_test is None or test.y_test is None:
        examples = training.random_examples(manifest.plan, FEW)
    else:
        examples = Dataset(test.x_test, test.y_test)
    yield from training.step(manifest, examples, deadline_s=federation.config.rounds.deadline_s)


CHECKS: Table[Federation] = {
    **machine.CHECKS,
    "aggregator": daemon.runs,
    "model": model,
    "settings": settings,
    "test data": test_data,
    "keys": keys,
    "certificate": certificate,
    "broker": broker.reached,
    "mqtt": broker.mqtt,
    "access": access,
    "devices": devices,
    "training": train,
}


def main(path: str, sets: list[str], *, as_json: bool) -> int:
    """Check, and print what was found; the exit code."""
    read = functools.partial(files.load, path, AggregatorConfig, sets)
    return machine.check("aggregator", path, lambda: Federation(read()), CHECKS, PACKAGES, as_json=as_json)
