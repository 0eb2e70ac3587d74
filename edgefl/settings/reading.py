"""How a model's file is read: what in it trains, and which of its tensors are one.

Declared here once, for aggregator.toml, for the file of an experiment, and for the options of commands.
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from msgspec import Meta

PATTERN = "by name, glob, or the start of a name"
HELP = {  # of each choice that `edgefl.load` takes; an option --NAME of commands
    "freeze": f"Initializers that are not trained: {PATTERN}.",
    "train": "Trained, though they would stay as they are: single numbers, a scaling of the input; wins over freeze.",
    "tie": "Equal tensors that are one: they are trained as one param.",
    "untie": "Tensors that several nodes read, and that become a param for each of them.",
}
CONSTANTS = "Inputs that are the same for every sample, with their number: an initial state, a flag."

Freeze = Annotated[list[str], Meta(description=HELP["freeze"])]
AlsoTrain = Annotated[list[str], Meta(description=HELP["train"])]  # [train] is how devices train
Tie = Annotated[list[str], Meta(description=HELP["tie"])]
Untie = Annotated[list[str], Meta(description=HELP["untie"])]
Constants = Annotated[dict[str, float], Meta(description=CONSTANTS)]


class Reading(Protocol):
    """What has the settings above."""

    @property
    def freeze(self) -> list[str]: ...
    @property
    def also_train(self) -> list[str]: ...
    @property
    def tie(self) -> list[str]: ...
    @property
    def untie(self) -> list[str]: ...
    @property
    def constants(self) -> dict[str, float]: ...


def choices(settings: Reading) -> dict[str, Any]:
    """The keyword arguments of `edgefl.load`."""
    return {
        "freeze": settings.freeze, "train": settings.also_train, "tie": settings.tie, "untie": settings.untie,
        "constants": settings.constants,
    }  # fmt: skip
