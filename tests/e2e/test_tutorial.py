"""docs/tutorial.md does what it says: its blocks run in order, and print what stands below them."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from edgefl_agent.config import AgentConfig

from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files

TUTORIAL = Path(__file__).resolve().parent.parent.parent / "docs" / "tutorial.md"
CONFIGS = {"aggregator.toml": AggregatorConfig, "agent.toml": AgentConfig}


class Block(NamedTuple):
    line: int
    language: str
    code: str


def read_blocks() -> list[Block]:
    text = TUTORIAL.read_text(encoding="utf-8")
    fences = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(text.count("\n", 0, fence.start(2)) + 1, *fence.groups()) for fence in fences]


def run_python(block: Block, namespace: dict[str, Any]) -> str:
    """What it prints. Its line numbers in a traceback are those of the tutorial."""
    code = compile("\n" * (block.line - 1) + block.code, str(TUTORIAL), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, namespace)
    return out.getvalue()


def run_console(block: Block) -> str:
    """What the one command after `$ ` prints."""
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    command = shlex.split(block.code.removeprefix("$ ").replace("\\\n", ""))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_output(expected: Block, printed: str) -> None:
    matches = doctest.OutputChecker().check_output(expected.code, printed, doctest.ELLIPSIS)
    assert matches, f"tutorial.md, line {expected.line}, says\n{expected.code}but it is\n{printed}"


def test_every_block_runs_and_prints_what_the_text_quotes(shared, tmp_path, monkeypatch):
    table = shared / "data" / "height_weight" / "davis_200.csv"
    if not table.is_file():
        pytest.skip(f"no {table}: R writes it with write.csv(carData::Davis, ...)")
    shutil.copy(table, tmp_path / "davis.csv")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    printed = ""
    for block in read_blocks():
        if block.language == "text":
            check_output(block, printed)
            printed = ""
            continue
        assert printed == "", f"tutorial.md, before line {block.line}: the text does not show {printed!r}"
        if block.language == "python":
            printed = run_python(block, namespace)
        elif block.language == "console":
            printed = run_console(block)
    assert printed == ""


def test_the_configuration_files_are_valid(tmp_path):
    blocks = [block.code for block in read_blocks() if block.language == "toml"]
    assert len(blocks) == len(CONFIGS)
    for name, code in zip(CONFIGS, blocks, strict=True):
        assert code.startswith(f"# {name}\n")
        (tmp_path / name).write_text(code)
        settings = files.load(tmp_path / name, CONFIGS[name])
        assert settings.federation == "height-weight"


def test_a_wrong_number_in_the_text_is_found():
    with pytest.raises(AssertionError, match="line 7"):
        check_output(Block(7, "text", "loss 1.4629 -> 0.7288\n"), "loss 1.4629 -> 0.7289\n")


def test_every_block_is_of_a_kind_that_is_checked():
    kinds = [block.language for block in read_blocks()]
    assert set(kinds) == {"sh", "python", "text", "console", "toml"}
    assert kinds.count("sh") == 1  # pip install and the download: the only one that is not run
    assert TUTORIAL.read_text(encoding="utf-8").count("```") == 2 * len(kinds)
