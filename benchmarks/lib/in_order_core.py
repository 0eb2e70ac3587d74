"""How many cycles a loop takes on a Cortex-A53, which issues two instructions a cycle, in order.

ARM publishes no table of its timings. Here there is one unit for vectors, one for memory, one for branches, and two for
integers; an instruction waits for its operands, and those behind it wait with it. Latencies are LLVM's for this core. A
load of 128 bits passes a path of 64: it takes two cycles, in which nothing else is issued. LLVM lets it take one,
beside others: `wide_loads=1`.

llvm-mca simulates this core too, but lets no instruction write its result before all earlier ones have. A load behind a
multiplication then waits for six cycles, which the core does not: no order of instructions would reach a third of its
peak, and what others measure on it would be impossible.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

REGISTER = re.compile(r"\b([xwvqds])(\d+)\b")
ROUNDS = 64  # of the loop; the second half is counted


@dataclass(frozen=True)
class Instruction:
    unit: str  # vector, memory, branch or integer
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    latency: int
    wide: int  # registers of 128 bits that it loads


def registers(text: str) -> list[str]:
    """Names by which all views of a register are one."""
    return [("v" if kind in "vqds" else "x") + number for kind, number in REGISTER.findall(text)]


def instruction(line: str, latency: int) -> Instruction:
    op, _, rest = line.partition(" ")
    used = registers(rest)
    if op.startswith("b.") or op in ("b", "cbz", "cbnz", "tbz", "tbnz"):
        return Instruction("branch", (*used, "flags"), (), latency, 0)
    if op in ("cmp", "prfm") or op.startswith("st"):
        unit = "integer" if op == "cmp" else "memory"
        return Instruction(unit, tuple(used), ("flags",) if op == "cmp" else (), latency, 0)
    if op.startswith("ld"):
        count = 2 if op == "ldp" else 1
        wide = count if re.match(r"q\d", rest) else 0
        return Instruction("memory", tuple(used[count:]), tuple(used[:count]), latency, wide)
    unit = "vector" if any(name.startswith("v") for name in used) else "integer"
    reads = used if op in ("fmla", "ins", "bsl") else used[1:]
    return Instruction(unit, tuple(reads), (*used[:1], *(["flags"] if op in ("subs", "adds") else [])), latency, 0)


class Core:
    def __init__(self, wide_loads: int) -> None:
        self.wide_loads = wide_loads  # cycles that one takes alone; 1: not alone
        self.cycle = 0
        self.issued: list[str] = []  # units, in this cycle
        self.ready: dict[str, int] = {}

    def next_cycle(self, at: int) -> None:
        if at > self.cycle:
            self.cycle, self.issued = at, []

    def issue(self, one: Instruction) -> None:
        self.next_cycle(max((self.ready.get(name, 0) for name in one.reads), default=0))
        alone = one.wide and self.wide_loads > 1
        taken = one.unit != "integer" and one.unit in self.issued
        if len(self.issued) == 2 or taken or (alone and self.issued):
            self.next_cycle(self.cycle + 1)
        self.issued.append(one.unit)
        self.ready.update(dict.fromkeys(one.writes, self.cycle + one.latency))
        if alone:
            self.next_cycle(self.cycle + self.wide_loads * one.wide)


def cycles(body: Sequence[str], latencies: Sequence[int], wide_loads: int = 2) -> float:
    """Of one round of the loop."""
    loop = [instruction(line, latency) for line, latency in zip(body, latencies, strict=True)]
    core, half = Core(wide_loads), 0
    for done in range(ROUNDS):
        if done == ROUNDS // 2:
            half = core.cycle
        for one in loop:
            core.issue(one)
    return (core.cycle - half) / (ROUNDS - ROUNDS // 2)
