"""The floors of the house: lower never imports higher, and a device never loads what only an aggregator needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import resolve_name

import pytest
from conftest import ROOT

PACKAGES = {"edgefl": "edgefl", "edgefl_agent": "device_agent/edgefl_agent", "edgefl_broker": "broker/edgefl_broker"}
ONNX = [f"edgefl.{path.stem}" for path in sorted((ROOT / "edgefl").glob("onnx_*.py"))]
# A module may import from its own floor and those before it. A package stands for all its modules.
FLOORS = [
    ["edgefl._core", "edgefl.errors", "edgefl.registry", "edgefl"],
    ["edgefl.plan", "edgefl.accumulator", "edgefl.store", "edgefl.config", "edgefl.daemon"],
    [
        "edgefl.trainer", "edgefl.model", *ONNX, "edgefl.codecs",
        "edgefl.strategies", "edgefl.zoo", "edgefl.inspect", "edgefl.history", "edgefl.params", "edgefl.error_feedback",
    ],
    ["edgefl.protocol"],
    [
        "edgefl.device_session", "edgefl.device_status", "edgefl.device_terms", "edgefl.device_work",
        "edgefl.device_events", "edgefl.model_fetch", "edgefl.update_report", "edgefl.pace", "edgefl.saved_update",
        "edgefl.round_coordinator", "edgefl.coordinator_events", "edgefl.round_intake", "edgefl.presence",
        "edgefl.retained_model", "edgefl.tally", "edgefl.downlink", "edgefl.blob_fetch",
        "edgefl.announcer", "edgefl.sweeper", "edgefl.cohort", "edgefl.fence", "edgefl.closed_rounds",
        "edgefl.reception",
    ],
    ["edgefl.federation", "edgefl.transports", "edgefl.data"],
    ["edgefl.local_training", "edgefl.holdout"],
    ["edgefl.simulation"],
    ["edgefl.cli", "edgefl.cli_model", "edgefl.cli_simulate", "edgefl.cli_text", "edgefl.cli_values"],
    ["edgefl_agent", "edgefl_broker"],
]  # fmt: skip


def modules() -> dict[str, ast.Module]:
    """Every module's name and syntax tree."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            words = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            name = ".".join(words[:-1] if words[-1] == "__init__" else words)
            found[name] = ast.parse(path.read_text())
    return found


MODULES = modules()
PACKAGE_NAMES = {name for name in MODULES if any(other.startswith(name + ".") for other in MODULES)}


def imports(name: str, *, typing_too: bool = True) -> set[str]:
    """Full names of the modules that `name` imports, anywhere in it."""
    out = set()
    inside = name if name in PACKAGE_NAMES else name.rpartition(".")[0]
    for node in runtime_nodes(MODULES[name], typing_too):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), inside)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                out.add(full if full in MODULES or full == "edgefl._core" else base)
    return out


def runtime_nodes(tree: ast.AST, typing_too: bool):
    """All nodes, without the bodies of `if TYPE_CHECKING` unless `typing_too`."""
    for node in ast.iter_child_nodes(tree):
        hidden = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        if typing_too or not hidden:
            yield node
            yield from runtime_nodes(node, typing_too)


def floor_of(module: str) -> int:
    """The number of the floor that names `module` or the package it lies in, the longest name first."""
    while module:
        for number, floor in enumerate(FLOORS):
            if module in floor:
                return number
        module = module.rpartition(".")[0]
        if module == "edgefl":
            break
    raise AssertionError("on no floor: add it to FLOORS")


def ours(name: str) -> bool:
    return name.split(".")[0] in PACKAGES


@pytest.mark.parametrize("name", sorted(MODULES))
def test_lower_never_imports_higher(name):
    own = floor_of(name)
    higher = {other for other in imports(name) if ours(other) and floor_of(other) > own}
    assert not higher, f"{name} reaches up"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_library_never_imports_the_daemons(name):
    package = name.split(".")[0]
    daemons = {"edgefl_agent", "edgefl_broker"} - {package}
    assert not {other for other in imports(name) if other.split(".")[0] in daemons}


def test_floors_name_only_what_exists():
    named = [module for floor in FLOORS for module in floor]
    assert len(set(named)) == len(named)
    assert set(named) - set(MODULES) == {"edgefl._core"}


def test_onnx_is_imported_only_where_a_model_file_is_read_written_or_evaluated():
    users = {
        name
        for name in MODULES
        if {other.split(".")[0] for other in imports(name, typing_too=False)} & {"onnx", "onnxruntime"}
    }
    assert {"edgefl.onnx_import", "edgefl.onnx_export", "edgefl.onnx_eval"} < users <= {*ONNX, "edgefl.zoo"}


def test_machines_and_protocol_touch_no_clock_socket_disk_or_thread():
    machines = [n for n in MODULES if n.startswith("edgefl.protocol") or floor_of(n) == floor_of("edgefl.tally")]
    world = {
        "time",
        "socket",
        "threading",
        "os",
        "asyncio",
        "queue",
        "sqlite3",
        "pathlib",
        "secrets",
        "logging",
        "paho",
    }
    assert not {(n, other) for n in machines for other in imports(n) if other.split(".")[0] in world}


def test_i14_nothing_reachable_unpickles_or_evaluates():
    banned = {"pickle", "cPickle", "dill", "marshal", "shelve", "cloudpickle", "joblib"}
    assert not {(n, other) for n in MODULES for other in imports(n) if other.split(".")[0] in banned}
    for name, tree in MODULES.items():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not {"eval", "exec", "compile"} & {getattr(c.func, "id", "") for c in calls}, name
        allowed = [k.value for c in calls for k in c.keywords if k.arg == "allow_pickle"]
        assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed), name


def test_the_agent_runs_without_what_only_an_aggregator_needs():
    heavy = ["onnx", "onnxruntime", "sklearn", "rich", "matplotlib", "iotcore", "edgefl_broker", "edgefl.simulation"]
    code = f"import sys, edgefl_agent.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
