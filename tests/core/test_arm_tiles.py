"""The register tiles for aarch64: out of a disassembly, since what a compiler does to them no result shows."""

from __future__ import annotations

import os
import shutil

import arm_loops
import in_order_core
import pytest

SUMS = 4  # multiplications of vectors, from which on a loop is one that much depends on


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    if not shutil.which(f"{arm_loops.TOOLS}gcc") and not os.environ.get("EDGEFL_REQUIRE_CROSS"):
        pytest.skip("apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    return arm_loops.kernels(tmp_path_factory.mktemp("aarch64"))


def test_no_inner_loop_of_products_keeps_anything_on_the_stack(kernels):
    loops = [loop for loop in arm_loops.innermost(kernels) if loop.sums >= SUMS]
    named = ("gemm_panel", "dot_rows", "product_panel", "channel_tiles", "gram", "weigh_rows")
    assert all(any(loop.function.startswith(name) for loop in loops) for name in named)
    assert [(loop.function, loop.on_stack) for loop in loops if loop.on_stack] == []


@pytest.mark.parametrize("tile", ["gemm 6x4", "product 6x4", "dots 6x4"])
def test_the_largest_tiles_do_little_beside_their_multiplications(kernels, tile):
    loop = arm_loops.tiles(kernels)[tile]
    assert loop.sums == 24
    assert len(loop.body) <= 39  # 24, 10 loads, what they add up for the next step, one prefetch, one jump
    assert not any(line.startswith(("mov", "ins", "dup")) for line in loop.body)


LATENCIES = {"fmla": 10, "ldr": 4, "prfm": 4, "add": 3, "cbnz": 1}  # of a Cortex-A53, as LLVM has them


@pytest.mark.parametrize(("tile", "share"), [("gemm 6x4", 0.75), ("gemm 5x4", 0.7), ("product 6x4", 0.75)])
def test_a_core_in_order_multiplies_for_most_of_a_tile(kernels, tile, share):
    loop = arm_loops.tiles(kernels)[tile]
    taken = in_order_core.cycles(loop.body, [LATENCIES[line.split()[0]] for line in loop.body])
    assert loop.sums / taken >= share


def test_a_loop_on_the_stack_is_found(tmp_path):
    code = [
        (0, "mov x1, #0x4"),
        (4, "ldr q0, [sp, #16]"),
        (8, "fmla v1.4s, v0.4s, v2.s[0]"),
        (12, "subs x1, x1, #0x1"),
        (16, "b.ne 4 <f+0x4>"),
        (20, "ret"),
    ]
    assert arm_loops.natural_loops(code) == {1: {1, 2, 3, 4}}
    assert arm_loops.Loop("f", tuple(line for _, line in code[1:5])).on_stack == ["ldr q0, [sp, #16]"]


MANY = [f"fmla v{i}.4s, v30.4s, v31.s[0]" for i in range(12)]


@pytest.mark.parametrize(
    ("body", "taken"),
    [
        (MANY[:1], 10),  # each waits for the one before
        (MANY, 12),  # one a cycle, if there are enough
        ([*MANY, "ldr s31, [x1]", "ldr s31, [x1]"], 16),  # the first beside the last of these; 4 after the second
        ([line for fmla in MANY for line in (fmla, "ldr s20, [x1]")], 12),  # in pairs
        ([line for fmla in MANY for line in (fmla, "ldr q20, [x1]")], 36),  # not of wide ones
    ],
)
def test_a_core_in_order_waits_for_operands_and_units(body, taken):
    latencies = [10 if line.startswith("fmla") else 4 for line in body]
    assert in_order_core.cycles(body, latencies) == taken
