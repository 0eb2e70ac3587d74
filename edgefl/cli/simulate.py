"""`edgefl simulate`: its options, and the run in memory or over MQTT."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..codecs import CODECS
from ..errors import EdgeFLError, UsageError, nearest
from ..history import History, total
from ..hosting import daemon
from . import model as cli_model
from .text import line, say
from .values import at_least, batch_size, name_and_options

EXAMPLE = "edgefl simulate --model mlp:64-32-10 --data digits --devices 50 --rounds 20 --partition shards:2"

FEEDBACK = {"auto": None, "on": True, "off": False}


def add_options(parser: argparse.ArgumentParser) -> None:
    """A federated run on this machine, in memory or over MQTT."""
    add = parser.add_argument
    add("--model", required=True, metavar="M.onnx", help="an ONNX file, or mlp:SIZES such as mlp:784-200-200-10")
    add(
        "--data",
        required=True,
        metavar="SPEC",
        help="digits, mnist:DIR, csv:FILE?target=COL, npz:FILE, python:MODULE:CALLABLE",
    )
    add("--out", type=Path, metavar="DIR", help="write model.onnx and history.jsonl there")
    add("--json", metavar="F", help="write the history there; - for standard output")
    _add_rounds(add)
    _add_training(add)
    _add_wire(add)
    cli_model.add_options(parser)
    parser.set_defaults(command=_simulate)


def _add_rounds(add: Callable[..., Any]) -> None:
    add("--devices", type=at_least(1), default=100, metavar="N")
    add("--rounds", type=at_least(1), default=20, metavar="R")
    add("--fraction", type=float, default=1.0, metavar="C", help="share of the devices that a round asks")
    add("--mode", default="sync", metavar="M", help="sync or async; options as M:key=value,..., as in [rounds]")
    add("--deadline", type=at_least(0.001), default=600.0, metavar="SECONDS", help="of a round; virtual in memory")
    add("--min-reports", type=at_least(1), default=1, metavar="N")
    add("--target-accuracy", type=at_least(0.0), metavar="A", help="end when it is reached")
    add("--holdout", type=float, default=0.0, metavar="H", help="share of its examples a device only evaluates on")
    add("--evaluate-every", type=at_least(2), metavar="K", help="one round in K only evaluates, on what is held out")
    add("--faults", default="", metavar="SPEC", help="dropout:P[:seconds],straggler:P[:factor] (memory transport)")
    add("--workers", type=at_least(1), metavar="W", help="threads, or processes of agents over MQTT (one a core)")
    add("--seed", type=at_least(0), default=0, metavar="S")


def _add_training(add: Callable[..., Any]) -> None:
    add("--partition", default="iid", metavar="P", help="iid, shards:K, dirichlet:A, natural, unbalanced:S")
    add("--epochs", type=at_least(1), default=1, metavar="E")
    add("--batch-size", type=batch_size, default=10, metavar="B", help="a number, or inf: all examples in one")
    add("--lr", type=float, default=0.1, metavar="L")
    add("--optimizer", default="sgd", choices=["sgd", "nesterov", "adam"], help="of the devices (%(default)s)")
    add("--strategy", default="fedavg", metavar="S", help="fedavg, fedavgm or fedsgd; options as NAME:key=value,...")


def _add_wire(add: Callable[..., Any]) -> None:
    add("--transport", default="memory", metavar="T", help="memory, mqtt (embedded broker) or mqtt:URL")
    add("--codec", default="raw32", metavar="K", help=f"{', '.join(CODECS)}; options as NAME:key=value,...")
    add(
        "--downlink-codec",
        default="raw32",
        metavar="K",
        help="of models: raw32, planes whole, others as differences",
    )
    add("--span", type=int, default=1, metavar="N", help="rounds whose models differ from one: about 1 / fraction")
    add("--error-feedback", default="auto", choices=FEEDBACK, help="devices add what the codec took to the next update")


def _simulate(options: argparse.Namespace) -> int:
    from .. import data

    kind, _, url = options.transport.partition(":")
    if kind not in ("memory", "mqtt") or (kind == "memory" and url):
        raise UsageError(f"unknown transport {options.transport!r}: {nearest(kind, ('memory', 'mqtt', 'mqtt:URL'))}")
    _check_outputs(options)
    dataset = data.load(options.data, seed=options.seed)
    model = cli_model.load(options, options.seed)
    show = say if options.json != "-" else lambda line: None
    if kind == "memory":
        history = _in_memory(options, model, dataset, show)
    else:
        history = _over_mqtt(options, url, model, dataset, show)
    _finish(options, model, history, show)
    if not history.final.committed:
        raise EdgeFLError(
            "no round was committed, the model is as it was: --log-level info says why devices did not report; "
            "then raise --deadline or lower --min-reports"
        )
    return 0


def _check_outputs(options: argparse.Namespace) -> None:
    """Before a long run, not after it: UsageError where its results could not be written."""
    try:
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make {options.out}: {error.strerror}: choose another folder with --out") from None
    file = Path(options.json or "-")
    if options.json != "-" and (file.is_dir() or not file.parent.is_dir()):
        raise UsageError(f"can't write {file}: name a file in a folder that exists with --json")


def _in_memory(options: argparse.Namespace, model: Any, dataset: Any, show: Callable[[str], None]) -> History:
    from ..simulation.simulate import simulate

    strategy, strategy_options = name_and_options(options.strategy)
    codec, codec_options = name_and_options(options.codec)
    downlink, downlink_options = name_and_options(options.downlink_codec)
    mode, round_options = name_and_options(options.mode)
    return simulate(
        model, dataset, devices=options.devices, rounds=options.rounds, fraction=options.fraction,
        partition=options.partition, epochs=options.epochs, batch_size=options.batch_size, lr=options.lr,
        strategy=strategy, strategy_options=strategy_options, codec=codec, codec_options=codec_options,
        error_feedback=FEEDBACK[options.error_feedback], downlink_codec=downlink, downlink_options=downlink_options,
        span=options.span, holdout=options.holdout, evaluate_every=options.evaluate_every,
        round_options={"mode": mode, **round_options}, faults=options.faults,
        deadline_s=options.deadline, min_reports=options.min_reports,
        target_accuracy=options.target_accuracy, workers=options.workers, seed=options.seed,
        train_options={"optimizer": options.optimizer},
        on_round=lambda record: show(line(record)), note=_log_note,
    )  # fmt: skip


def _over_mqtt(options: argparse.Namespace, url: str, model: Any, dataset: Any, show: Callable[[str], None]) -> History:
    import math
    import os

    from ..simulation.partitions import split
    from ..simulation.processes import ProcessFleet
    from ..transports.embedded import EmbeddedBroker

    if options.faults:
        raise UsageError("--faults works on the memory transport; over MQTT stop real processes instead")
    parts = split(dataset, options.partition, options.devices, options.seed)
    workers = options.workers or os.cpu_count() or 1
    with ExitStack() as stack:
        stack.enter_context(daemon.unwind_on_termination())
        folder = options.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefl-")))
        broker = url or stack.enter_context(EmbeddedBroker()).url
        fleet = ProcessFleet(
            folder.resolve(), broker, model.to_bytes(), dataset, parts, _settings(options, len(parts)),
            agents_per_process=math.ceil(len(parts) / workers),
        )  # fmt: skip
        stack.enter_context(fleet)
        fleet.wait(lambda record: show(line(record)), timeout_s=options.rounds * options.deadline + 60)
        trained = cli_model.load_trained(options, fleet.folder / "state" / "model.onnx")
        return History(trained.params, fleet.records())


def _settings(options: argparse.Namespace, devices: int) -> dict[str, Any]:
    """aggregator.toml's tables of a simulated run over MQTT."""
    strategy, strategy_options = name_and_options(options.strategy)
    codec, codec_options = name_and_options(options.codec)
    downlink, downlink_options = name_and_options(options.downlink_codec)
    mode, round_options = name_and_options(options.mode)
    return {
        "loss": options.loss,
        "freeze": options.freeze,
        "dims": dict(options.dim),
        "rounds": {
            "rounds": options.rounds, "deadline_s": options.deadline, "min_reports": options.min_reports,
            "fraction": options.fraction, "expect": devices, "target_accuracy": options.target_accuracy, "mode": mode,
            **round_options,
        },
        "train": {
            "optimizer": options.optimizer, "epochs": options.epochs, "lr": options.lr,
            "batch_size": options.batch_size or 0,
            "seed": options.seed % 2**32,
        },
        "strategy": {"name": strategy, "options": strategy_options},
        "codec": {
            "name": codec, "options": codec_options, "error_feedback": FEEDBACK[options.error_feedback],
        },
        "downlink": {"codec": downlink, "options": downlink_options, "span": options.span},
        "evaluate": {
            "devices": options.holdout > 0, "holdout": options.holdout or None, "every": options.evaluate_every,
        },
    }  # fmt: skip


def _finish(options: argparse.Namespace, model: Any, history: History, show: Callable[[str], None]) -> None:
    import msgspec

    if options.out:
        model.save(options.out / "model.onnx", history.params)
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in history.rounds)
        (options.out / "history.jsonl").write_bytes(lines)
    if options.json == "-":
        sys.stdout.write(history.to_json().decode() + "\n")
    elif options.json:
        Path(options.json).write_bytes(history.to_json() + b"\n")
    show(total(history.final))


def _log_note(name: str, note: Any) -> None:
    import logging

    logging.getLogger(f"edgefl.{name}").log(getattr(logging, note.level.upper()), "%s: %s", name, note.text)
