"""What those commands of edgefl-agent have in common that read its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgefl.hosting.command import add_set_option

CONFIG = "/etc/edgefl/agent.toml"


def add_config(
    add: Callable[..., Any], setting: str = "state_dir=/var/lib/edgefl", help: str = "the agent's configuration"
) -> None:
    """The options that name it and change it; `setting` is an example for --set."""
    add("--config", metavar="FILE", default=CONFIG, help=help)
    add_set_option(add, setting)
