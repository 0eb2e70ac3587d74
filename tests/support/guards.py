"""Guards of the product that are removed by hand: whether the test that is named for one notices."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def breaks(monkeypatch, name: str, **given) -> bool:
    """Whether this test, "folder/file::test", with these arguments, fails now, and not without the change: for guards
    whose loss costs some time and no promise, or shows in few schedules."""
    path, test = name.split("::")
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "tests" / f"{path}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, test)
    changed = _fails(function, given)
    monkeypatch.undo()
    return changed and not _fails(function, given)


def _fails(function, given: dict) -> bool:
    with pytest.MonkeyPatch.context() as own:
        if "monkeypatch" in inspect.signature(function).parameters:
            given = given | {"monkeypatch": own}
        try:
            function(**given)
        except Exception:
            return True
    return False
