"""`edgefl new`: its options and questions, and what it prints. The work is in edgefl/project/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..plural import plural
from .text import say

if TYPE_CHECKING:
    from ..project.made import Made

EXAMPLE = """edgefl new fleet
  edgefl new fleet --data machines.csv --devices pi-01,pi-02 --split
  edgefl new fleet --data "npz:/var/lib/edgefl/{name}.npz" --model cnn1d --broker mqtts://broker.example.org --keys"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Write the files of a new federation, ready to run: model, settings, keys, and a README with the commands.

    On a terminal it asks for what no option says. It reads the data that are on this machine to find shapes, classes
    and scaling, tries the model on them, and reads back all that it has written. It never overwrites anything.
    """
    add = parser.add_argument_group("the federation").add_argument
    add("dir", metavar="DIR", type=Path, help="the folder to make")
    add("--data", metavar="SPEC", help="the devices' data, or a table's file; {name} stands for the device")
    add("--model", metavar="NAME", help="an ONNX file, linear, mlp, cnn, cnn1d, gru, autoencoder or auto (the default)")
    add("--loss", metavar="NAME", help="the loss (default: inferred from model and data)")
    add("--devices", metavar="A,B", help="names of the devices (default: dev-01,dev-02)")
    add("--split", action="store_const", const=True, help="deal the rows of a csv: table to the devices, for a trial")
    add("--federation", metavar="NAME", help="name of the federation (default: the folder's)")
    add("--seed", type=int, default=0, metavar="N", help="draws the weights of a template")
    group = parser.add_argument_group("the broker, and who may take part")
    group.add_argument(
        "--broker", metavar="URL", help="mqtts://HOST[:PORT] or mqtt://HOST[:PORT] (default: this machine)"
    )
    group.add_argument("--guard", metavar="FILE", help="where the broker's machine has the guard, its plug-in")
    either = group.add_mutually_exclusive_group()
    either.add_argument("--keys", action="store_const", const=True, help="certificates and signing keys (the default)")
    either.add_argument("--open", dest="keys", action="store_const", const=False, help="a trial without keys")
    parser.set_defaults(command=_new)


def _new(options: argparse.Namespace) -> int:
    try:
        from ..project import questions, write
        from ..project.wanted import AUTO, DEVICES, Wanted
    except ImportError as error:
        raise UsageError(f"edgefl new needs onnx ({error}): pip install 'edgefl-toolkit[aggregator]'") from None
    given: dict[str, Any] = {key: getattr(options, key) for key in questions.KEYS}
    Wanted(options.dir, "", federation=options.federation or "")  # before any question
    if given["data"] is None:
        if not sys.stdin.isatty():
            raise UsageError("there is no terminal to ask: give --data SPEC at least, as in the example of --help")
        try:
            given = questions.ask(given)
        except EOFError:
            raise UsageError("the answers have ended before the questions: nothing is written") from None
    devices = tuple(name.strip() for name in (given["devices"] or ",".join(DEVICES)).split(","))
    wanted = Wanted(
        options.dir, given["data"], given["model"] or AUTO, given["broker"] or "", given["keys"] is not False,
        options.federation or "", devices, bool(given["split"]), options.guard, options.loss, options.seed,
    )  # fmt: skip
    _say(write.make(wanted))
    return 0


def _say(made: Made) -> None:
    model, dataset = made.choice.model, made.sample.dataset
    shape = "x".join(map(str, dataset.x_train.shape[1:])) or "1"
    say(f"data: {plural(len(dataset.x_train), 'example')} of {shape} in {made.sample.own[0]}")
    for note in (*made.sample.notes, dataset.tally.text()):
        if note:
            say(f"data: {note}")
    if made.sample.labels:
        say(f"classes: {', '.join(made.sample.labels)}")
    say(f"model: {made.choice.template or made.wanted.model}, {model.plan.num_params:,} params; loss {model.loss_line}")
    say(f"{made.folder} is made and has been read back; next: {made.folder / 'README.md'}")
