"""examples/mcu: the program without Python trains as Trainer.fit does, within the flash and stack promised."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ROOT
from stack_bound import deepest

import edgefl
from edgefl import data
from edgefl._core import plan_needs
from edgefl.onnx.zoo import from_spec

FOLDER = ROOT / "examples" / "mcu"
MODEL, BATCH, EXAMPLES, EPOCHS = "mlp:64-32-10", 8, 100, 20
TEXT, STACK = 80_000, 4096  # bytes
TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")

on_cortex_m33 = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in TOOLS) and not os.environ.get("EDGEFL_REQUIRE_CROSS"),
    reason="apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
)


class Run(NamedTuple):
    """What the program has said, and the params that it has come to."""

    program: Path
    lines: dict[str, str]
    params: np.ndarray

    def number(self, name: str) -> int:
        return int(self.lines[name].split()[0])

    def loss(self, when: str) -> float:
        return float(self.lines[f"{when}:"].split()[1].rstrip(","))


def make(target: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    words = ("make", "-s", "-C", str(FOLDER), target, f"BUILD={folder}", f"PY={sys.executable}", *words)
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)


def run(target: str, program: str, folder: Path) -> Run:
    made = make(target, folder, "DEFINES=-DSAY_PARAMS")
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-4000:]
    lines = [line.split(" ", 1) for line in made.stdout.splitlines() if " " in line]
    bits = np.array([int(rest, 16) for word, rest in lines if word == "param"], np.uint32)
    return Run(folder / program, {word: rest for word, rest in lines if word != "param"}, bits.view(np.float32))


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run("run-linux", "example", tmp_path_factory.mktemp("linux"))


@pytest.fixture(scope="module")
def cortex_m33(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run("run", "example.elf", tmp_path_factory.mktemp("m33"))


def check_training(made: Run) -> None:
    model, digits = edgefl.load(from_spec(MODEL)), data.load("digits")
    x, y = digits.x_train[:EXAMPLES], digits.y_train[:EXAMPLES]
    trainer = edgefl.Trainer(model.plan, batch=BATCH)
    wanted = model.params + trainer.fit(model.params, x, y, epochs=EPOCHS, batch_size=BATCH, lr=0.1).delta
    assert np.abs(wanted - model.params).max() > 0.1
    np.testing.assert_allclose(made.params, wanted, rtol=0, atol=1e-6)
    assert made.loss("before") == pytest.approx(trainer.evaluate(model.params, x, y).loss, abs=1e-4)
    assert made.loss("after") == pytest.approx(trainer.evaluate(wanted, x, y).loss, abs=1e-4)
    assert made.loss("after") < made.loss("before") / 10
    assert made.number("arena") == trainer.arena_bytes


def symbols(program: Path, nm: str) -> set[str]:
    lines = subprocess.run([nm, program], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[-1] for line in lines}


def check_cut(names: set[str]) -> None:
    """Only what the plan names is in the program, and neither threads nor a printf of the core's."""
    assert {"efl_op_dense", "efl_op_relu", "efl_loss_cross_entropy", "efl_kernel_gemm"} <= names
    assert not names & {"efl_op_tanh", "efl_op_conv", "efl_op_transpose", "efl_op_clip", "efl_loss_mse"}
    assert not names & {"efl_kernel_tanh", "efl_kernel_pointwise", "efl_kernel_product", "efl_kernel_quantize"}
    assert not {name for name in names if name.startswith(("pthread_", "vsnprintf", "_vfprintf", "_svfprintf"))}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_on_linux_it_trains_as_the_trainer_does(linux):
    check_training(linux)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_program_has_the_ops_of_its_plan_alone(linux):
    check_cut(symbols(linux.program, "nm"))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_another_model_in_the_same_folder_is_another_program(tmp_path):
    """As its README has it: make run MODEL=model.onnx BATCH=4, after a run of the example's own model."""
    for hidden in (8, 4):
        made = make("run-linux", tmp_path, f"MODEL=mlp:64-{hidden}-10", "DEFINES=-DEPOCHS=1")
        assert f"params {4 * (75 * hidden + 10)} bytes" in made.stdout.splitlines(), made.stderr


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_training_that_diverges_says_so(tmp_path):
    made = make("run-linux", tmp_path, "MODEL=mlp:64-8-10", "DEFINES=-DLR=1e9")
    assert made.returncode == 0, made.stderr
    assert "after: loss out of range, accuracy 0." in made.stdout


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_plan_with_an_op_that_was_cut_away_is_refused_and_says_what_to_do(tmp_path):
    assert make("run-linux", tmp_path).returncode == 0
    header = tmp_path / "model.h"
    header.write_text(header.read_text().replace("op(dense) op(relu)", "op(dense)"))
    made = make("run-linux", tmp_path)
    assert made.returncode != 0
    assert "no such op in this build; build it with the header" in made.stdout + made.stderr


@on_cortex_m33
def test_on_a_cortex_m33_it_trains_as_the_trainer_does(cortex_m33):
    check_training(cortex_m33)


@on_cortex_m33
def test_on_a_cortex_m33_the_program_has_the_ops_of_its_plan_alone(cortex_m33):
    check_cut(symbols(cortex_m33.program, "arm-none-eabi-nm"))


@on_cortex_m33
def test_it_fits_80_kb_of_text_and_4_kb_of_stack(cortex_m33):
    """Text is all that is in flash but the plan, its first params and the examples (section .numbers)."""
    listed = subprocess.run(
        ["arm-none-eabi-size", "-A", cortex_m33.program], capture_output=True, text=True, check=True
    )
    sizes = {line.split()[0]: int(line.split()[1]) for line in listed.stdout.splitlines() if line.startswith(".")}
    text = sizes[".text"] + sizes[".rodata"] + sizes[".ARM.exidx"] + sizes[".data"]
    assert 20_000 < text <= TEXT
    assert sizes[".numbers"] > 4 * (2410 + 64 * EXAMPLES)
    assert sizes[".stack"] == STACK
    assert 500 < cortex_m33.number("stack") <= STACK


PARTS = {"multiply_part", "update_part", "forward_part", "backward_part"}
# Whom the core calls through a pointer, where the plan has dense and relu
POINTERS = {
    "infer": {"infer"},
    "efl_heads_run": {"run_cross_entropy"},
    "efl_parallel": {"do_part", *PARTS},
    "efl_pool_run": {"do_part"},
    "do_part": PARTS,
    "efl_forward_in_parts": {"forward", "relu_forward"},
    "forward_part": {"forward", "relu_forward"},
    "efl_backward_in_parts": {"backward", "relu_backward"},
    "backward_part": {"backward", "relu_backward"},
    "qsort": {"larger_first"},
}


@on_cortex_m33
def test_no_path_of_calls_takes_more_than_4_kb_of_stack(cortex_m33):
    """Whatever the data: what was measured is one run's. Inside a part an op is not split again, so that efl_parallel
    calls itself once at most."""
    size, path = deepest(cortex_m33.program, "board_start", POINTERS, {"efl_parallel": 2, "qsort": 8})
    assert cortex_m33.number("stack") <= size <= STACK, path


@on_cortex_m33
def test_a_stack_that_is_full_ends_the_program(tmp_path):
    """The stack is measured, and the processor guards it: a program never goes on in other memory."""
    made = make("run", tmp_path, "STACK=1024")
    assert made.returncode != 0
    assert "fault: the stack is full" in made.stdout


@on_cortex_m33
def test_an_arena_that_32_bits_cannot_count_is_refused(tmp_path):
    """It must not become one of what its size leaves after 4 GiB."""
    model, batch = edgefl.load(from_spec(MODEL)), 2**22
    step = 2**21
    while step:
        batch += step if plan_needs(model.plan, batch + step)[0] < 2**32 else 0
        step //= 2
    size = plan_needs(model.plan, batch + 1)[0]
    assert 2**32 <= size < 2**32 + 1000
    made = make("run", tmp_path, f"BATCH={batch + 1}")
    assert made.returncode != 0
    assert f"no memory for the {size} bytes that the model needs to train" in made.stdout


@on_cortex_m33
def test_no_function_of_the_core_has_a_large_array_on_the_stack(cortex_m33):
    """Of all ops, those of other plans too; symbols.c and gram.c are a codec's and an aggregator's."""
    frames = {}
    for path in cortex_m33.program.parent.glob("*.su"):
        for line in path.read_text().splitlines():
            where, size, kind = line.split("\t")
            assert kind != "dynamic", line
            frames[where.partition("/src/")[2]] = int(size)
    frames = {where: size for where, size in frames.items() if "kernels/symbols.c" not in where}
    assert len(frames) > 400
    assert max(frames.values()) <= 1600, sorted(frames.items(), key=lambda item: -item[1])[:5]
