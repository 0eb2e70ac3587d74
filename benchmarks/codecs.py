"""Codecs: error against real bytes beside theory and other coders, bytes of real updates, and speed beside memcpy.

    python benchmarks/codecs.py [rate] [real] [speed] [--shared FOLDER] [--updates FOLDER] [--figure PNG]
                                [--json FILE] [--repeats N] [--cpu N]

`real` trains small federations for its updates, some minutes the first time, and keeps them in --updates; it needs
MNIST and Shakespeare in --shared and says so where they are not. `gap` is how many bits a coordinate above the limit
of a Gaussian source, 2^-2R. EDGEFL_ISA=avx2 and the like measures another instruction set.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
sys.path.insert(0, str(Path(__file__).parent / "lib"))

import coders_plot
import numpy as np
from coder_rates import STEPS, at_whole_bits, curves, real_rows
from coder_speed import real_speeds, speeds
from real_updates import by_epochs, updates

from edgefl import _core

GAUSSIAN = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
COLUMNS = (*STEPS, "ecq, no energies", "topk", "qsgd", "int8 + pcodec", "int8 + zstandard", "default ecq",
           "default ecq-sparse")  # fmt: skip


def rate() -> list[dict[str, Any]]:
    rows = at_whole_bits(GAUSSIAN)
    print("Gaussian, 2^20 coordinates: coder, bits a coordinate, NMSE, bits above the limit")
    for row in rows:
        wanted = row.get("target")
        verdict = "" if wanted is None else f"  to reach {wanted} {'ok' if row['nmse'] <= wanted else 'MISSED'}"
        print(f"{row['coder']:18} {row['bits']:7.4f} {row['nmse']:9.5f} {row['gap']:7.3f}{verdict}")
    return rows


def real(options: argparse.Namespace) -> list[dict[str, Any]]:
    if not (options.shared / "data/mnist").is_dir():
        print(f"real updates: skipped, no data/mnist in {options.shared}: give --shared")
        return []
    rows = real_rows(updates(options.shared, options.updates))
    print("bits a coordinate at NMSE 0.1, and at the defaults\n" + "  ".join(("update".ljust(26), *COLUMNS)))
    for row in rows:
        name = f"{row['model']} {row['partition']} {row['stage']}"
        print("  ".join((name.ljust(26), *(f"{row[c]:.3f}".rjust(len(c)) for c in COLUMNS))), flush=True)
    return rows


def speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    os.sched_setaffinity(0, {options.cpu})
    rows = speeds(GAUSSIAN, options.repeats)
    print(f"isa {_core.isa()}, one core, 2^20 coordinates: Mcoord/s, and of memcpy's in the same run")
    for row in rows:
        wanted = "" if row["target"] is None else f"  to reach {row['target']}"
        print(f"{row['coder']:22} {row['does']:10} {row['mcoord_s']:8.0f} {row['of_memcpy']:7.3f}x{wanted}")
    return rows + real_speed(options)


def real_speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Real updates are sparse, and their zeros lie together: coders pass these over, which Gaussian ones have not."""
    found = by_epochs(options.shared, options.updates)
    rows = real_speeds(found, options.repeats) if found else []
    print("real updates of 199,210 params: Mcoord/s" if rows else "real updates: skipped, no MNIST: give --shared")
    for row in rows:
        wanted = "" if row["target"] is None else f"  to reach {row['target']}"
        print(f"{row['coder']:22} {row['does']:10} {row['mcoord_s']:8.0f} cold {row['cold']:6.0f}{wanted}")
    return rows


def figure(options: argparse.Namespace) -> None:
    panels = {"Gaussian coordinates": curves(GAUSSIAN)}
    if (options.shared / "data/mnist").is_dir():
        late = next(u for u in updates(options.shared, options.updates, ("2nn",))
                    if (u.partition, u.stage) == ("shards:2", "late"))  # fmt: skip
        panels["a late update of the 2NN, two labels a device"] = curves(late.delta, late.tensors)
    coders_plot.draw(panels, options.figure)


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="rate, real, speed: all by default")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("EDGEFL_SHARED", ".")), metavar="FOLDER")
    parser.add_argument("--updates", type=Path, default=Path("build/updates"), metavar="FOLDER")
    parser.add_argument("--figure", type=Path, metavar="PNG")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)))
    options = parser.parse_args()
    parts = options.parts or ["rate", "real", "speed"]
    if unknown := set(parts) - {"rate", "real", "speed"}:
        parser.error(f"no part {', '.join(sorted(unknown))}: rate, real, speed")
    found: dict[str, Any] = {"isa": _core.isa()}
    if "rate" in parts:
        found["rate"] = rate()
    if "real" in parts:
        found["real"] = real(options)
    if options.figure:
        figure(options)
    if "speed" in parts:
        found["speed"] = speed(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
