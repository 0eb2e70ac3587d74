"""The inputs that fuzzing begins with (tests/fuzz), without sanitizers: each ends as it should."""

from __future__ import annotations

import subprocess

import fuzz
import pytest
from conftest import ROOT

from edgefl.errors import EdgeFLError

SOUND = {"codecs": 0.02, "onnx_files": 1.0, "plans": 0.9, "stores": 0.3}  # of a target's seeds; else all


@pytest.mark.parametrize("target", fuzz.PYTHON)
def test_seeds_and_corpus_are_harmless(target):
    module = fuzz.load(target)
    seeds, sound, ends = module.seeds(), 0, set()
    for number, data in enumerate([*seeds, *fuzz.kept(target)]):
        try:
            ends.add(module.run(data))
        except EdgeFLError as error:
            ends.add(str(error))
        else:
            sound += number < len(seeds)
    assert sound >= SOUND.get(target, 1.0) * len(seeds) > 0
    if target == "codecs":
        assert len(ends) > 20  # it is a corpus of ways to end


@pytest.mark.parametrize("target", fuzz.PYTHON)
def test_mended_seeds_are_still_sound(target):
    module = fuzz.load(target)
    if target != "onnx_files" and hasattr(module, "mend"):  # which changes what it mends
        for data in module.seeds():
            assert module.mend(data) == data


def test_make_fuzz_runs_every_target():
    done = subprocess.run(["make", "-n", "fuzz"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("plan", *fuzz.PYTHON):
        assert f'echo "== {target}"' in done.stdout


def test_the_seeds_of_the_c_target_have_every_op_and_loss():
    from fuzz import plans

    made = plans.plans()
    assert {node.op for plan in made for node in plan.nodes} >= {*plans.names("EFL_OPS", "op")} - {"conv9"}
    assert {plan.loss for plan in made} == set(plans.names("EFL_LOSSES", "loss"))
    assert len({plans.binary(plan) for plan in made}) == len(made)
