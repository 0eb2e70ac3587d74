"""Files that comments name are there: a module that moves takes its name along."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("edgefl", "broker", "device_agent", "benchmarks", "docs", "tests")
FILES = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")} | {"setup.py"}
NAMED = re.compile(r"(?<![\w./-])((?:[a-z_]\w*/)*[a-z_]\w*\.py)\b")


def test_modules_name_only_modules_that_are_there():
    missing = {
        f"{name}: {named}"
        for name in FILES
        if not name.startswith("tests/")  # which write modules of their own
        for named in NAMED.findall((ROOT / name).read_text())
        if not any(f"/{file}".endswith(f"/{named}") for file in FILES)
    }
    assert not missing
