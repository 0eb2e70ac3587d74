"""The compiler flags that setup.py declares, for builds without Python: `python setup_flags.py FAST`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SETUP = Path(__file__).resolve().parent.parent.parent / "setup.py"
NAMES = ("SMALL", "COMPILE", "EXACT", "FAST")


def flags(name: str) -> list[str]:
    """`FAST` is for the kernels, `EXACT` for all else. Only the lists are evaluated, so that Cython is not needed."""
    known: dict[str, list[str]] = {}
    for statement in ast.parse(SETUP.read_text()).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", None) in NAMES:
            exec(compile(ast.Module([statement], []), str(SETUP), "exec"), known)
    return known[name]


if __name__ == "__main__":
    print(*flags(sys.argv[1]))
