"""`edgefl-agent predict`: what the newest model on this device says of examples, computed by the core.

Of several trained outputs each has its name: the class that is predicted, or the only number, under the output's name,
and its numbers as name.0, name.1, ...
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgefl import data
from edgefl.core.columns import Scaling
from edgefl.core.plan import Plan
from edgefl.core.trainer import Trainer
from edgefl.data import fit_plan
from edgefl.errors import StoreError, UsageError
from edgefl.hosting import command
from edgefl.hosting.acting import as_owner_of
from edgefl.settings import files

from .commands import add_config
from .config import AgentConfig
from .model_files import ModelFiles, read_params

BATCH = 256
TABLES = ("csv", "sqlite", "npz", "folder", "ring")  # kinds that can leave the target out
OF_TARGETS = ("target_mean", "target_std")
CHOOSES = ("cross_entropy", "focal", "hinge")  # losses whose highest output is the prediction
Write = Callable[[int, list["Output"]], None]
log = logging.getLogger("edgefl.agent")


def main(words: list[str]) -> int:
    """Exit code 0; 1 if there is no model yet, 2 wrong use."""
    options = make_parser().parse_args(words)
    return command.run(options, lambda: predict(options))


def make_parser() -> command.Parser:
    parser = command.Parser(
        prog="edgefl-agent predict",
        description="Compute what the newest model on this device says of examples, one line for each.",
        example="edgefl-agent predict --data csv:/var/lib/edgefl/today.csv?target=state\n  "
        "edgefl-agent predict --plan plan.json --params params.npy --data npz:today.npz --json",
    )
    add = parser.add_argument_group("the model").add_argument
    help = "the agent's configuration, whose [model] names the files"
    add_config(add, "model.file=/var/lib/edgefl/model.onnx", help)
    add("--plan", metavar="FILE", help="a plan_file, in place of the configuration")
    add("--params", metavar="FILE", help="the params_file that belongs to it")
    add = parser.add_argument_group("the examples").add_argument
    add("--data", metavar="SPEC", required=True, help="the examples, as in [data] source; targets are not looked at")
    add("--json", action="store_true", help="print a JSON object a line instead of CSV")
    command.add_common_options(parser, level="warning")
    return parser


def predict(options: argparse.Namespace) -> None:
    """Print a line for each example; UsageError, StoreError, DataError."""
    plan, params, labels = _given(options) if options.plan or options.params else _configured(options)
    scaling = Scaling.of(plan)
    means = None if scaling is None or scaling.is_identity(params) else params[scaling.mean]  # as in training
    dataset = fit_plan(data.load(_unlabelled(options.data), test_fraction=0, means=means), plan)
    if left_out := dataset.tally.text():
        log.warning("%s: the numbers of the others are without them", left_out)
    trainer = Trainer(plan, batch=BATCH)
    names = {"": labels or dataset.labels, **dataset.target_labels}
    write = _json if options.json else _table(sys.stdout)
    for row, outputs in enumerate(_outputs(trainer, params, dataset.x_train, names)):
        write(row, outputs)


class Output(NamedTuple):
    """What one output says of an example. `chosen`: the class that is predicted, by its name if that is known; None
    where the numbers are the prediction. `name` is "" if there is no other output."""

    name: str
    chosen: Any
    numbers: np.ndarray


def _unlabelled(spec: str) -> str:
    """The SPEC of the same examples, whether they have targets or not, and none of them held out."""
    kind, rest, options = data.parse(spec)
    if kind in TABLES:
        options = {key: value for key, value in options.items() if key not in OF_TARGETS} | {"unlabelled": "1"}
    if "test" in options:
        options["test"] = "0"
    if not options:
        return spec
    return f"{kind}:{rest}?" + "&".join(f"{key}={value.replace('&', '%26')}" for key, value in options.items())


def _outputs(
    trainer: Trainer, params: np.ndarray, x: np.ndarray, names: Mapping[str, Sequence[str]]
) -> Iterator[list[Output]]:
    """A list for each example. `names` are those of each output's classes, where they are known."""
    plan = trainer.plan
    losses = {head.name: head.loss for head in plan.losses or []} or {"": plan.loss}
    for begin in range(0, len(x), BATCH):
        rows = trainer.predict(params, x[begin : begin + BATCH])
        parts = trainer.by_output(rows) if plan.losses else {"": rows}
        for at in range(len(rows)):
            yield [
                Output(name, _chosen(losses[name], part[at], names.get(name, ())), part[at])
                for name, part in parts.items()
            ]


def _chosen(loss: str, numbers: np.ndarray, names: Sequence[str]) -> Any:
    if loss not in CHOOSES or numbers.ndim != 1:
        return None
    number = int(numbers.argmax())
    return names[number] if len(names) == len(numbers) else number


def _table(file: Any) -> Write:
    writer = csv.writer(file, lineterminator="\n")

    def write(row: int, outputs: list[Output]) -> None:
        if row == 0:
            writer.writerow(["row", *(name for output in outputs for name in _header(output))])
        writer.writerow([row, *(cell for output in outputs for cell in _cells(output))])

    return write


def _header(output: Output) -> list[str]:
    numbers = range(output.numbers.size)
    if not output.name:
        return [*([] if output.chosen is None else ["prediction"]), *(f"output{at}" for at in numbers)]
    if output.chosen is None and output.numbers.size == 1:
        return [output.name]
    return [*([] if output.chosen is None else [output.name]), *(f"{output.name}.{at}" for at in numbers)]


def _cells(output: Output) -> list[Any]:
    numbers = [f"{number:.9g}" for number in output.numbers.ravel().tolist()]  # float32, to the last bit
    return numbers if output.chosen is None else [output.chosen, *numbers]


def _json(row: int, outputs: list[Output]) -> None:
    chosen = {output.name: output.chosen for output in outputs if output.chosen is not None}
    numbers = {output.name: output.numbers.tolist() for output in outputs}
    told: dict[str, Any] = {"row": row}
    if chosen:
        told["prediction"] = chosen.get("", chosen)
    told["outputs"] = numbers.get("", numbers)
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")


def _given(options: argparse.Namespace) -> tuple[Plan, np.ndarray, tuple[str, ...]]:
    if not (options.plan and options.params):
        raise UsageError("--plan and --params go together: give both files")
    try:
        plan = Plan.from_bytes(Path(options.plan).read_bytes())
    except OSError as error:
        raise UsageError(f"can't read {options.plan}: {error.strerror}") from None
    params = read_params(options.params, plan)
    if params is None:
        raise UsageError(f"{options.params} has no {plan.num_params} float32 numbers of this plan: check both files")
    return plan, params, ()


def _configured(options: argparse.Namespace) -> tuple[Plan, np.ndarray, tuple[str, ...]]:
    config = files.load(options.config, AgentConfig, options.set)
    folder = Path(config.state_dir)
    kept = ModelFiles(config.model, folder)
    if not folder.is_dir():
        raise StoreError(f"{folder} is missing: start the agent, and wait for a model")
    with as_owner_of(folder):
        plan, params, labels = kept.plan(), kept.params(), kept.labels()
    if plan is None or params is None:
        raise StoreError("there is no model yet, or its files are damaged: the agent writes them with the next one")
    return plan, params, labels
