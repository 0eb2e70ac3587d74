"""From the options of a command line to its exit code, however they were parsed.

Without argparse: with what it imports (gettext, locale, shutil with all compressors) it takes 1 MB, which a daemon
would keep. So an agent that is started as its unit starts it gets its options from `plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import UsageError
from . import daemon
from .log_lines import log_to_stderr, print_error

if TYPE_CHECKING:
    import argparse

    Options = argparse.Namespace | SimpleNamespace

COMMON = {
    "log_level": "info",
    "log_format": "text",
    "debug": False,
    "print_completion": None,
}  # options of all programs


def plain(words: Sequence[str], **defaults: object) -> SimpleNamespace | None:
    """The options of `--config FILE`, also several times, with `defaults` for all others; None if it has other words.

    A test holds the defaults against those of the parser.
    """
    files = [word for word in words[1::2] if word and not word.startswith("-")]
    if not words or list(words[::2]) != ["--config"] * len(files) or len(words) != 2 * len(files):
        return None
    return SimpleNamespace(config=files, **{**COMMON, **defaults})


def run(options: Options, work: Callable[[], int | None]) -> int:
    """Do the work with the log that the common options ask for; returns the exit code."""
    log_to_stderr(options.log_level, options.log_format)
    return daemon.exit_code(work, options.debug)


def start(
    options: Options, schema: type[Struct], *, check: Callable[[], int], work: Callable[[], None],
    lone_json: str = "--json goes with --check",
) -> int:  # fmt: skip
    """Do the one thing of a daemon that its options ask for, and return the exit code: print a sample of its
    configuration, `check` it, or do its `work`. `lone_json` says what --json without its FILE is good for."""
    if options.print_config:
        return print_config(options, schema)
    if options.check:
        return run(options, check)
    if options.json is True:
        print_error(lone_json)
        return UsageError.exit_code
    return run(options, work)


def print_config(options: Options, schema: type[Struct]) -> int:
    """The sample of a configuration file, whose values are the defaults; returns the exit code."""
    if options.set:
        print_error("--set changes a configuration file: give --config, or leave --set out")
        return UsageError.exit_code
    from ..settings.render import render

    print(render(schema), end="")
    return 0


def checked(options: Options) -> str:
    """The one configuration that --check looks at; UsageError."""
    check_sets(options.set)
    paths: list[str] = options.config if isinstance(options.config, list) else [options.config]
    if len(paths) != 1:
        raise UsageError("--check looks at one configuration: give --config once")
    return paths[0]


def check_sets(sets: Sequence[str]) -> None:
    """UsageError if --set has a password: every user of the machine can read the command lines of all processes."""
    for text in sets:
        key, _, value = text.partition("=")
        login, at, _ = value.rpartition("@")
        if key.strip() == "mqtt.url" and at and ":" in login.partition("://")[2]:
            raise UsageError(
                "--set mqtt.url has a password, which other users can read in the list of processes: write it to a "
                "file for [mqtt] password_file"
            )
