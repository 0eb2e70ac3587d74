"""`edgefl privacy`: what to choose for an epsilon, and what it leaves of the accuracy."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import msgspec

from ..errors import UsageError
from ..plural import plural
from ..privacy.clipping import RATE
from . import model as cli_model
from .text import say
from .values import at_least

if TYPE_CHECKING:
    from ..simulation.privacy.terms import Proposal

EXAMPLE = (
    "edgefl privacy --rounds 10 --devices 1000 --epsilon 8 --params 199210\n"
    "  edgefl privacy --rounds 20 --devices 10000 --epsilon 2 --model mlp:64-32-10 --data digits"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Propose clip, noise, bits and least sum for an epsilon, and show what is left of the accuracy.

    Epsilon is that of each device's whole part in all rounds. With --data, the rounds are simulated with that noise,
    and beside it without; up to a hundred simulated devices stand for all.
    """
    add = parser.add_argument_group("what is wanted").add_argument
    add("--rounds", type=at_least(1), required=True, metavar="N", help="rounds, all of them")
    add("--devices", type=at_least(2), required=True, metavar="N", help="devices that take part in turn")
    add("--epsilon", type=at_least(0.0), required=True, metavar="X", help="what all rounds together may spend")
    add("--delta", type=at_least(0.0), default=1e-5, metavar="X", help="far below 1 / devices (default: 1e-05)")
    help = "devices that take part in each round (default: all)"
    add("--cohort", type=at_least(2), metavar="N", help=help)
    help = "longest L2 norm of an update (default: what suits devices and model, at most 1)"
    add("--clip", type=at_least(0.0), metavar="X", help=help)
    help = "adaptive clipping: move the clip toward this quantile of the updates' norms, from --clip on"
    add("--clip-quantile", type=at_least(0.0), metavar="X", help=help)
    help = f"how fast: a round changes it by a factor of e^X at most (default: {RATE})"
    add("--clip-rate", type=at_least(0.0), default=RATE, metavar="X", help=help)
    help = "share of the params that a round sends (default: 1/8 if noise then costs little, else all)"
    add("--share", type=at_least(0.0), metavar="X", help=help)
    words = ("auto", "independent", "banded")
    add(
        "--noise",
        choices=words,
        default="auto",
        help="kind of noise; auto: what leaves less in the model (default: auto)",
    )
    add = parser.add_argument_group("the model").add_argument
    add("--params", type=at_least(1), metavar="P", help="numbers of an update, where there is no --model")
    add("--model", metavar="M.onnx", help="an ONNX file, mlp:SIZES such as mlp:784-200-200-10, or mcmahan:cnn")
    add = parser.add_argument_group("the simulation").add_argument
    add("--data", metavar="SPEC", help="simulate the rounds on these examples (docs/data.md)")
    add("--partition", default="iid", metavar="P", help="how --data is spread: docs/partitions.md (default: iid)")
    help = "simulated devices that train in a round, in turn; ten do for a first look (default: all)"
    add("--trained", type=at_least(1), metavar="N", help=help)
    add("--epochs", type=at_least(1), default=1, metavar="N", help="epochs of a device in a round (default: 1)")
    add("--lr", type=at_least(0.0), default=0.1, metavar="X", help="learning rate (default: 0.1)")
    add("--seed", type=at_least(0), default=0, metavar="N", help="seed (default: 0)")
    add("--json", action="store_true", help="print JSON instead of text")
    cli_model.add_options(parser)
    parser.set_defaults(command=_privacy)


def _privacy(options: argparse.Namespace) -> int:
    if (options.params is None) == (options.model is None):
        raise UsageError("give --model, or --params alone")
    if options.data is not None and options.model is None:
        raise UsageError("--data is what a --model is trained on: give both")
    if options.data is not None:
        return _simulate(options)
    params = options.params or cli_model.load(options, options.seed).plan.num_params
    found = _suggested(options, params)
    if options.json:
        _print_json(found, {})
    else:
        _print(found)
        more = "add --data" if options.model else "give --model and --data in place of --params"
        say(f"\nwhat this leaves of the accuracy: {more}")
    return 0


def _suggested(options: argparse.Namespace, params: int) -> Proposal:
    from ..simulation.privacy.choice import suggest
    from ..simulation.privacy.terms import Goal

    goal = Goal(
        options.rounds, options.devices, options.epsilon, params, options.cohort or options.devices,
        delta=options.delta, noise=options.noise, quantile=options.clip_quantile, rate=options.clip_rate,
    )  # fmt: skip
    return suggest(goal, options.clip, options.share)


def _simulate(options: argparse.Namespace) -> int:
    from .. import data
    from ..simulation.privacy.rounds import Local, PrivateRounds, stand_ins
    from ..simulation.split.shifts import spread

    found = data.load(options.data, seed=options.seed)
    model = cli_model.load(options, options.seed, found.y_train)
    proposal = _suggested(options, model.plan.num_params)
    goal = proposal.goal
    devices = stand_ins(goal)
    dataset, parts = spread(data.fit_plan(found, model.plan), options.partition, devices, options.seed)
    model.check_targets(dataset.y_train)
    if dataset.x_test is None:
        raise UsageError(f"{dataset.name} has no test part, so no accuracy: add test=0.2 to the SPEC")
    if not options.json:
        _print(proposal)
        say(f"\nsimulated with {plural(devices, 'device')}, each in the place of {goal.devices / devices:g}:")
    asked = devices // goal.separation
    trained = min(options.trained or asked, asked)
    every = 1 if options.json else goal.rounds
    local, runs = Local(epochs=options.epochs, lr=options.lr), dict[str, list[float]]()
    for name, noisy in (("without noise", False), ("with noise", True)):
        rounds = PrivateRounds(
            model.plan, model.params, dataset, parts, proposal, local=local, seed=options.seed, noisy=noisy,
            trained=trained,
        )  # fmt: skip
        runs[name] = list(rounds.run(every))
        if not options.json:
            say(f"  accuracy {name:14} {runs[name][-1]:.4f} after {plural(goal.rounds, 'round')}")
    if options.json:
        _print_json(proposal, runs)
    return 0


def _print(found: Proposal) -> None:
    goal, terms, noise = found.goal, found.terms, found.terms.noise
    whom = f"{goal.cohort} of {goal.devices} devices"
    say(f"{plural(goal.rounds, 'round')}, {whom} in each: epsilon {goal.epsilon:g}, delta {goal.delta:g}")
    often = f"in one of {goal.separation} rounds" if goal.separation > 1 else "in every round"
    say(f"a device may take part {often}; nothing is claimed for which devices a round happens to ask")
    kind = f"correlated over {plural(noise.band, 'round')}" if noise.band else "independent"
    say(f"noise     {kind}: sigma {noise.sigma:.4g} of the grid, {found.multiplier:.4g} times the longest update")
    say(f"clip      {goal.clip:g}: an update that long has {found.typical:.3g} in each of its {goal.params:,} numbers")
    if goal.quantile is not None:
        say(
            f"          moves toward quantile {goal.quantile:g}, by a share of votes with {found.in_share:.2g} of noise"
        )
    say(f"a round   {found.in_param:.3g} of noise in each number of the mean, {found.in_round:.3g} clips long in all")
    say(f"the model {found.in_model:.3g} clips of noise, on average over rounds; it moves {goal.rounds} at most")
    _tell_strain(found)
    say(f"k, m, b   {terms.least} devices in a sum at least, {terms.bits} bits a number, each device's from "
        f"{-terms.reach} to {terms.reach} ({(2 * terms.reach).bit_length()} bits)")  # fmt: skip
    say(f"\n{found.to_toml()}")
    say('\nadd to [privacy]: helpers = "NAME", the helper that you have set up (docs/helper.md)')


def _tell_strain(found: Proposal) -> None:
    from ..simulation.privacy.choice import HOPELESS, helps, strain

    was = strain(found)
    say(
        f"strain    {was:.2g}: above {HOPELESS:.2g} training learns little of such noise, or diverges (docs/privacy.md)"
    )
    if was > HOPELESS:
        say("warning: this noise drowns what devices learn. What would help, at the same distance, most first:")
        for what, strained in helps(found).items():
            say(f"          {what}: a strain of {strained:.2g}")


def _print_json(found: Proposal, runs: dict[str, list[float]]) -> None:
    from ..simulation.privacy.choice import HOPELESS, helps, strain

    noise, terms, was = found.terms.noise, found.terms, strain(found)
    told = {
        "goal": found.goal, "noise": noise, "multiplier": found.multiplier, "in_param": found.in_param,
        "in_round": found.in_round, "in_model": found.in_model, "typical": found.typical, "least": terms.least,
        "bits": terms.bits, "reach": terms.reach, "grid": terms.grid, "norm2": terms.norm2, "accuracy": runs,
        "strain": was, "helps": helps(found) if was > HOPELESS else {},
    }  # fmt: skip
    print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
