"""What a file for `edgefl compare` and `edgefl tune` may say: the settings of every run, and what is compared."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from ..settings import EvaluateSettings, Settings
from ..settings.reading import AlsoTrain, Constants, Freeze, Tie, Untie
from ..simulation.options import FleetOptions
from .cases import Judge

Above = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
HOLDOUT = 0.1


class CompareSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is compared: every combination, with every seed. Others are measured by the first strategy and codec."""

    strategies: Annotated[list[str], Meta(description="Strategies, with their options after a colon.")] = field(
        default_factory=list
    )
    variants: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="Further rows by name: a strategy and other settings, such as strategy and train.prox_mu."),
    ] = field(default_factory=dict)
    codecs: Annotated[
        list[str], Meta(description='Codecs of updates; "UP / DOWN" names that of models too. Else those of [codec].')
    ] = field(default_factory=list)
    partitions: Annotated[list[str], Meta(description="Partitions; without them, that of [fleet].")] = field(
        default_factory=list
    )
    faults: Annotated[list[str], Meta(description='Faults; "" stands for none. Without them, those of [fleet].')] = (
        field(default_factory=list)
    )
    seeds: Annotated[
        int,
        Meta(
            ge=1, le=1000, description="Runs of each combination: with the seeds train.seed, train.seed + 1 and so on."
        ),
    ] = 3
    last: Annotated[
        int, Meta(ge=1, description="A run's accuracy is the mean over so many rounds at its end, or at a budget.")
    ] = 5
    every: Annotated[
        int, Meta(ge=1, description="Devices' held-out examples judge the model of one round in so many.")
    ] = 1
    judge: Annotated[
        Judge,
        Meta(
            description='"model": every model is judged by the test set, and by all that devices hold out. "devices": '
            "by what devices report of the models that they use, which may be their own (docs/personal.md)."
        ),
    ] = "model"
    budgets: Annotated[
        dict[str, Above],
        Meta(description="Quality under a budget: at most so many rounds, megabytes, hours or joules."),
    ] = field(default_factory=dict)
    targets: Annotated[list[Share], Meta(description="Cost to a target: test accuracies to reach.")] = field(
        default_factory=list
    )


class TuneSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is searched for each strategy and partition before they are compared: with the same number of trials each.

    Trials are judged by examples that the devices hold out, with seeds that no compared run has; never by the test set.
    """

    grid: Annotated[
        dict[str, list[Any]], Meta(description="Values to try, by setting, such as lr = [0.03, 0.1, 0.3].")
    ] = field(default_factory=dict)
    own: Annotated[
        dict[str, dict[str, list[Any]]],
        Meta(description="Values that one strategy or variant has to try too: settings, or options of the strategy."),
    ] = field(default_factory=dict)
    trials: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Trials of each strategy on each partition; without it, all combinations of `grid`."),
    ] = None
    rounds: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Rounds of a trial; without it, those of a run.")
    ] = None
    seeds: Annotated[int, Meta(ge=1, le=1000, description="Runs of each trial.")] = 1
    halving: Annotated[
        bool,
        Meta(
            description="Run all trials for a third of the rounds first, and the best third of each row's for all of "
            "them: about two thirds of the work."
        ),
    ] = False
    holdout: Annotated[
        float, Meta(gt=0, le=0.9, description="Share of its examples that each device holds out in a trial.")
    ] = HOLDOUT


class Experiment(Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file. Its sections [train], [rounds] and so on hold for every run, where `compare` does not say otherwise."""

    model: Annotated[
        str, Meta(description="An ONNX file, mlp:SIZES or mcmahan:NAME; but a file's, weights are drawn by the seed.")
    ]
    data: Annotated[str, Meta(description="The examples: a SPEC, as edgefl simulate takes.")]
    fleet: Annotated[FleetOptions, Meta(description="The fleet that is simulated.")] = field(
        default_factory=FleetOptions
    )
    compare: Annotated[CompareSettings, Meta(description="What is compared.")] = field(default_factory=CompareSettings)
    tune: Annotated[TuneSettings, Meta(description="What is searched before.")] = field(default_factory=TuneSettings)
    evaluate: EvaluateSettings = field(default_factory=lambda: EvaluateSettings(holdout=HOLDOUT))
    devices_file: Annotated[
        str, Meta(description="What the devices are like: speed, hours, link, battery, energy (docs/simulation.md).")
    ] = ""
    loss: Annotated[str | None, Meta(description="The loss; without it, inferred from model and data.")] = None
    freeze: Freeze = field(default_factory=list)
    also_train: AlsoTrain = field(default_factory=list)
    tie: Tie = field(default_factory=list)
    untie: Untie = field(default_factory=list)
    dims: Annotated[dict[str, int], Meta(description="Sizes of axes that the file leaves open.")] = field(
        default_factory=dict
    )
    constants: Constants = field(default_factory=dict)
