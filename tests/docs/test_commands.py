"""What stands in a fenced block of a page is valid: commands have options that exist, configuration is accepted."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pages
import pytest
from conftest import ROOT
from edgefl_agent.__main__ import main as agent
from edgefl_agent.config import AgentConfig
from edgefl_broker.__main__ import main as aggregator
from edgefl_broker.helper.__main__ import main as helper
from edgefl_broker.helper.config import HelperConfig

from edgefl.cli.main import main as edgefl
from edgefl.hosting import command, launch
from edgefl.hosting.config import AggregatorConfig
from edgefl.settings import files
from edgefl.simulation.devices.world import World

MAINS: dict[str, Callable[[list[str]], int]] = {
    "edgefl": edgefl,
    "edgefl-agent": agent,
    "edgefl-aggregator": aggregator,
    "edgefl-helper": helper,
}
PAGES = pages.pages()
BLOCKS = [block for path in PAGES for block in pages.blocks(path)]
CONFIGS = {"agent": AgentConfig, "aggregator": AggregatorConfig, "helper": HelperConfig}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our programs read their command lines, and do nothing else."""
    for module in (command, launch):
        monkeypatch.setattr(module, "run", lambda options, work: 0)
    monkeypatch.setattr("edgefl.cli.main.run", lambda options, work: 0)


@pytest.mark.usefixtures("parses")
@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_command_is_one_that_our_programs_take(path: Path) -> None:
    wrong = []
    for line in pages.commands(path):
        if "..." in line.words:
            continue  # the page says that something was left out
        try:
            code: object = MAINS[line.words[0]](line.words[1:])
        except SystemExit as end:
            code = end.code
        if code:
            wrong.append((line.place, " ".join(line.words)))
    assert wrong == []


@pytest.mark.usefixtures("parses")
@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_command_in_a_sentence_exists(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sentence may leave out what a command requires."""
    wrong = []
    for line in pages.mentions(path):
        try:
            code: object = MAINS[line.words[0]](line.words[1:])
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr().err
        if code and not any(text in said for text in ("required", "expected", "invalid")):
            wrong.append((line.place, said))
    assert wrong == []


@pytest.mark.usefixtures("parses")
@pytest.mark.parametrize("words", [["edgefl", "simulat"], ["edgefl-agent", "sent", "--jsn"], ["edgefl-aggregator"]])
def test_a_command_that_our_programs_do_not_take_is_found(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        MAINS[words[0]](words[1:])
    assert end.value.code == 2


def test_the_pages_have_commands() -> None:
    assert sum(1 for path in PAGES for _ in pages.commands(path)) > 25


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in pages.SHELL], ids=lambda b: b.place)
def test_every_shell_block_is_one_that_a_shell_reads(block: pages.Block) -> None:
    done = subprocess.run(["bash", "-n"], input=pages.shell_of(block), capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda b: b.place)
def test_every_python_block_compiles(block: pages.Block) -> None:
    ast.parse(block.code)


def test_every_json_block_is_json() -> None:
    for block in BLOCKS:
        if block.language == "json":
            json.loads(block.code)


MQTT = {"mqtt": {"url": "mqtt://localhost"}, "federation": "page"}
REQUIRED: dict[str, dict[str, Any]] = {
    "agent": {**MQTT, "device_id": "pi", "data": {"source": "digits"}},
    "aggregator": {**MQTT, "model": "start.onnx"},
    "helper": {**MQTT, "name": "north"},
}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml"], ids=lambda b: b.place)
def test_every_toml_block_is_one_that_a_program_accepts(block: pages.Block) -> None:
    """A block may leave out what a file needs, and what it has must be right for one of the daemons."""
    table = files.tomllib.loads(block.code)
    if "project" in table:
        return  # of a plug-in's pyproject.toml
    if "devices" in table:  # of a simulation
        World.of(table, "page")
        return
    refusals = {}
    for daemon, schema in CONFIGS.items():
        try:
            files.build(schema, table, beneath=REQUIRED[daemon])
        except Exception as error:
            refusals[daemon] = str(error)
    assert len(refusals) < len(CONFIGS), refusals
