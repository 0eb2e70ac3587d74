"""Which clip and share suit a model and its devices, and when noise leaves nothing to learn: as runs were measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import sqrt

import pytest
from conftest import ROOT

from edgefl.cli.main import main
from edgefl.simulation.privacy.choice import DISTANCE, FITTING, HOPELESS, LONGEST, helps, strain, suggest
from edgefl.simulation.privacy.terms import Goal, propose

pytest.importorskip("dp_accounting")
PARAMS = {"2nn": 199_210, "cnn": 1_663_370, "small": 25_450}
SHARES = {"quarter": 1 / 4, "sixteenth": 1 / 16}
LINE = "privacy --rounds 40 --devices 100"


@dataclass(frozen=True)
class Run:
    """A row of the table of benchmarks/README.md."""

    model: str
    goal: Goal
    in_model: float
    accuracy: float | None  # in percent; None: training diverged

    @property
    def strain(self) -> float:
        return self.in_model**2 * self.goal.clip / (self.goal.rounds * sqrt(self.goal.params))


def measured() -> tuple[list[Run], dict[tuple[str, int, float], float]]:
    """The runs with noise; what each model, fleet and clip reaches without."""
    text = (ROOT / "benchmarks" / "README.md").read_text().partition("## `epsilon.py`")[2].partition("\n## ")[0]
    runs, silent = [], dict[tuple[str, int, float], float]()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] not in PARAMS:
            continue
        model, part, devices, rounds, clip, epsilon, noise, _, _, in_model, _, _, told = cells
        accuracy = None if told == "diverges" else float(told.split()[0])
        number = int(devices.replace(",", ""))
        if noise == "none":
            silent.setdefault((model, number, float(clip)), accuracy or 0.0)
            continue
        kind = "banded" if noise.startswith("band") else "independent"
        goal = Goal(
            int(rounds), number, float(epsilon), PARAMS[model], number // (10 if part == "turns" else 1),
            clip=float(clip), share=SHARES.get(part, 1.0), noise=kind,
        )  # fmt: skip
        runs.append(Run(model, goal, float(in_model), accuracy))
    return runs, silent


RUNS, SILENT = measured()


def lost(run: Run) -> float:
    """Points of accuracy that the noise has cost. Without noise it makes no difference for how many devices others
    stand, nor whether they take turns: a thousand of the CNN's were not run."""
    model, clip = run.model, run.goal.clip
    silent = SILENT.get((model, run.goal.devices, clip)) or SILENT[model, 100, clip]
    return 100.0 if run.accuracy is None else silent - run.accuracy


def test_the_table_is_read():
    assert len(RUNS) == 48 and sum(run.accuracy is None for run in RUNS) == 1


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.model}-{run.goal.devices}-{run.goal.epsilon:g}")
def test_the_strain_separates_the_runs_that_learned_from_those_that_did_not(run):
    assert strain(propose(run.goal)) == pytest.approx(run.strain, rel=0.02), "what is proposed now is what was run"
    assert (lost(run) > 13) == (run.strain > HOPELESS), (lost(run), run.strain)
    if run.strain <= 0.05:
        assert lost(run) <= 1.5
    elif run.strain <= 0.2:
        assert lost(run) <= 6


def test_a_hundred_devices_are_too_few_for_the_2nn_and_the_cnn_at_epsilon_1_and_2():
    """Whatever clip is chosen for them; not at 8, nor for the small net at 4."""
    for params, rounds in ((PARAMS["2nn"], 40), (PARAMS["cnn"], 12)):
        for epsilon, hopeless in ((1.0, True), (2.0, True), (8.0, False)):
            found = suggest(Goal(rounds, 100, epsilon, params, 100), None, None)
            assert (strain(found) > HOPELESS) == hopeless, (params, epsilon)
    assert strain(suggest(Goal(40, 100, 4.0, PARAMS["small"], 100), None, None)) <= FITTING * 1.05


@pytest.mark.parametrize(("devices", "epsilon"), [(100, 8.0), (100, 1.0), (1000, 4.0), (10_000, 1.0)])
def test_the_clip_is_the_longest_that_fits_within_the_distance_that_training_needs(devices, epsilon):
    goal = Goal(40, devices, epsilon, PARAMS["2nn"], devices)
    found = suggest(goal, None, 1.0)
    clip = found.goal.clip
    assert DISTANCE / 40 <= clip <= LONGEST
    assert clip == DISTANCE / 40 or strain(found) <= FITTING * 1.05
    longer = propose(replace(goal, clip=1.1 * clip))
    assert clip == LONGEST or strain(longer) > FITTING


def test_clips_are_near_those_that_were_chosen_on_the_test_set():
    """Within a factor of two, and accuracy depends little on that."""
    for model, rounds, epsilon, devices, chosen in (
        ("2nn", 40, 4.0, 100, 1 / 8), ("2nn", 40, 1.0, 10_000, 1.0), ("cnn", 12, 8.0, 100, 1 / 2),
    ):  # fmt: skip
        clip = suggest(Goal(rounds, devices, epsilon, PARAMS[model], devices), None, 1.0).goal.clip
        assert chosen / 2 <= clip <= 2 * chosen


def test_a_part_of_the_coordinates_is_proposed_where_noise_costs_little():
    def share(devices: int, params: int) -> float:
        return suggest(Goal(40, devices, 4.0, params, devices), None, None).goal.share

    assert share(10_000, PARAMS["2nn"]) == 1 / 8
    assert share(100, PARAMS["2nn"]) == 1.0
    assert share(10_000, 2410) == 1.0, "so few numbers are small anyway"


def test_what_is_given_is_not_changed():
    found = suggest(Goal(40, 100, 2.0, PARAMS["2nn"], 100), 0.7, 0.5)
    assert (found.goal.clip, found.goal.share) == (0.7, 0.5)


def test_more_devices_help_most_and_another_number_of_rounds_only_correlated_noise():
    found = suggest(Goal(40, 100, 2.0, PARAMS["2nn"], 100), 1 / 8, 1 / 4)
    told = helps(found)
    assert list(told)[:2] == ["twice the devices", "twice the epsilon"]
    assert told["twice the devices"] == pytest.approx(strain(found) / 4, rel=0.1)
    assert told["all coordinates"] < strain(found) and told["a model of half the params"] < strain(found)
    assert all(less <= 0.9 * strain(found) for less in told.values())
    assert not [what for what in told if "rounds" in what]
    banded = suggest(Goal(40, 1000, 1.0, PARAMS["2nn"], 100), 1 / 8, 1.0)
    assert helps(banded)["twice the rounds, each of half the clip"] == pytest.approx(0.8 * strain(banded), rel=0.1)


def test_where_nothing_is_left_to_change_nothing_is_told_to_help():
    found = propose(Goal(1, 2, 1.0, 1, 2))
    assert "a model of half the params" not in helps(found)


def test_one_round_is_not_rounds(capsys):
    assert main(["privacy", "--rounds", "1", "--devices", "1000", "--epsilon", "8", "--params", "1000"]) == 0
    assert capsys.readouterr().out.startswith("1 round, 1000 of 1000 devices in each: epsilon 8")


def test_the_command_warns_and_says_what_helps(capsys):
    assert main(f"{LINE} --epsilon 1 --params 199210".split()) == 0
    told = capsys.readouterr().out
    assert "warning: " in told and "docs/privacy.md" in told
    assert told.index("twice the devices") < told.index("twice the epsilon") < told.index("half the params")
    assert main(f"{LINE} --epsilon 8 --params 199210".split()) == 0
    assert "warning" not in capsys.readouterr().out
    assert main(f"{LINE} --epsilon 1 --params 199210 --json".split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["strain"] > HOPELESS and next(iter(found["helps"])) == "twice the devices"
    assert main(f"{LINE} --epsilon 8 --params 199210 --json".split()) == 0
    assert json.loads(capsys.readouterr().out)["helps"] == {}
