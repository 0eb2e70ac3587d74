"""The floors of the house: lower never imports higher, and a device never loads what only an aggregator needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from importlib.util import resolve_name

import pytest
from conftest import ROOT

PACKAGES = {"edgefl": "edgefl", "edgefl_agent": "device_agent/edgefl_agent", "edgefl_broker": "broker/edgefl_broker"}
# A module may import from its own floor and those before it. A name without a dot is a package or module of edgefl.
FLOORS = [
    ["_core", "errors", "registry", "machine", "atomic", "private_files", "digests", "later", "plural"],
    ["core"],
    ["privacy"],
    ["codecs"],
    ["strategies"],
    ["testing"],
    ["settings"],
    ["trust"],
    ["protocol"],
    ["masking"],
    [
        "auto",
        "federation",
        "history",
        "history_files",
        "history_costs",
        "history_figures",
        "history_record",
        "history_text",
        "profiles",
        "masks",
        "masked_fit",
    ],
    ["coordinator", "device", "helper"],  # which never import each other
    ["transports"],
    ["hosting"],
    ["viewer"],
    ["board"],
    ["onnx", "data"],
    ["arena_budget"],
    ["checks"],
    ["simulation", "edgefl_agent", "edgefl_broker"],
    ["experiments"],
    ["keys"],  # the operator's
    ["project"],
    ["cli", "__main__"],
]
STRANGERS = [
    ("coordinator", "device"),
    ("coordinator", "helper"),
    ("device", "helper"),
    ("simulation", "edgefl_agent"),
    ("simulation", "edgefl_broker"),
]


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


@cache
def imports(name: str, *, typing_too: bool = True) -> frozenset[str]:
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
    return frozenset(out)


def runtime_nodes(tree: ast.AST, typing_too: bool):
    """All nodes, without the bodies of `if TYPE_CHECKING` unless `typing_too`."""
    for node in ast.iter_child_nodes(tree):
        hidden = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        if typing_too or not hidden:
            yield node
            yield from runtime_nodes(node, typing_too)


def room_of(module: str) -> str:
    """The package or module of edgefl that `module` lies in, or a daemon's package; "" for edgefl itself."""
    words = module.split(".")
    return words[0] if words[0] != "edgefl" else ".".join(words[1:2])


def floor_of(module: str) -> int:
    """The number of the floor that `module` is on; edgefl/__init__.py is on the lowest."""
    room = room_of(module)
    found = [number for number, floor in enumerate(FLOORS) if room in floor]
    assert found or not room, f"{module} is on no floor: add {room!r} to FLOORS"
    return found[0] if room else 0


def ours(name: str) -> bool:
    return name.split(".")[0] in PACKAGES


@pytest.mark.parametrize("name", sorted(MODULES))
def test_lower_never_imports_higher(name):
    own = floor_of(name)
    read = imports(name, typing_too=name != "edgefl")  # which tells type checkers what it loads on first use
    higher = {other for other in read if ours(other) and floor_of(other) > own}
    assert not higher, f"{name} reaches up"


def test_strangers_never_import_each_other():
    pairs = {(room_of(name), room_of(other)) for name in MODULES for other in imports(name) if ours(other)}
    assert not pairs & {pair for a, b in STRANGERS for pair in ((a, b), (b, a))}


def test_onnx_needs_core_only():
    used = {room_of(other) for name in MODULES if room_of(name) == "onnx" for other in imports(name) if ours(other)}
    assert used <= {"onnx", "core", "_core", "errors", "registry", "atomic", "plural"}


def test_no_import_circle():
    graph = {name: {other for other in imports(name) if other in MODULES and other != name} for name in MODULES}
    for package in PACKAGE_NAMES:  # a package's own table of its modules is no circle
        graph[package] = {other for other in graph[package] if not other.startswith(f"{package}.")}
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_no_circle_of_packages_within_a_package():
    """Of those that lie in one package: what they share is in that package itself."""
    for package in PACKAGE_NAMES:
        within = {name for name in PACKAGE_NAMES if name.rpartition(".")[0] == package}
        graph: dict[str, set[str]] = {name: set() for name in within}
        for name in MODULES:
            own = next((room for room in within if name.startswith(f"{room}.")), None)
            others = {room for other in imports(name) for room in within if f"{other}.".startswith(f"{room}.")}
            if own is not None:
                graph[own] |= others - {own}
        tuple(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_the_library_never_imports_the_daemons():
    daemons = {"edgefl_agent", "edgefl_broker"}
    reached = {(name, other) for name in MODULES for other in imports(name) if other.split(".")[0] in daemons}
    assert not {(name, other) for name, other in reached if name.split(".")[0] != other.split(".")[0]}


def test_every_package_is_in_the_wheel():
    listed = re.search(r"(?s)packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text())
    assert sorted(re.findall(r'"([\w.]+)"', listed[1])) == sorted(PACKAGE_NAMES)


def test_floors_name_only_what_exists():
    named = [room for floor in FLOORS for room in floor]
    assert len(set(named)) == len(named)
    assert set(named) - {"_core"} == {room_of(name) for name in MODULES} - {""}


def test_onnx_is_imported_only_where_a_model_file_is_read_written_or_evaluated():
    users = {
        name
        for name in MODULES
        if {other.split(".")[0] for other in imports(name, typing_too=False)} & {"onnx", "onnxruntime"}
    }
    assert {"edgefl.onnx.compiler", "edgefl.onnx.export", "edgefl.onnx.evaluate"} < users
    assert {room_of(name) for name in users} == {"onnx"}


def test_machines_and_protocol_touch_no_clock_socket_disk_or_thread():
    rooms = ("protocol", "coordinator", "device", "helper", "machine")
    apart = {"edgefl.device.training", "edgefl.device.holdout"}  # they do a round's work, in threads of the host's
    machines = [name for name in MODULES if room_of(name) in rooms and name not in apart]
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
    heavy = [
        "cryptography",
        "edgefl.keys",
        "nacl",
        "onnx",
        "onnxruntime",
        "sklearn",
        "rich",
        "matplotlib",
        "iotcore",
        "edgefl_broker",
        "edgefl.simulation",
        "edgefl_agent.claim",  # commands are imported when they are run
        "edgefl_agent.sent",
        "edgefl_agent.record",
        "edgefl.data.table",  # a reader is imported by a device that has such data
        "edgefl_agent.check",
        "edgefl.checks",
        "edgefl.board",
        "starlette",
        "uvicorn",
        "prometheus_client",
        "subprocess",
    ]
    code = f"import sys, edgefl_agent.__main__; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
