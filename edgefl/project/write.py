"""Writes a federation's folder, whole or not at all: beside it first, and renamed when all has been read back."""

from __future__ import annotations

import math
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..atomic import write_atomically
from ..errors import UsageError
from ..onnx.scaling import with_scaling
from ..private_files import opener
from ..protocol.approval import id_of
from ..settings.features import FeatureSettings
from ..settings.render import dump
from . import readme, scaling
from .complete import as_spec
from .made import Made
from .model_file import Choice, choose, named, try_out
from .proof import prove
from .sample import NAME, Sample, absolute, read_sample, with_options
from .split import FOLDER, split_table
from .wanted import Wanted

MODEL, AGGREGATOR, README, MOSQUITTO, KEYS = "model.onnx", "aggregator.toml", "README.md", "mosquitto.conf", "keys"
HOLDOUT = 0.2
MIN_DEVICES = FeatureSettings().min_devices  # that a scaling is learned from
WATCHER = "operator"  # who runs edgefl status
EXPLAINS = "--print-config explains every key."
OPEN_MOSQUITTO = """\
# mosquitto for a trial on this machine: anybody here may connect. For anything else, close the federation: edgefl keys.
listener {port} 127.0.0.1
allow_anonymous true
max_packet_size 1048576
max_queued_messages 100000
"""


def make(wanted: Wanted) -> Made:
    """Write the folder; UsageError, DataError, ModelError with nothing written."""
    final = wanted.folder.absolute()
    with tempfile.TemporaryDirectory(prefix=f".{final.name}-", dir=final.parent) as scratch:
        folder = Path(scratch) / final.name
        folder.mkdir()
        made = _files(_decide(wanted, folder), folder, final)
        prove(wanted, folder, [spec.replace(str(final), str(folder)) for spec in made.sample.own])
        _put(folder / README, readme.text(made))
        try:
            folder.rename(final)  # replaces an empty folder only
        except OSError as error:
            raise UsageError(f"can't make {final}: {error.strerror}: name a folder that does not exist") from None
    return made


def _decide(wanted: Wanted, folder: Path) -> Made:
    """Read the data, choose the model, and try it."""
    spec = absolute(as_spec(wanted.data))
    if wanted.split:
        spec = split_table(spec, wanted.devices, folder / FOLDER)
    sample = read_sample(spec, wanted.devices)
    choice = choose(wanted, sample)
    plan = choice.model.plan
    features = "" if plan.inputs else scaling.of_features(sample.spec, sample.dataset)  # tokens may be among several
    targets = "" if plan.losses else scaling.of_targets(sample.spec, sample.dataset)  # and labels
    sample, federated = _scaled(wanted, sample, features, targets, choice)
    return Made(wanted, folder, sample, choice, federated)


def _scaled(wanted: Wanted, sample: Sample, features: str, targets: str, choice: Choice) -> tuple[Sample, bool]:
    """The sample as devices will train on it, and whether the federation learns the scaling of its columns.

    `features`, `targets`: options that scale them, "" if they are of a usual size. A file that was made for raw
    columns, since it scales by itself or was trained on them, learns better from these. UsageError if training diverges
    whatever is done.
    """
    if targets:
        note = f"the model predicts scaled targets: {targets.replace('&', ', ')}"
        sample = _with(wanted, sample, targets, note)
    trial = try_out(choice.model, sample, choice.train)
    if features and (choice.template or sample.restores or trial.scaled < trial.raw):
        if _can_learn_scaling(wanted, sample):
            return sample, True
        return _with(wanted, sample, features, "the columns are scaled by numbers of this sample"), False
    if not trial.raw < math.inf:
        raise UsageError("training diverges on these columns: give mean= and std= in the SPEC, the same on all devices")
    return sample, False


def _with(wanted: Wanted, sample: Sample, options: str, note: str) -> Sample:
    """The sample, read again with these options too."""
    return replace(read_sample(with_options(sample.spec, options), wanted.devices), notes=(*sample.notes, note))


def _can_learn_scaling(wanted: Wanted, sample: Sample) -> bool:
    """Whether the federation can: it has enough devices, and the targets are not the columns themselves."""
    return not (sample.restores or sample.examples.tokens) and len(wanted.devices) >= MIN_DEVICES


def _files(made: Made, folder: Path, final: Path) -> Made:
    wanted, sample = made.wanted, made.sample
    sample = replace(
        sample,
        spec=sample.spec.replace(str(folder), str(final)),
        own=tuple(spec.replace(str(folder), str(final)) for spec in sample.own),
    )
    made = replace(made, folder=final, sample=sample)
    write_atomically(folder / MODEL, named(made.choice.model, sample))
    _put(folder / AGGREGATOR, f"# The aggregator of {wanted.name}. edgefl-aggregator {EXPLAINS}\n", aggregator(made))
    if wanted.keys:
        return replace(made, guarded=_keys(made, folder, final))
    for device in wanted.devices:
        home = folder / "devices" / device
        home.mkdir(parents=True)
        note = f"# {device} in the federation {wanted.name}. edgefl-agent {EXPLAINS}\n"
        _put(home / "agent.toml", note, agent(made, device))
    if wanted.is_here:
        _put(folder / MOSQUITTO, OPEN_MOSQUITTO.format(port=wanted.port))
    return made


def aggregator(made: Made) -> dict[str, Any]:
    """What aggregator.toml says. Paths begin at the federation's folder."""
    wanted, devices = made.wanted, len(made.wanted.devices)
    return {
        "federation": wanted.name,
        "model": MODEL,
        "loss": made.choice.model.losses,
        "state_dir": "state",
        "mqtt": {"url": wanted.url},
        **({"keys": {"dir": f"{KEYS}/aggregator"}} if wanted.keys else {}),
        **({"train": made.choice.train} if made.choice.train else {}),
        **({"features": {"standardize": "federated"}} if made.federated else {}),
        "rounds": {"expect": devices, "min_reports": min(2, devices)},
        "evaluate": {"holdout": HOLDOUT},
    }


def agent(made: Made, device: str) -> dict[str, Any]:
    """What an open device's agent.toml says."""
    return {
        "federation": made.wanted.name,
        "device_id": device,
        "state_dir": f"devices/{device}/state",
        "mqtt": {"url": made.wanted.url},
        "data": {"source": made.sample.spec.replace(NAME, device)},
    }


def _keys(made: Made, folder: Path, final: Path) -> bool:
    """The folder of keys, with a bundle for each device that pins the plan; whether mosquitto.conf names the guard."""
    try:
        from ..keys import broker_files, enrolment
        from ..keys.federation import Federation
    except ImportError as error:
        raise UsageError(f"keys need the extra operator ({error}): pip install 'edgefl-toolkit[operator]'") from None
    wanted, keys = made.wanted, folder / KEYS
    guard = wanted.guard or broker_files.GUARD
    home = str(final / KEYS / "broker") if wanted.is_here else broker_files.HOME
    enrolment.init(
        keys,
        Federation(federation=wanted.name, broker=wanted.host, port=wanted.port, home=home, guard=guard),
    )
    (keys / "aggregator" / AGGREGATOR).unlink()  # ours stands beside the folder of keys
    model = with_scaling(made.choice.model) if made.federated else made.choice.model
    policy = {"plans": "pinned", "approved": [id_of(model.plan)], "statistics": True if made.federated else None}
    enrolment.add(keys, wanted.devices, enrolment.Terms(made.sample.spec, policy))
    enrolment.add(keys, [WATCHER], role="viewer")
    if wanted.guard or not wanted.is_here or Path(guard).exists():
        return True
    conf = keys / "broker" / MOSQUITTO
    text = re.sub(r"^plugin.*\n", "", conf.read_text(), flags=re.MULTILINE)
    write_atomically(conf, text.replace("It does not start without it.", "").encode())
    return False


def _put(path: Path, text: str, table: dict[str, Any] | None = None) -> None:
    """Write a file that only its owner reads, since a URL or a SPEC may tell a lot."""
    body = text if table is None else text + dump(table).strip() + "\n"
    with open(path, "w", encoding="utf-8", opener=opener) as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
