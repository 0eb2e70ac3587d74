"""`edgefl plan-fleet`: what a round of a fleet will cost, and which epochs and codec reach a target soonest."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import UsageError
from ..history_costs import duration, energy
from ..history_text import size
from ..hosting import command
from ..plural import plural
from . import model as cli_model
from .text import say
from .values import at_least

if TYPE_CHECKING:
    from ..simulation.devices.world import World
    from ..simulation.plan.planning import Candidate, Estimate, Ground
    from ..simulation.plan.trials import Trial

EXAMPLE = (
    "edgefl plan-fleet --model mcmahan:2nn --devices 100 --device pi-4 --link lte --set rounds.fraction=0.1\n"
    "  edgefl plan-fleet --model mlp:64-32-10 --data digits --devices 50 --device pi-3b --link 3g --target 0.9"
)
HEAD = (
    f"{'epochs':>6}  {'codec':22} {'training':>9} {'link':>9} {'a round':>9} {'up':>9} {'down':>9}  energy of a round"
)
TRIED = (
    f"{'epochs':>6}  {'codec':22} {'rounds':>6} {'time':>9} {'bytes':>9}  {'energy':17}  a round, simulated / planned"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Plan a fleet: seconds, bytes and joules of a round, and what a target will take.

    Computation against communication: more epochs mean fewer rounds and longer ones. With --data, every candidate is
    simulated until it reaches the target, on the very devices, and the plan is checked against that.
    """
    add = parser.add_argument_group("the model and its settings").add_argument
    help = "an ONNX file, mlp:SIZES such as mlp:784-200-200-10, or mcmahan:cnn"
    add("--model", metavar="M.onnx", help=help)
    add("--config", metavar="FILE", help="settings, model and how it is read, from this aggregator.toml")
    command.add_set_option(add)
    add = parser.add_argument_group("the fleet").add_argument
    add("--devices", type=at_least(1), default=100, metavar="N", help="number of devices (default: 100)")
    help = "what they are: a board of docs/simulation.md such as pi-4, or their billions of operations a second"
    add("--device", default="", metavar="NAME|GFLOPS", help=help)
    help = "their link: wifi, lte or 3g, or kilobits a second up and down, such as 64/128"
    add("--link", default="", metavar="NAME|UP/DOWN", help=help)
    add("--devices-file", metavar="FILE", help="instead: kinds of devices (docs/simulation.md)")
    help = "examples of a device, where there is no --data (default: 600)"
    add("--examples", type=at_least(1), metavar="N", help=help)
    add = parser.add_argument_group("what is tried").add_argument
    add("--epochs", default="1,2,5,10", metavar="E,E,...", help="epochs to compare (default: 1,2,5,10)")
    add("--codecs", default="auto,raw32", metavar="C,C,...", help="codecs to compare (default: auto,raw32)")
    add("--data", metavar="SPEC", help="simulate until the target is reached (docs/data.md)")
    add("--partition", default="iid", metavar="P", help="how --data is spread: docs/partitions.md (default: iid)")
    add("--target", type=at_least(0.0), default=0.9, metavar="X", help="accuracy to reach (default: 0.9)")
    add("--rounds", type=at_least(2), default=100, metavar="N", help="most rounds of a simulation (default: 100)")
    add("--json", action="store_true", help="print JSON instead of text")
    cli_model.add_options(parser)
    parser.set_defaults(command=_plan)


def _plan(options: argparse.Namespace) -> int:
    from ..simulation.plan.planning import estimate
    from ..simulation.plan.trials import run

    candidates, ground = _candidates(options), _ground(options)
    if not options.json:
        _print_fleet(options, ground)
    found: list[tuple[Candidate, Estimate]] = []
    for candidate in candidates:
        found.append((candidate, estimate(ground, candidate)))
        if not options.json:
            _print_estimate(*found[-1])
    if not options.json:
        _print_balance(found)
    trials: list[Trial] = []
    if options.data is not None:
        _say(options, f"\nto an accuracy of {options.target:g}, simulated:\n{TRIED}")
        for candidate, planned in found:
            trials.append(run(ground, candidate, target=options.target, rounds=options.rounds))
            _say(options, _trial_line(candidate, planned, trials[-1]))
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(_report(ground, found, trials)), indent=2).decode())
    elif trials:
        _print_best(found, trials)
    return 0


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.json:
        say(text)


def _candidates(options: argparse.Namespace) -> list[Candidate]:
    from ..simulation.plan.planning import Candidate

    words = options.epochs.split(",")
    if not all(word.isdecimal() and 1 <= int(word) <= 10_000 for word in words):
        raise UsageError(f"--epochs {options.epochs}: give whole numbers from 1 to 10000, separated by commas")
    # A codec may have options, which have commas too: step=2 does not begin one.
    names = list[str]()
    for word in options.codecs.split(","):
        if names and "=" in word and ":" not in word:
            names[-1] += f",{word}"
        else:
            names.append(word)
    return [Candidate(int(epochs), codec) for codec in names for epochs in words]


def _ground(options: argparse.Namespace) -> Ground:
    from .. import data
    from ..arena_budget import within
    from ..simulation.filling import fill
    from ..simulation.plan.planning import Ground, invented
    from ..simulation.split.shifts import spread
    from .simulate import settings_of

    settings = fill(settings_of(options), options.devices)
    seed = settings.train.seed
    if options.data is None:
        model = cli_model.load(options, seed)
        dataset, parts = invented(model.plan, options.devices, options.examples or 600)
    else:
        if options.examples is not None:
            raise UsageError("--examples is for a plan without data: --data has its own number")
        found = data.load(options.data, seed=seed)
        model = cli_model.load(options, seed, found.y_train)
        dataset, parts = spread(data.fit_plan(found, model.plan), options.partition, options.devices, seed)
        model.check_targets(dataset.y_train)
        if dataset.x_test is None:
            raise UsageError(f"{dataset.name} has no test part, so no accuracy: add test=0.2 to the SPEC")
    return Ground(within(model.adapt(settings.adapters), settings), settings, _world(options), dataset, parts)


def _world(options: argparse.Namespace) -> World:
    """The devices, as --devices-file says or as --device and --link do."""
    from ..simulation.devices.world import World

    if options.devices_file is not None:
        if options.device or options.link:
            raise UsageError("--devices-file says what devices and links are: leave out --device and --link")
        return World.load(Path(options.devices_file))
    kind: dict[str, Any] = {}
    try:
        kind["gflops"] = float(options.device)
    except ValueError:
        kind |= {"profile": options.device} if options.device else {}
        kind.pop("gflops", None)
    up, slash, down = options.link.partition("/")
    if slash:
        try:
            kind |= {"up_kbit_s": float(up), "down_kbit_s": float(down)}
        except ValueError:
            raise UsageError(f"--link {options.link}: give kilobits a second up and down, such as 64/128") from None
    elif options.link:
        kind["link"] = options.link
    return World.of({"devices": [kind]}, "--device and --link")


def _print_fleet(options: argparse.Namespace, ground: Ground) -> None:
    plan, sizes = ground.model.plan, sorted(len(part) for part in ground.parts)
    operations = f"{ground.flops / 1e6:.3g} million operations an example, forward"
    say(f"model: {plan.num_params:,} params, {operations}")
    what = f"{sizes[len(sizes) // 2]} examples each" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]} examples"
    invented = "" if options.data else ", invented: give --data for your own"
    say(f"fleet: {plural(len(sizes), 'device')}, {what}{invented}")
    for kind in ground.world.kinds:
        if kind.source:
            say(f"source: {kind.source}")
        if kind.hours or kind.dropout or kind.battery_wh:
            say("note: hours, dropouts and batteries are in what is simulated, and not in the plan")
    say(f"\na round, for a median device that takes part:\n{HEAD}")


def _print_estimate(candidate: Candidate, found: Estimate) -> None:
    spent = energy(*found.joules) if found.joules[1] else "-"
    say(
        f"{candidate.epochs:>6}  {_codec(found):22} {duration(found.train_s):>9} {duration(found.link_s):>9} "
        f"{duration(found.round_s):>9} {size(found.bytes_up):>9} {size(found.bytes_down):>9}  {spent}"
    )


def _codec(found: Estimate) -> str:
    """The codec that is used, "auto" resolved, cut to its column."""
    return found.codec[:22]


def _print_balance(found: list[tuple[Candidate, Estimate]]) -> None:
    from ..simulation.plan.planning import balance

    first = found[0][1]
    begins = f"the first round takes {duration(first.first.round_s)} and {size(first.first.bytes_down)} down"
    say(f"a round asks {plural(first.asked, 'device')}; {begins}")
    say(f"later, a device that has no model yet gets {size(first.later.bytes_down)} down")
    if late := max(each.late for _, each in found):
        say(
            f"note: rounds do not wait for {late:.0%} of the devices, which are too slow for the others or the deadline"
        )
    for codec in dict.fromkeys(candidate.codec for candidate, _ in found):
        epochs = balance([each for each in found if each[0].codec == codec])
        if epochs is not None:
            say(f"{codec}: training takes as long as the link at {epochs:.2g} epochs")


def _trial_line(candidate: Candidate, planned: Estimate, trial: Trial) -> str:
    cost = trial.cost
    rounds = str(cost.round) if trial.reached else f">{cost.round}"
    spent = energy(*cost.joules) if cost.joules and cost.joules[1] else "-"
    expected = planned.over(trial.begin, trial.end)
    check = f"{duration(trial.round_s)} / {duration(expected.round_s)}"
    if trial.joules[1]:
        check += f", {energy(*trial.joules)} / {energy(*expected.joules)}"
    return (
        f"{candidate.epochs:>6}  {_codec(planned):22} {rounds:>6} {duration(cost.seconds):>9} "
        f"{size(cost.bytes_up + cost.bytes_down):>9}  {spent:17}  {check}"
    )


def _print_best(found: list[tuple[Candidate, Estimate]], trials: list[Trial]) -> None:
    reached = [(each[0], trial.cost) for each, trial in zip(found, trials, strict=True) if trial.reached]
    if not reached:
        best = max(trial.best for trial in trials)
        say(f"none reached it; the best accuracy was {best:.4g}: raise --rounds, or lower --target")
        return
    for axis, what in (("hours", "soonest"), ("megabytes", "fewest bytes"), ("joules", "least energy")):
        if all(cost.on(axis) for _, cost in reached):
            candidate, cost = min(reached, key=lambda each: each[1].on(axis) or 0.0)
            epochs, rounds = plural(candidate.epochs, "epoch"), plural(cost.round, "round")
            say(f"{what}: {epochs}, {candidate.codec}: {cost} in {rounds}")


def _report(ground: Ground, found: list[tuple[Candidate, Estimate]], trials: list[Trial]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"candidate": candidate, "planned": planned} for candidate, planned in found]
    for row, trial in zip(rows, trials, strict=False):
        row["simulated"] = trial
    plan = ground.model.plan
    return {
        "params": plan.num_params, "flops_forward": ground.flops, "devices": len(ground.parts),
        "examples": sorted(len(part) for part in ground.parts)[len(ground.parts) // 2],
        "kinds": ground.world.told(), "candidates": rows,
    }  # fmt: skip
