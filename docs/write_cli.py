"""Write docs/cli.md from the programs' own help: `python docs/write_cli.py`. A test says when it is stale."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from edgefl_agent.__main__ import COMMANDS as AGENT_COMMANDS
from edgefl_agent.__main__ import main as agent
from edgefl_broker.__main__ import main as aggregator
from edgefl_broker.helper.__main__ import main as helper

from edgefl.cli.main import main as edgefl
from edgefl.cli.main import make_parser

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# Commands

Made from the programs' `--help` by `python docs/write_cli.py`: do not edit this page. Abbreviated options are refused.
Exit code 0 means done, 1 failed, 2 wrong use. `python -m edgefl` is `edgefl`.
"""
Main = Callable[[list[str]], int]


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for name, main, commands in programs():
        parts.append(f"## {name}\n\n{fenced(main, [])}")
        parts += [f"### {name} {' '.join(words)}\n\n{fenced(main, words)}" for words in commands]
    return "\n".join(parts)


def programs() -> Iterator[tuple[str, Main, list[list[str]]]]:
    """Each program, and the words of its commands."""
    yield "edgefl", edgefl, list(commands_of(make_parser(), []))
    yield "edgefl-aggregator", aggregator, []
    yield "edgefl-helper", helper, []
    yield "edgefl-agent", agent, [[word] for word in AGENT_COMMANDS]


def commands_of(parser: argparse.ArgumentParser, words: list[str]) -> Iterator[list[str]]:
    """The words of every command below a parser, in the parser's order."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield [*words, name]
                yield from commands_of(child, [*words, name])


def fenced(main: Main, words: list[str]) -> str:
    """The help of a command, as a block."""
    os.environ["COLUMNS"] = "110"
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return f"```text\n{out.getvalue().rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
