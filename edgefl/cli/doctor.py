"""`edgefl doctor`: what `--check` of the daemons looks at, or what a viewer needs; without a configuration, machine and
broker alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UsageError
from ..hosting.command import add_set_option, check_sets

EXAMPLE = "edgefl doctor\n  edgefl doctor --broker mqtt://192.168.1.10\n  edgefl doctor --config agent.toml --json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is wrong with this machine, its configuration or the broker, and what to do.

    With --config of an agent, an aggregator or a helper, that program's --check: it joins no round, and a daemon that
    runs goes on. With a viewer.toml, what `edgefl status` needs. Else the machine, and with --broker a broker. Exit
    code 0: all is well; 1: there is something to do; 2: wrong use, or a configuration that can't be used."""
    group = parser.add_argument_group("what to look at")
    what = group.add_mutually_exclusive_group()
    what.add_argument("--config", metavar="FILE", help="an agent.toml, aggregator.toml, helper.toml or viewer.toml")
    what.add_argument("--broker", metavar="URL", help="an MQTT broker: mqtt://host:1883, or mqtts://host:8883 for TLS")
    for name, text in (("ca", "the authority's certificate"), ("cert", "our certificate"), ("key", "our key")):
        group.add_argument(f"--{name}", metavar="FILE", help=f"with --broker, for TLS: {text}")
    group.add_argument("--username", metavar="NAME", help="with --broker; the password is in EDGEFL_MQTT_PASSWORD")
    group.add_argument("--json", action="store_true", help="print JSON")
    add_set_option(group.add_argument)
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    lone = [name for name in ("ca", "cert", "key", "username") if getattr(options, name) and not options.broker]
    if lone:
        raise UsageError(f"--{lone[0]} goes with --broker: a configuration has its own")
    if options.set and not options.config:
        raise UsageError("--set changes a configuration file: give --config, or leave --set out")
    if options.config:
        return _configured(options)
    from ..checks import doctor

    return doctor.look(options.broker, (options.ca, options.cert, options.key), options.username, as_json=options.json)


def _configured(options: argparse.Namespace) -> int:
    """Look at what the file is for. A daemon's --check runs in a process of its own: this package imports no daemon."""
    import subprocess
    import sys

    check_sets(options.set)
    program = _program_of(Path(options.config))
    if program is None:
        from ..checks import viewer

        return viewer.main(options.config, options.set, as_json=options.json)
    words = [sys.executable, "-m", program, "--config", options.config, "--check"]
    words += ["--json"] if options.json else []
    for text in options.set:
        words += ["--set", text]
    return subprocess.run(words, check=False).returncode


def _program_of(path: Path) -> str | None:
    """The daemon that the file configures; None for a viewer's, which has nothing that only a daemon needs. UsageError
    if it can't be read."""
    from ..hosting.config import AggregatorConfig
    from ..settings.files import read_table
    from ..viewer.config import ViewerConfig

    table = read_table(path)
    if "device_id" in table or ("data" in table and "model" not in table):
        return "edgefl_agent"
    if "name" in table and "model" not in table:
        return "edgefl_broker.helper"
    aggregators = set(AggregatorConfig.__struct_fields__) - set(ViewerConfig.__struct_fields__)
    return "edgefl_broker" if aggregators & table.keys() else None
