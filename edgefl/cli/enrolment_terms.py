"""What devices are enrolled with: the options that `edgefl keys add` and `edgefl keys batch` share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from msgspec import NODEFAULT

from ..errors import UsageError
from ..settings import schema
from ..settings.render import example_line, toml
from . import model as cli_model
from .text import say
from .values import at_least

if TYPE_CHECKING:
    from ..keys.enrolment import Terms

RELOAD = "then let mosquitto read them: systemctl reload mosquitto"


def add_terms(parser: argparse.ArgumentParser) -> None:
    """The options."""
    terms = parser.add_argument_group("what devices are enrolled with").add_argument
    terms("--data", metavar="SPEC", help="source of its examples in agent.toml; {name} stands for the device")
    terms("--max-examples", type=at_least(1), metavar="N", help="most examples that one of these devices may count for")
    terms("--canary", action="store_true", help="these devices judge candidates of a model")
    terms("--model", metavar="M.onnx", help="pin the plan of this model: these devices train no other")
    terms(
        "--standardize",
        action="store_true",
        help='for a federation with [features] standardize = "federated": these devices tell statistics of their '
        "columns, and the plan of --model has the scaling",
    )
    terms(
        "--policy",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of [policy] in agent.toml, such as least_devices=20; may be given several times. Where helpers are "
        "enrolled, masked=true and the helpers are there unless it says otherwise (docs/masked.md)",
    )
    cli_model.add_options(parser, adapters=True)


def terms_of(options: argparse.Namespace) -> Terms:
    """What the options say."""
    from ..keys import enrolment

    policy = _pinned(options) if options.model else {}
    policy |= {"statistics": True} if options.standardize else {}
    for text in options.policy:
        key, value = _said(text)
        policy[key] = value
    source, who = options.data or enrolment.DATA, getattr(options, "operator", "")
    return enrolment.Terms(source, policy or None, options.max_examples, options.canary, who)


def tell_policy(terms: Terms) -> None:
    """Say what the devices' owners demand, unless that is nothing but the defaults."""
    if terms.policy:
        shown = (f"{key} = {toml(value)}" for key, value in terms.policy.items() if key != "approved")
        say(f"[policy] in agent.toml: {', '.join(shown)}")


def _said(text: str) -> tuple[str, Any]:
    """Key and value of one --policy; UsageError."""
    from ..device.owner.policy_config import PolicyConfig

    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--policy {text!r}: write key=value, as in least_devices=20")
    try:
        setting = schema.find(PolicyConfig, key.strip().removeprefix("policy."))
    except UsageError as error:
        raise UsageError(f"--policy {text}: {error}") from None
    try:
        return setting.key, schema.parse(value.strip(), setting.hint)
    except ValueError as error:
        like = "" if setting.example is NODEFAULT else f", as in {example_line(setting)}"
        raise UsageError(f"--policy {text}: {error}{like}") from None


def _pinned(options: argparse.Namespace) -> dict[str, Any]:
    from ..protocol.approval import id_of

    model = cli_model.load(options, standardize=options.standardize)
    return {"plans": "pinned", "approved": [id_of(model.plan)]}
