"""The innermost loops of the kernels for aarch64, out of a disassembly."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from setup_flags import flags

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = "aarch64-linux-gnu-"
JUMP = re.compile(r"(?:b|b\.\w+|cbn?z|tbn?z) (?:.*, )?([0-9a-f]+) <")
TILES = {  # of tiles whose columns are all whole vectors: functions of the object, and what the report calls them
    "gemm": r"gemm_panel_(\d)_0",
    "product": r"product_panel_(\d)_0",
    "dots": r"dot_rows()",
}


@dataclass(frozen=True)
class Loop:
    function: str
    body: tuple[str, ...]  # instructions, without their addresses

    @property
    def sums(self) -> int:
        return sum(line.startswith("fmla") for line in self.body)

    @property
    def on_stack(self) -> list[str]:
        return [line for line in self.body if re.search(r"\[(sp|x29)\b", line)]


def kernels(folder: Path) -> Path:
    """The object of the kernels, built with the flags of setup.py."""
    built = folder / "kernels.o"
    given = [*flags("FAST"), "-Isrc", "-DEFL_ISA=baseline", "-c", "src/kernels/kernels.c", "-o", str(built)]
    subprocess.run([f"{TOOLS}gcc", *given], cwd=ROOT, check=True)
    return built


def functions(built: Path) -> dict[str, list[tuple[int, str]]]:
    """Addresses and instructions of each function."""
    listed = subprocess.run(
        [f"{TOOLS}objdump", "-d", "--no-show-raw-insn", built], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[tuple[int, str]]] = {}
    lines: list[tuple[int, str]] = []
    for line in listed.splitlines():
        if named := re.match(r"[0-9a-f]+ <(.+)>:", line):
            lines = found.setdefault(named[1], [])
        elif one := re.match(r"\s*([0-9a-f]+):\s+(.*)", line):
            lines.append((int(one[1], 16), " ".join(one[2].split(" //")[0].split())))
    return found


def natural_loops(code: list[tuple[int, str]]) -> dict[int, set[int]]:
    """Of one function: the instructions from which a loop's last jump is reached without passing its head, by head."""
    index = {address: i for i, (address, _) in enumerate(code)}
    before: list[list[int]] = [[] for _ in code]
    back = []
    for i, (_, line) in enumerate(code):
        jump = JUMP.match(line)
        if jump and (to := index.get(int(jump[1], 16))) is not None:
            before[to].append(i)
            if to <= i:
                back.append((to, i))
        if line.split()[0] not in ("b", "ret", "br") and i + 1 < len(code):
            before[i + 1].append(i)
    found: dict[int, set[int]] = {}
    for head, last in back:
        body, waiting = {head}, [last]
        while waiting:
            if (i := waiting.pop()) not in body:
                body.add(i)
                waiting += before[i]
        if head == 0 or 0 not in body:
            found.setdefault(head, set()).update(body)
    return found


def innermost(built: Path) -> Iterator[Loop]:
    for name, code in functions(built).items():
        found = natural_loops(code)
        for head, body in found.items():
            if not any(other != head and other in body for other in found):
                yield Loop(name, tuple(code[i][1] for i in sorted(body)))


def tiles(built: Path) -> dict[str, Loop]:
    """The loops over K of register tiles, by names such as "gemm 6x4": rows and vectors."""
    found: dict[str, Loop] = {}
    for loop in sorted(innermost(built), key=lambda loop: -len(loop.body)):  # what is left is the shortest of a kind
        for name, pattern in TILES.items():
            if (match := re.match(pattern, loop.function)) and loop.sums:
                cols = int(match[1] or 4)
                found[f"{name} {loop.sums // cols}x{cols}"] = loop
    return found
