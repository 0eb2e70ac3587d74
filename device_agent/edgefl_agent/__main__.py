"""edgefl-agent: the command line."""

from __future__ import annotations

import argparse
import sys
import threading

from edgefl import __version__
from edgefl.hosting import config, daemon
from edgefl.machine import Stop

from .agent import Agent
from .config import AgentConfig


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 after a clean stop, 1 failed, 2 wrong use."""
    parser = argparse.ArgumentParser(prog="edgefl-agent", description="Train on this device's data, publish over MQTT.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE", action="append", help="agent.toml; several make several agents")
    what.add_argument("--print-config", action="store_true", help="write a sample configuration and end")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--version", action="version", version=f"edgefl {__version__}")
    options = parser.parse_args(argv)
    if options.print_config:
        print(config.render(AgentConfig), end="")
        return 0
    daemon.log_to_stderr(options.log_level)
    return daemon.exit_code(lambda: run(options.config), options.debug)


def run(paths: list[str]) -> None:
    """One agent a configuration file, each with a thread of its own; raises what the first broken one raised."""
    agents = [Agent(config.load(path, AgentConfig)) for path in paths]

    def stop() -> None:
        for agent in agents:
            agent.post(Stop())

    daemon.on_termination(stop)
    if len(agents) == 1:
        agents[0].run()
        return
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
