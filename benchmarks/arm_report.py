"""What the kernels for aarch64 cost on the cores of Raspberry Pis, without one: `make arm-report`.

    python benchmarks/arm_report.py [--accept]

1. Register tiles: cycles that one step of K takes on a Cortex-A53 (Pi 3, Zero 2), A72 (Pi 4) and A76 (Pi 5), out of
   LLVM's tables of these cores, and what share that is of the multiplications that the core could do meanwhile.
2. Operations: instructions a unit of work, counted in the emulator.

The figures are held against those in arm.json. One that is more than a fiftieth higher, or a share below its bound,
ends the run with exit code 1; --accept writes the new ones instead. No figure is a time: nothing here knows of caches.

apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static llvm-19
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "lib"))

import arm_loops
import in_order_core
from setup_flags import flags

KEPT = Path(__file__).with_name("arm.json")
MODELS = "llvm-mca-19"  # older ones take an A76 for an A57
RISE = 0.02
ROUNDS = 100
SUMS_A_CYCLE = {"A53": 1, "A53, wide loads at once": 1, "A72": 1, "A76": 2}  # vectors of four
BOUNDS = {  # of tiles that whole matrices consist of: shares of the peak
    "gemm 6x4": {"A53": 0.70, "A72": 0.95, "A76": 0.95},
    "gemm 5x4": {"A53": 0.70, "A72": 0.95, "A76": 0.95},
    "product 6x4": {"A53": 0.70, "A72": 0.95, "A76": 0.95},
    "dots 6x4": {"A72": 0.95, "A76": 0.95},
}
OPS = {  # of lib/arm_ops.c, and what is counted
    "gemm 10x64x128": "multiplication",
    "gemm_nt 10x128x64": "multiplication",
    "crc32c": "byte",
    "decode 8 30": "symbol",
    "decode 32 30": "symbol",
    "decode 32 500": "symbol",
    "encode 8 30": "symbol",
    "encode 32 30": "symbol",
    "encode 32 500": "symbol",
}

Figures = dict[str, dict[str, float]]


def simulate(body: Sequence[str], core: str, *options: str) -> str:
    """llvm-mca's account of the loop."""
    lines = [re.sub(r"[0-9a-f]+ <.*>", ".Lhead", line) for line in body]
    command = [MODELS, "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", f"-iterations={ROUNDS}", *options]
    source = ".Lhead:\n" + "\n".join(lines) + "\n"
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


def out_of_order(body: Sequence[str], core: str) -> float:
    found = re.search(r"Total Cycles:\s+(\d+)", simulate(body, core))
    assert found is not None
    return int(found[1]) / ROUNDS


def latencies(body: Sequence[str]) -> list[int]:
    listed = simulate(body, "cortex-a53", "-instruction-info", "-resource-pressure=false")
    return [int(latency) for latency in re.findall(r"^ \d+\s+(\d+)\s+[\d.]+ ", listed, re.MULTILINE)]


def tile_figures(loop: arm_loops.Loop) -> dict[str, float]:
    known = latencies(loop.body)
    return {
        "instructions": len(loop.body),
        "A53": in_order_core.cycles(loop.body, known),
        "A53, wide loads at once": in_order_core.cycles(loop.body, known, wide_loads=1),
        "A72": out_of_order(loop.body, "cortex-a72"),
        "A76": out_of_order(loop.body, "neoverse-n1"),  # the same core in a server
    }


def share(name: str, core: str, taken: float) -> float:
    rows, cols = map(int, name.split()[1].split("x"))
    return rows * cols / SUMS_A_CYCLE[core] / taken


def build_ops(kernels: Path) -> Path:
    root, program = arm_loops.ROOT, kernels.with_name("arm_ops")
    sources = ["benchmarks/lib/arm_ops.c", "src/kernels/dispatch.c", "src/error.c", "src/rng.c"]
    codecs = sorted(str(path) for path in (root / "src/codecs").glob("*.c"))
    command = [f"{arm_loops.TOOLS}gcc", *flags("EXACT"), "-Isrc", "-static", *sources, *codecs, str(kernels)]
    subprocess.run([*command, "-lm", "-o", program], cwd=root, check=True)
    return program


def executed(program: Path, op: str, repeats: int) -> int:
    """All instructions of a run: the emulator writes a line for each."""
    traced = ["qemu-aarch64-static", "-singlestep", "-d", "exec,nochain", "-D", "/dev/stderr"]
    run = subprocess.Popen(
        [*traced, program, op, str(repeats)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=1 << 20
    )
    assert run.stderr is not None
    trace = run.stderr
    lines = sum(piece.count(b"\n") for piece in iter(lambda: trace.read(1 << 20), b""))
    if run.wait() != 0:
        sys.exit(f"arm_ops {op} failed")
    return lines


def op_figure(program: Path, op: str) -> float:
    units = int(subprocess.run(["qemu-aarch64-static", program, op, "1"], capture_output=True, check=True).stdout)
    return round((executed(program, op, 2) - executed(program, op, 1)) / units, 3)


def measure() -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        kernels = arm_loops.kernels(Path(folder))
        tiles = {name: tile_figures(loop) for name, loop in sorted(arm_loops.tiles(kernels).items())}
        program = build_ops(kernels)
        return tiles | {op: {f"instructions a {unit}": op_figure(program, op)} for op, unit in OPS.items()}


def table(figures: Figures) -> None:
    print("| tile | instructions | " + " | ".join(SUMS_A_CYCLE) + " |")
    print("|---|---|" + "---|" * len(SUMS_A_CYCLE))
    for name, row in figures.items():
        if "A53" in row:
            cells = [f"{row[core]:.1f}, {share(name, core, row[core]):.0%}" for core in SUMS_A_CYCLE]
            print(f"| {name} | {row['instructions']:.0f} | " + " | ".join(cells) + " |")
    print("\n| operation | instructions |\n|---|---|")
    for op, unit in OPS.items():
        print(f"| {op} | {figures[op][f'instructions a {unit}']:.2f} a {unit} |")


def faults(figures: Figures, kept: Figures) -> list[str]:
    """What has become worse, or is not what it must be."""
    found = [f"{name} is gone" for name in kept if name not in figures]
    for name, row in figures.items():
        for what, value in row.items():
            usual = kept.get(name, {}).get(what, value)
            if value > usual * (1 + RISE):
                found.append(f"{name}, {what}: {value:.2f}, was {usual:.2f}")
    for name, bounds in BOUNDS.items():
        for core, bound in bounds.items():
            if name in figures and (reached := share(name, core, figures[name][core])) < bound:
                found.append(f"{name} reaches {reached:.0%} of the peak of an {core}, must {bound:.0%}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="keep these figures")
    options = parser.parse_args()
    for program in (f"{arm_loops.TOOLS}gcc", MODELS, "qemu-aarch64-static"):
        if not shutil.which(program):
            sys.exit(f"{program} is missing: apt-get install {(__doc__ or '').split('apt-get install')[1].strip()}")
    figures = measure()
    table(figures)
    if options.accept:
        KEPT.write_text(json.dumps(figures, indent=1) + "\n")
    found = faults(figures, json.loads(KEPT.read_text()))
    sys.exit("\n".join(["", *found]) if found else 0)


if __name__ == "__main__":
    main()
