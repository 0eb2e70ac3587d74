"""The README of a new federation: the commands to run, in order, each as it stands."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING

from ..keys.broker_files import HOME
from .complete import as_spec
from .sample import NAME, absolute, with_options

if TYPE_CHECKING:
    from .made import Made

QUICK = "--set rounds.interval_s=2"  # a trial's rounds follow each other; else they open a minute apart


def mosquitto() -> str:
    """How a shell finds it: Debian keeps it where the PATH of ordinary users has no folder."""
    folders = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    return shutil.which("mosquitto", path=folders) or "mosquitto"


def text(made: Made) -> str:
    """The whole page."""
    parts = [_what(made), _look(made), _start(made), _result(made), _machines(made)]
    return "\n".join(parts).rstrip() + "\n"


def _what(made: Made) -> str:
    wanted, model, choice = made.wanted, made.choice.model, made.choice
    source = f"the template {choice.template}" if choice.template else "your own file"
    rows = [
        ("model.onnx", f"the model: {source}, {model.plan.num_params:,} params, loss {model.losses}"),
        ("aggregator.toml", "the aggregator's settings"),
    ]
    if wanted.split:
        rows.append(("data/", "the rows of your table, dealt to the devices"))
    if wanted.keys:
        rows.append(("keys/", "who may take part and sign: keep it off line, and a copy of it"))
        rows.append(("keys/devices/", "a bundle for each device, with its agent.toml"))
    else:
        rows.append(("devices/", "an agent.toml for each device"))
    if not wanted.keys and wanted.is_here:
        rows.append(("mosquitto.conf", "a broker for a trial on this machine"))
    table = "\n".join(f"| `{name}` | {what} |" for name, what in rows)
    names = ", ".join(made.sample.labels)
    labels = f"\nThe classes 0, 1, 2, ... are {names}, in this order on every device.\n" if names else ""
    scaled = (
        "\nThe columns are scaled in front of the model. For that each device tells sums and histograms of its columns "
        "once, in\nthe first round, as `[policy] statistics` of its agent.toml lets it. `state/model.onnx` takes raw "
        "columns.\n"
        if made.federated
        else ""
    )
    return f"""# The federation {wanted.name}

`edgefl new` wrote this folder, and has read all of it back. Run every command in it.

| here | is |
|---|---|
{table}
{labels}{scaled}"""


def _here(made: Made) -> str:
    """A SPEC that can be read on this machine: of the whole table, where it was dealt to devices."""
    if not made.wanted.split:
        return made.sample.own[0]
    whole, _, given = absolute(as_spec(made.wanted.data)).partition("?")
    own = [item for item in given.split("&") if item.startswith("encoding=")]
    return with_options(f"{whole}?{made.sample.spec.partition('?')[2]}", "&".join(own)).rstrip("&")


def _look(made: Made) -> str:
    spec = shlex.quote(_here(made))
    return f"""## Look at it first

What the model consists of, and whether your data fit it; then the very settings on this machine, without a broker:

```sh
cd {shlex.quote(str(made.folder))}
edgefl inspect model.onnx --loss {shlex.quote(made.choice.model.losses)} --data {spec}
edgefl simulate --config aggregator.toml --data {spec} --devices {max(2, len(made.wanted.devices))} --rounds 10
```
"""


def _start(made: Made) -> str:
    wanted = made.wanted
    lines = []
    if wanted.is_here:
        conf = "keys/broker/mosquitto.conf" if wanted.keys else "mosquitto.conf"
        lines.append(f"{mosquitto()} -c {conf} > mosquitto.log 2>&1 &")
    lines.append(f"edgefl-aggregator --config aggregator.toml {QUICK} &")
    names = " ".join(wanted.devices[:4])
    if wanted.keys:
        unpack = 'mkdir -p "devices/$name" && tar -xf "keys/devices/$name.tar" -C "devices/$name"'
        lines.insert(0, f"for name in {names}; do {unpack}; done")
        lines.insert(1, "mkdir -p watch && tar -xf keys/viewers/viewer-operator.tar -C watch")
    run = 'edgefl-agent --config "devices/$name/agent.toml" --set "state_dir=devices/$name/state" &'
    lines.append(f"for name in {names}; do {run} done")
    note = ""
    if wanted.is_here and wanted.keys and not made.guarded:
        note = """
The guard, the plug-in that keeps devices within their rights at the broker, is not installed here, so mosquitto.conf
does not name it. For anything but a trial build it: the page "Keys" of the documentation has the steps.
"""
    where = "" if wanted.is_here else f"\nThe broker at {wanted.url} has to run, and to let these clients in.\n"
    body = "\n".join(lines)
    return f"""## Start it

On this machine, as an ordinary user:
{where}
```sh
{body}
```
{note}"""


def _result(made: Made) -> str:
    wanted = made.wanted
    how = "--config watch/viewer.toml" if wanted.keys else f"--broker {wanted.url} --federation {wanted.name}"
    return f"""## See what it learns

Which devices are there, which are missing and why, and what the rounds brought (`--watch` goes on showing it):

```sh
edgefl status {how}
```

The aggregator's log has a line for each round; `state/history.jsonl` has them all, and `state/model.onnx` is always the
newest model. When you have seen enough, stop what you started:

```sh
kill $(jobs -p)
```

Start it again without `--set rounds.interval_s=2`, and rounds open a minute apart, on the data that the devices then
have.
"""


def _machines(made: Made) -> str:
    wanted = made.wanted
    data = made.sample.spec.replace(NAME, "NAME")
    steps = []
    if wanted.keys:
        home = HOME
        steps.append(f"- The broker's machine has the files of `keys/broker/` in `{home}`.")
        if wanted.is_here:
            steps.append(
                "- The devices reach the broker by its name: set `broker` and `home` in `keys/federation.toml`, "
                "delete `keys/broker/mosquitto.conf`, and run `edgefl keys renew keys --broker`."
            )
        steps.append("- The aggregator's machine has `aggregator.toml`, `model.onnx` and `keys/aggregator/`.")
        steps.append("- Each device has the files of its bundle `keys/devices/NAME.tar`, and nothing else.")
    else:
        steps.append(
            "- This federation is open: every client that reaches the broker may take part. `edgefl keys` closes it."
        )
        steps.append("- The aggregator's machine has `aggregator.toml` and `model.onnx`, each device its `agent.toml`.")
    steps.append(f"- `[data] source` of agent.toml is `{data}`: change it where a device has its data elsewhere.")
    steps.append("- `state_dir` is a folder that survives a power cut, such as `/var/lib/edgefl`.")
    listed = "\n".join(steps)
    return f"""## On machines of their own

{listed}
"""
