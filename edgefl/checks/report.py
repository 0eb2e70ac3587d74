"""What checks find, and how it is shown: a line for each finding, or JSON.

ok         it is as it should be
skipped    it was not looked at, and the text says why
warning    it works, or may work later; what to do follows
problem    it will not work; what to do follows
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from .. import __version__
from ..errors import EdgeFLError

STATES = ("ok", "skipped", "warning", "problem")
ALL_OK, FOUND, WRONG_USE = 0, 1, 2  # exit codes
WIDTH = 110
S = TypeVar("S")


class Finding(NamedTuple):
    """What one check says. `todo` is what to do about a warning or a problem."""

    state: str
    text: str
    todo: str = ""


Found = Finding | Iterable[Finding]
Table = Mapping[str, Callable[[S], Found]]


class Line(msgspec.Struct, frozen=True, omit_defaults=True, rename={"todo": "do"}):
    """A finding with the name of its check."""

    check: str
    state: str
    text: str
    todo: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All lines. `of` says of what: agent, aggregator or machine; `running`: its daemon runs on this machine now."""

    edgefl: str = __version__
    of: str
    config: str = ""
    running: bool = False
    checks: list[Line]

    @property
    def exit_code(self) -> int:
        """0: nothing to do; 1: a warning or a problem."""
        return FOUND if any(line.state in ("warning", "problem") for line in self.checks) else ALL_OK


def ok(text: str) -> Finding:
    return Finding("ok", text)


def skipped(text: str) -> Finding:
    return Finding("skipped", text)


def warning(text: str, todo: str) -> Finding:
    return Finding("warning", text, todo)


def problem(text: str, todo: str) -> Finding:
    return Finding("problem", text, todo)


def of_error(error: EdgeFLError) -> Finding:
    """A problem."""
    return problem(*parted(str(error)))


def parted(text: str, todo: str = "see the text") -> tuple[str, str]:
    """An error's text and what to do: our errors end with that, after the last colon that has a blank behind it."""
    what, _, end = text.rpartition(": ")
    return (what, end) if what else (end, todo)


def run(table: Table[S], subject: S) -> list[Line]:
    """Make all checks of the table, one after another. One that breaks is a problem of its own; the others go on."""
    lines = []
    for name, check in table.items():
        try:
            found = check(subject)
            findings = [found] if isinstance(found, Finding) else list(found)
        except EdgeFLError as error:
            findings = [of_error(error)]
        except Exception as error:
            text = f"the check broke: {type(error).__name__}: {error}"
            findings = [problem(text, "report this as a bug of EdgeFL, with this line")]
        lines += [Line(name, *finding) for finding in findings]
    return lines


def show(report: Report, *, as_json: bool) -> int:
    """Print the report on standard output; returns the exit code."""
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() if as_json else text_of(report))
    return report.exit_code


def text_of(report: Report) -> str:
    """The report for people, who find what to do below each finding."""
    wide = max(len(line.check) for line in report.checks)
    lines = []
    for line in report.checks:
        head = f"{line.state:<8} {line.check:<{wide}}  "
        lines += _wrapped(head, " " * len(head), line.text)
        if line.todo:
            lines += _wrapped(" " * len(head) + "-> ", " " * (len(head) + 3), line.todo)
    counts = {state: sum(line.state == state for line in report.checks) for state in STATES}
    return "\n".join([*lines, ", ".join(f"{n} {state}" for state, n in counts.items() if n)])


def _wrapped(head: str, indent: str, text: str) -> list[str]:
    """Whole words, so that a path or a command can be copied."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [head]
