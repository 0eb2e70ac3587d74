"""The command line that all programs share: strict options, helpful errors, common options, shell completion.

A program builds a `Parser`, adds its options in named groups and then the common ones, and hands what was parsed to
`run`. argparse's habits that hurt an operator are switched off here: abbreviated options are refused, since
`--device 5` would silently mean `--devices 5`, and an error is two lines instead of a page of usage.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from .. import __version__
from ..errors import nearest
from .launch import check_sets as check_sets
from .launch import checked as checked
from .launch import print_config as print_config
from .launch import run as run
from .launch import start as start
from .log_lines import FORMATS, log_to_stderr

LEVELS = ("debug", "info", "warning", "error")
SHELLS = ("bash", "zsh", "tcsh")
FILES = ("FILE", "M.onnx")  # metavars of options that a shell completes with a file's name
FOLDERS = ("DIR",)


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses abbreviations and hints at the nearest word that it knows."""

    def __init__(self, *, example: str | None = None, **settings: Any) -> None:
        epilog = f"example:\n  {example}" if example else None
        super().__init__(**{"allow_abbrev": False, "formatter_class": _Help, "epilog": epilog, **settings})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but a word that is not known ends the program, in a sub-command too."""
        words = sys.argv[1:] if args is None else list(args)
        self._refuse_unknown_options(words)
        options, rest = super().parse_known_args(words, namespace)
        if rest:
            self.error(f"unexpected word {rest[0]!r}")
        return options, rest

    def error(self, message: str) -> NoReturn:
        """Exit code 2, with the message and where the help is."""
        if _wants_json(sys.argv):  # the parser has not told us yet
            log_to_stderr("info", "json")
            logging.getLogger("edgefl").error("%s; %s --help lists the options", message, self.prog)
            self.exit(2)
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help lists the options\n")

    def _refuse_unknown_options(self, words: Sequence[str]) -> None:
        """Before argparse complains of what is missing only because its name is misspelt."""
        for word in words:
            if word == "--" or (self._subparsers and not word.startswith("-")):
                return  # what follows is the business of the sub-command
            name = word.partition("=")[0]
            if _looks_like_an_option(name) and name not in self._option_string_actions:
                self.error(f"unknown option {name}: {nearest(name, self._option_string_actions)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if action.nargs == argparse.PARSER else "value"
            hint = nearest(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"unknown {what} {value!r}: {hint}")


def add_common_options(parser: Parser, level: str) -> None:
    """The options of whatever does work and may fail; `level` is the default of --log-level."""
    add = parser.add_argument_group("messages").add_argument
    add("--log-level", default=level, choices=LEVELS, help="least severe message that is written")
    add("--log-format", default="text", choices=FORMATS, help="dated lines, or one JSON object a line")
    add("--debug", action="store_true", help="show the traceback of an error")


def add_set_option(add: Callable[..., Any], example: str = "train.lr=0.05") -> None:
    """The option of a program that reads a configuration file."""
    help = f"change a setting of the configuration file, as in {example}; may be given several times"
    add("--set", metavar="KEY=VALUE", action="append", default=[], help=help)


def add_daemon_options(
    parser: Parser, work: str, setting: str = "train.lr=0.05", *, several: bool = False, json: bool = True
) -> Callable[..., Any]:
    """The options that all daemons have; returns what adds others to its run. `work` is what --config does, `several`:
    with more than one file; `setting` an example for --set."""
    what = parser.add_argument_group("what to do, one of").add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE", action="append" if several else "store", help=work)
    what.add_argument("--print-config", action="store_true", help="print a sample configuration and end")
    add_check_options(parser, json=json)
    add: Callable[..., Any] = parser.add_argument_group("the run").add_argument
    add_set_option(add, setting)
    add_common_options(parser, level="info")
    add_program_options(parser)
    return add


def add_check_options(parser: Parser, *, json: bool) -> None:
    """The options that look instead of running; `json`: add --json, which the program has not for anything else."""
    add = parser.add_argument_group("to look, and not to run").add_argument
    add(
        "--check",
        action="store_true",
        help="check machine, configuration, data and broker, and end: exit code 0 all is well, 1 there is something to "
        "do, 2 wrong use; a daemon that runs goes on",
    )
    if json:
        add("--json", action="store_true", help="with --check: print JSON")


def add_program_options(parser: Parser) -> None:
    """The options that a whole program has, beside those of its commands."""
    add = parser.add_argument_group("the program").add_argument
    add("--version", action="version", version=f"edgefl {__version__}", help="print the version and end")
    help = "print a script that completes this program's options in a shell, and end"
    add("--print-completion", action=_PrintCompletion, choices=SHELLS, help=help)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows each default that says something, and keeps the lines of the example."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        silent = default is None or default is False or default in ([], "", argparse.SUPPRESS)
        if silent or not action.option_strings or "(default" in (action.help or ""):
            return action.help
        return f"{action.help or ''} (default: %(default)s)".strip()


class _PrintCompletion(argparse.Action):
    """The script is generated once, so that a Tab starts no Python on the device."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        try:
            import shtab
        except ImportError:
            parser.error("completion needs shtab: pip install 'edgefl-toolkit[completion]'")
        _mark_paths(parser, shtab.FILE, shtab.DIRECTORY)
        print(shtab.complete(parser, shell=str(values)))
        parser.exit()


def _mark_paths(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    """Tell shtab which options want a file or a folder."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _mark_paths(child, file, folder)
        elif action.metavar in FILES or action.metavar in FOLDERS:
            action.complete = file if action.metavar in FILES else folder  # type: ignore[attr-defined]


def _wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for a log in JSON."""
    return "--log-format=json" in words or ("--log-format", "json") in pairwise(words)


def _looks_like_an_option(word: str) -> bool:
    """Neither `-`, which is standard output, nor a negative number, nor a text with blanks."""
    if not word.startswith("-") or word == "-" or " " in word:
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False
