"""edgefl-agent: the command line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgefl.errors import EdgeFLError
from edgefl.hosting import daemon, hygiene, launch, log_lines
from edgefl.hosting.reload import on_hangup
from edgefl.machine import Stop
from edgefl.settings import files

from .agent import Agent
from .config import AgentConfig

if TYPE_CHECKING:
    from edgefl.hosting.command import Parser

# The first word of the command line -> the function that it runs. Imported then: an agent has no use for them.
COMMANDS = {
    "plans": "approving:plans",
    "approve": "approving:approve",
    "claim": "claim:main",
    "sent": "sent:main",
    "recover": "recover:main",
    "record": "record:main",
    "predict": "predict:main",
}
UNASKED = {"print_config": False, "check": False, "json": False, "set": []}  # where only --config is given


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 after a clean stop, 1 failed, 2 wrong use."""
    if argv is None:
        hygiene.harden()
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        module, _, function = COMMANDS[words[0]].partition(":")
        code: int = getattr(import_module(f".{module}", __package__), function)(words[1:])
        return code
    options: Any = launch.plain(words, **UNASKED) or make_parser().parse_args(words)
    work = partial(run, options.config, options.set)
    return launch.start(options, AgentConfig, check=lambda: check(options), work=work)


def make_parser() -> Parser:
    """The parser of all options."""
    from edgefl.hosting import command

    parser = command.Parser(
        prog="edgefl-agent",
        description="Train on this device's data and publish what was learned over MQTT. Commands with options of "
        f"their own: {', '.join(COMMANDS)}; edgefl-agent COMMAND --help explains each.",
        example="edgefl-agent --print-config > agent.toml\n  edgefl-agent --config agent.toml",
    )
    work = "run by this agent.toml; given several times, as many agents"
    command.add_daemon_options(parser, work, "limits.nice=19", several=True)
    return parser


def check(options: launch.Options) -> int:
    """Look at everything, take part in nothing."""
    from . import check

    return check.main(launch.checked(options), options.set, as_json=options.json)


def run(paths: list[str], sets: list[str]) -> None:
    """Run an agent for each configuration file, in a thread of its own; if agents fail, raises the first error."""
    launch.check_sets(sets)
    configs = [files.load(path, AgentConfig, sets) for path in paths]
    if len(configs) == 1:
        log_lines.always(federation=configs[0].federation, device=configs[0].device_id)
    agents = [_make(config) for config in configs]

    def stop() -> None:
        for agent in agents:
            agent.post(Stop())

    def reload() -> None:
        for agent, path in zip(agents, paths, strict=True):
            agent.reload.ask(partial(files.load, path, AgentConfig, sets))

    with daemon.on_termination(stop), on_hangup(reload):
        if len(agents) == 1:
            agents[0].run()
        else:
            _run_all(agents, stop)


def _make(config: AgentConfig) -> Agent:
    """The agent. One that can't start tells the operator why, unless another one runs in its place."""
    from . import farewell

    free = farewell.is_free(config)
    try:
        return Agent(config)
    except EdgeFLError as error:
        if free:
            farewell.say(config, error)
        raise


def _run_all(agents: list[Agent], stop: Callable[[], None]) -> None:
    """Each in a thread of its own; one that fails stops the others, and its error is raised."""
    failures: list[BaseException] = []

    def guarded(agent: Agent) -> None:
        try:
            agent.run()
        except BaseException as error:
            failures.append(error)
            stop()

    threads = [threading.Thread(target=guarded, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    sys.exit(main())
