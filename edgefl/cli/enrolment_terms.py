"""What devices are enrolled with: the options that `edgefl keys add` and `edgefl keys batch` share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from . import model as cli_model
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
    cli_model.add_options(parser, adapters=True)


def terms_of(options: argparse.Namespace) -> Terms:
    """What the options say."""
    from ..keys import enrolment

    policy = _pinned(options) if options.model else {}
    policy |= {"statistics": True} if options.standardize else {}
    return enrolment.Terms(options.data or enrolment.DATA, policy or None, options.max_examples, options.canary)


def _pinned(options: argparse.Namespace) -> dict[str, Any]:
    from ..protocol.approval import id_of

    model = cli_model.load(options, standardize=options.standardize)
    return {"plans": "pinned", "approved": [id_of(model.plan)]}
