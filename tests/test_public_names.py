"""The names that `import edgefl` gives: listed, loaded on first use, and typed for a user's own type checker."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys

import pytest
from conftest import ROOT

import edgefl

USER = """\
import numpy as np

import edgefl
from edgefl import History, Model, Trainer, codecs
from edgefl.errors import EdgeFLError


def best(path: str, images: "np.ndarray", labels: "np.ndarray") -> tuple[float, int]:
    model: Model = edgefl.load(path, freeze=["stem"])
    trainer = Trainer(model.plan, batch=64)
    result = trainer.fit(model.params, images, labels, epochs=2, lr=0.05, optimizer="adam")
    codec = codecs.get("ecq")
    payload: bytes = codec.encode(result.delta)
    moved = model.params + codec.decode(payload, model.plan.num_params)
    model.save("out.onnx", moved)
    return trainer.evaluate(moved, images, labels).loss, len(payload)


def rounds(model: Model, spec: str) -> History:
    history = edgefl.simulate(model, edgefl.data.load(spec), devices=10, rounds=3)
    accuracy: float | None = history.final.accuracy
    history.plot("curve.png")
    print(history, accuracy, [record.bytes_up for record in history.rounds])
    return history


print(best, rounds, EdgeFLError, edgefl.__version__)
"""
WRONG = {
    'edgefl.load(path, freeze=["stem"])': ("edgefl.load(path, frozen=1)", 'Unexpected keyword argument "frozen"'),
    "Trainer(model.plan, batch=64)": ('Trainer(model, batch="64")', 'incompatible type "Model"; expected "Plan"'),
    "payload: bytes = codec.encode": ("payload: str = codec.encode", '"bytes", variable has type "str"'),
    "accuracy: float | None = history": ("accuracy: int = history", '"float | None", variable has type "int"'),
    "edgefl.__version__": ("edgefl.Trainr", 'Module has no attribute "Trainr"'),
}
NAMES = ast.parse((ROOT / "edgefl" / "__init__.py").read_text())


def checked_names() -> set[str]:
    """Those under `if TYPE_CHECKING`."""
    blocks = [node for node in NAMES.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {alias.name for block in blocks for node in block.body for alias in getattr(node, "names", [])}


def test_dir_lists_the_public_names_and_each_can_be_had():
    assert dir(edgefl) == sorted(edgefl.__all__)
    assert {"load", "simulate", "Model", "Plan", "Trainer", "History", "codecs", "strategies", "data"} <= {*dir(edgefl)}
    for name in dir(edgefl):
        assert getattr(edgefl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = edgefl.lode


def test_type_checkers_see_the_names_that_are_loaded():
    assert checked_names() == {*edgefl.__all__} - {"__version__"}


def test_listing_names_loads_nothing():
    code = "import sys, edgefl; dir(edgefl); print([m for m in sys.modules if m.startswith('edgefl.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed: pip install mypy")
def test_mypy_checks_a_users_script(tmp_path):
    """Strictly, with types and not Any throughout: each mistake is found, and nothing else."""
    scripts = {"right.py": USER}
    for number, (right, (wrong, _)) in enumerate(WRONG.items()):
        assert USER.count(right) == 1
        scripts[f"wrong{number}.py"] = USER.replace(right, wrong)
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={ROOT / 'build' / 'mypy'}"]
    command += ["--python-version=3.10", "--follow-imports=silent", *scripts]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert not [line for line in errors if not line.startswith("wrong")], done.stdout + done.stderr
    for number, (_, said) in enumerate(WRONG.values()):
        assert any(line.startswith(f"wrong{number}.py") and said in line for line in errors), done.stdout
