"""The most stack that a program for Arm can need: the deepest path of calls, from its disassembly, C library and all.

Frames are what a function pushes and subtracts from sp. Calls through a pointer are resolved by a table, and a function
that has one and is not in it is an error. On a path a function is there once, or as often as `again` says.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HEAD = re.compile(r"([0-9a-f]{8}) <(.+)>:$")
TARGET = re.compile(r"([0-9a-f]{8}) <[^>]+>")


@dataclass
class Function:
    name: str
    frame: int = 0
    calls: set[str] = field(default_factory=set)  # addresses
    by_pointer: bool = False


def deepest(
    program: Path, start: str, pointers: Mapping[str, set[str]], again: Mapping[str, int]
) -> tuple[int, list[str]]:
    """Bytes of stack of the deepest path from `start`, and its functions."""
    functions = _functions(program)
    for address, function in functions.items():
        if function.by_pointer:
            names = pointers[function.name]
            function.calls |= {at for at, other in functions.items() if other.name in names and at != address}

    def below(address: str, path: tuple[str, ...]) -> tuple[int, list[str]]:
        function, path = functions[address], (*path, address)
        open_calls = (
            at for at in function.calls if at in functions and path.count(at) < again.get(functions[at].name, 1)
        )
        size, names = max((below(at, path) for at in open_calls), default=(0, []))
        return function.frame + size, [f"{function.name} {function.frame}", *names]

    return below(next(at for at, function in functions.items() if function.name == start), ())


def _functions(program: Path) -> dict[str, Function]:
    words = ["arm-none-eabi-objdump", "-d", "--no-show-raw-insn", str(program)]
    found: dict[str, Function] = {}
    function = Function("")
    for line in subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines():
        if head := HEAD.match(line):
            function = found[head[1]] = Function(head[2])
        elif len(parts := line.split("\t")) > 1:
            _read(function, parts[1].strip(), parts[2] if len(parts) > 2 else "")
    return found


def _read(function: Function, op: str, operands: str) -> None:
    if op in ("push", "push.w", "vpush") or (op.startswith("stmdb") and operands.startswith("sp!")):
        function.frame += (8 if "{d" in operands else 4) * _registers(operands)
    elif op in ("sub", "sub.w", "subw") and operands.startswith("sp,"):
        function.frame += int(re.findall(r"#(\d+)", operands)[0])  # IndexError: it is no constant
    elif op.startswith("str") and "[sp, #-" in operands and operands.split(";")[0].rstrip().endswith("!"):
        function.frame += int(re.findall(r"#-(\d+)", operands)[0])
    elif op == "blx" or (op == "bx" and not operands.startswith("lr")):
        function.by_pointer = True
    elif op.startswith(("b", "cb")) and (target := TARGET.search(operands)):
        function.calls.add(target[1])


def _registers(operands: str) -> int:
    count = 0
    for part in operands.partition("{")[2].partition("}")[0].split(","):
        first, _, last = part.strip().partition("-")
        count += int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count
