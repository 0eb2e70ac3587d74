"""`edgefl-agent plans` and `edgefl-agent approve HASH`: the owner sees which plans ask to train, and approves one.

Both work on the state folder that agent.toml names, whether the agent runs or not. A running one notices within a
second.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edgefl.device.owner.policy import Policy
from edgefl.errors import UsageError
from edgefl.hosting import command
from edgefl.hosting.acting import as_owner_of
from edgefl.protocol.approval import SHORTEST, short
from edgefl.settings import files

from .commands import add_config
from .config import AgentConfig
from .plans import Plan, PlanFolder


def plans(argv: list[str]) -> int:
    """List the plans that were offered to this device."""
    parser = _parser("plans", "List the plans that ask to train on this device, in words, and which are approved.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    return command.run(options, lambda: _list(options))


def approve(argv: list[str]) -> int:
    """Approve one of them."""
    parser = _parser("approve", "Let a plan train on this device, from now on.")
    parser.add_argument("plan", metavar="HASH", help=f"the plan's id, or at least its first {SHORTEST} hex digits")
    options = parser.parse_args(argv)
    return command.run(options, lambda: _approve(options))


def _parser(name: str, description: str) -> command.Parser:
    parser = command.Parser(
        prog=f"edgefl-agent {name}", description=description, example=f"edgefl-agent {name} --config agent.toml"
    )
    add_config(parser.add_argument)
    command.add_common_options(parser, level="info")
    return parser


def _load(options: argparse.Namespace) -> tuple[PlanFolder, Policy]:
    config = files.load(options.config, AgentConfig, options.set)
    state_dir = Path(config.state_dir)
    if not state_dir.is_dir():
        raise UsageError(f"state_dir {config.state_dir!r} is no folder: start the agent once, or correct agent.toml")
    return PlanFolder(state_dir), config.policy.policy(keys=config.keys.dir is not None)


def _list(options: argparse.Namespace) -> None:
    folder, policy = _load(options)
    found = folder.all()
    known = {plan.id for plan in found}
    found += [Plan(id, True, "") for id in sorted(policy.approved - known)]
    if options.json:
        print(json.dumps([{"plan": p.id, "state": _state(p, policy), "words": p.words} for p in found]))
        return
    if not found:
        print(f'no plan has asked to train here yet (plans = "{policy.plans}")')
    for plan in found:
        print(f"{short(plan.id)}  {_state(plan, policy)}")
        for line in plan.words.splitlines():
            print(f"    {line}")


def _state(plan: Plan, policy: Policy) -> str:
    if policy.plans == "any":
        return "may train: any plan may"
    if plan.id in policy.approved:
        return "approved in agent.toml"
    if policy.plans == "pinned":
        return "refused: only plans in agent.toml may train"
    return "approved" if plan.approved else "waits for approval"


def _approve(options: argparse.Namespace) -> None:
    folder, policy = _load(options)
    id = folder.find(options.plan)
    if policy.plans == "pinned" and id not in policy.approved:
        raise UsageError(
            'plans = "pinned" in agent.toml: add the whole id to `approved` there, and start the agent again'
        )
    with as_owner_of(folder.path.parent):
        folder.approve(id)
    print(f"plan {short(id)} may train on this device")
