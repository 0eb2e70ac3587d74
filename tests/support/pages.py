"""Pages of the documentation, as tests read them: fenced blocks, and the commands in them.

A fence's first word is its language. ```sh is run by a test, in the page's order (tests/docs). A second word
says otherwise:

    checkout, home    is run in the repository's folder, or in the home folder
    elsewhere         needs an account or a device that no test has: only parsed
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

PROGRAMS = ("edgefl", "edgefl-agent", "edgefl-aggregator", "edgefl-helper")
SHELL = ("sh", "console")


class Block(NamedTuple):
    """One fenced block; `line` is that of its first line."""

    page: str
    line: int
    language: str
    mark: str
    code: str

    @property
    def place(self) -> str:
        return f"{self.page}, line {self.line}"


class Command(NamedTuple):
    """The words of one of our programs' command lines, the program first."""

    place: str
    words: list[str]


def pages() -> list[Path]:
    """Every page for users; not the log of changes, which speaks of what was."""
    found = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").rglob("*.md")]
    found += [ROOT / "broker" / "README.md", ROOT / "device_agent" / "README.md", ROOT / "benchmarks" / "README.md"]
    return sorted(path for path in found if path.name != "CHANGELOG.md")


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page."""
    text, page = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
    fences = re.finditer(r"^( *)```(\w+)([^\n]*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [
        Block(page, text.count("\n", 0, fence.start(4)) + 1, fence[2], fence[3].strip(), _dedent(fence[4], fence[1]))
        for fence in fences
    ]


def _dedent(code: str, indent: str) -> str:
    return re.sub(f"^{indent}", "", code, flags=re.MULTILINE)


def shell_of(block: Block) -> str:
    """What a shell is given; of a console block the lines after `$ `."""
    if block.language == "sh":
        return block.code
    lines, going_on = [], False
    for line in block.code.splitlines():
        if going_on or line.startswith("$ "):
            lines.append(line.removeprefix("$ "))
            going_on = line.endswith("\\")
    return "\n".join(lines) + "\n"


def commands(path: Path) -> Iterator[Command]:
    """Every command line of our programs in the page's shell blocks and indented blocks."""
    for block in blocks(path):
        if block.language in SHELL:
            yield from _commands_in(block.place, shell_of(block))
    prose = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    indented = [line[4:] if line.startswith("    ") else "" for line in prose.splitlines()]
    yield from _commands_in(str(path.relative_to(ROOT)), "\n".join(indented))


def mentions(path: Path) -> Iterator[Command]:
    """Our programs' command lines that the page's sentences mention, in backticks, with 1 for a word in capitals."""
    prose = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", prose):
        words = _words(span.replace("\n", " "))
        if len(words) > 1:
            yield Command(f"{path.relative_to(ROOT)}: {span}", ["1" if word.isupper() else word for word in words])


def _commands_in(place: str, shell: str) -> Iterator[Command]:
    for line in shell.replace("\\\n", " ").splitlines():
        for simple in re.split(r"&&|\|\||[;|]|\$\(", line):
            if words := _words(simple):
                yield Command(place, words)


def _runs_what_follows(words: list[str]) -> bool:
    """Whether the word after these is a command: assignments, `runuser -u USER --`, and the like."""
    if not words or words[-1] == "--" or words[0] in ("sudo", "nice", "time", "do", "exec") or words[0] == "ssh":
        return True
    return all(re.match(r"\w+=", word) for word in words)


def _words(simple: str) -> list[str]:
    """The words of a simple command that runs one of our programs, without what is before it and redirections."""
    lexer = shlex.shlex(simple, posix=True, punctuation_chars="<>&")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quotation that goes on in the next line
        return []
    at = next((i for i, word in enumerate(words) if word.rpartition("/")[2] in PROGRAMS), None)
    if at is None or not _runs_what_follows(words[:at]):
        return []
    ours = [words[at].rpartition("/")[2]]
    for word in words[at + 1 :]:
        if word[0] in "<>&":
            break
        ours.append(word.rstrip(")"))
    return ours
