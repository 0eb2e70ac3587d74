"""Strategies, data readers and partitions from outside."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from importlib.metadata import DistributionFinder, PathDistribution
from pathlib import Path

import numpy as np
import pytest

from edgefl import data, registry, strategies
from edgefl.data import Dataset
from edgefl.errors import DataError, UsageError
from edgefl.simulation.split.partitions import split
from edgefl.strategies.presets import fedavg

from .conftest import Install

STRATEGY = """
from edgefl.strategies.combine.mean import Mean
from edgefl.strategies.composed import Composed
from edgefl.strategies.server.step import Step

def slow(lr=0.5):
    return Composed("slow", combine=Mean(), server=Step(lr))

class Half:
    name = "half"
    def start(self, params, round): pass
"""


def test_a_strategy_by_entry_point_by_place_and_as_it_is(install: Install) -> None:
    install("slow-things", "slow_things", STRATEGY, strategies={"slow": "slow_things:slow"})
    assert strategies.get("slow", lr=0.1).name == strategies.get("slow_things:slow").name == "slow"
    mine = fedavg(0.5)
    assert strategies.get(mine) is mine


def test_a_broken_strategy_is_named_with_package_and_reason(install: Install) -> None:
    install(
        "slow-things", "slow_things", STRATEGY, strategies={"half": "slow_things:Half", "fedavg": "slow_things:slow"}
    )
    with pytest.raises(UsageError, match="strategy 'half' of package 'slow-things' lacks add, finish"):
        strategies.get("half")
    with pytest.raises(UsageError, match="'fedavg' is in package 'slow-things' and in 'edgefl-toolkit'"):
        strategies.get("fedavg")
    assert strategies.get("fedavgm").name == "fedavgm"
    for wrong in (5, None, {}):
        with pytest.raises(UsageError, match="give a name, 'module:Class'"):
            strategies.get(wrong)


def test_a_module_that_ends_the_program_is_named_too(install: Install) -> None:
    install("quitter", "quitter", "raise SystemExit(3)", strategies={"quit": "quitter:quit"})
    with pytest.raises(UsageError, match="strategy 'quit' of package 'quitter' can't be imported: SystemExit: 3"):
        strategies.get("quit")


@pytest.mark.parametrize("named", ["()", "('c',)"])
def test_a_strategy_names_the_side_vectors_that_it_broadcasts_and_no_others(install: Install, named: str) -> None:
    source = (
        "from edgefl.strategies.composed import Composed\n"
        "from edgefl.strategies.combine.mean import Mean\nfrom edgefl.strategies.server.step import Step\n"
        "class Side(Composed):\n"
        "    def __init__(self): super().__init__('side', combine=Mean(), server=Step(1.0))\n"
        f"    sides = {named}\n"
    )
    broadcasts = "    def broadcast(self): return {'c': 0}\n"
    without = source + (broadcasts if named == "()" else "")
    install("side", "side", without, strategies={"side": "side:Side"})
    with pytest.raises(UsageError, match="strategy 'side' broadcasts side vectors, or names them, but not both"):
        strategies.get("side")
    if named != "()":
        install("sides", "sides", source + broadcasts, strategies={"sides": "sides:Side"})
        assert list(strategies.get("sides").sides) == ["c"]


READER = """
import numpy as np
from edgefl.data import Dataset

def read(rest, options):
    n = int(rest)
    if options.pop("broken", ""):
        raise OSError("sensor unplugged")
    return Dataset(np.arange(2.0 * n).reshape(n, 2), np.arange(n) % 2)

def make():
    return np.ones((10, 2)), np.arange(10) % 2
"""


def test_data_by_entry_point_and_by_place(install: Install) -> None:
    install("sensors", "sensors", READER, data={"sensor": "sensors:read", "digits": "sensors:read"})
    assert len(data.load("sensor:20?test=0").x_train) == 20
    assert len(data.load("sensors:make?test=0").x_train) == len(data.load("python:sensors:make?test=0").x_train) == 10
    with pytest.raises(DataError, match="data 'sensor' of package 'sensors' failed: OSError: sensor unplugged"):
        data.load("sensor:20?broken=1")
    with pytest.raises(UsageError, match="kind of data 'digits' is in package 'sensors' and in 'edgefl-toolkit'"):
        data.load("digits")
    with pytest.raises(UsageError, match="unknown kind of data 'cvs': did you mean 'csv'"):
        data.load("cvs:file?target=y")


PARTITION = """
import numpy as np

def stripes(dataset, argument, devices, rng):
    skip = int(argument or 1)
    return [np.arange(device, len(dataset.x_train), devices * skip) for device in range(devices)]

def few(dataset, argument, devices, rng):
    return [[0]]

def far(dataset, argument, devices, rng):
    return [[10**6]] * devices
"""
DATA = Dataset(np.arange(20.0).reshape(10, 2), np.arange(10) % 2)


def test_partitions_by_entry_point_by_place_and_as_they_are(install: Install) -> None:
    install("stripes", "striping", PARTITION, partitions={"stripes": "striping:stripes", "iid": "striping:few"})
    for spec in ("stripes", "striping:stripes", lambda *task: import_module("striping").stripes(*task)):
        assert [part.tolist() for part in split(DATA, spec, 2, 0)] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    for spec in ("stripes:2", "striping:stripes:2"):
        assert [part.tolist() for part in split(DATA, spec, 2, 0)] == [[0, 4, 8], [1, 5, 9]]
    with pytest.raises(UsageError, match="'iid' is in package 'stripes' and in 'edgefl-toolkit'"):
        split(DATA, "iid", 2, 0)


def test_what_a_partition_makes_is_checked(install: Install) -> None:
    install("stripes", "striping", PARTITION)
    for spec, reason in (
        ("striping:few", "made 1 parts for 2 devices"),
        ("striping:far", "names an example that is not there"),
        ("striping:stripes:x", "failed: ValueError"),
        ("striping:none", "can't be imported"),
        (5, "give a name, 'module:function' or a function"),
        ("idd", "unknown partition 'idd': did you mean 'iid'"),
    ):
        with pytest.raises(UsageError, match=reason):
            split(DATA, spec, 2, 0)


def test_an_agent_with_built_in_codecs_does_not_look_for_plug_ins(tmp_path: Path) -> None:
    code = (
        "import sys, edgefl_agent.__main__; from edgefl import codecs; codecs.from_wire('ecq', {}); "
        "print('importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_an_agent_without_plug_ins_reads_data_without_looking_into_packages(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 2), np.float32), y=np.zeros(4, np.int64))
    code = (
        "import sys, edgefl_agent.__main__; from edgefl import data; data.load('npz:data.npz'); "
        "print('importlib.metadata' in sys.modules)"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("how", ["beside", "egg", "archive", "finder"])
def test_a_plug_in_is_found_wherever_python_finds_it(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is installed: as importlib.metadata would find it."""
    home = tmp_path / ("there.egg" if how == "egg" else "there")
    info = home / ("EGG-INFO" if how == "egg" else "some-1.0.dist-info")
    info.mkdir(parents=True)
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: some\nVersion: 1.0\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgefl.data]\nsome = some:read\n")
    path = str(home)
    if how == "archive":
        path = shutil.make_archive(str(tmp_path / "packed"), "zip", home)
    if how == "finder":

        class Finder(DistributionFinder):
            @classmethod
            def find_spec(cls, *found: object) -> None:
                return None

            @classmethod
            def find_distributions(cls, context: object = None) -> list[PathDistribution]:
                return [PathDistribution(info)]

        monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    else:
        monkeypatch.syspath_prepend(path)
    registry._entry_points.cache_clear()
    assert data.SEAM.has("some")
    monkeypatch.undo()
    registry._entry_points.cache_clear()
    assert not data.SEAM.has("some")
