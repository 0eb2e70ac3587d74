"""The questions of `edgefl new` on a terminal. An empty answer takes what stands in brackets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..onnx.templates import TEMPLATES
from .complete import as_spec
from .wanted import AUTO, DEVICES

KEYS = ("data", "model", "devices", "split", "keys", "broker")
Ask = Callable[[str], str]


def ask(given: Mapping[str, Any], read: Ask = input) -> dict[str, Any]:
    """`given` with an answer for each option that it lacks (None)."""
    answers = dict(given)

    def put(key: str, question: str, default: str = "") -> None:
        while answers.get(key) is None:
            shown = f" [{default}]" if default else ""
            answers[key] = read(f"{question}{shown}: ").strip() or default or None

    put(
        "data",
        "Data: a table's file, or a SPEC such as csv:machines.csv?target=state\n  {name} in it stands for the device",
    )
    put("model", f"Model: your own file, {', '.join(TEMPLATES)}; auto takes what suits the data", AUTO)
    put("devices", "Names of the devices, separated by commas", ",".join(DEVICES))
    if answers.get("split") is None:
        several = (
            "," in answers["devices"]
            and as_spec(answers["data"]).startswith("csv:")
            and "{name}" not in answers["data"]
        )
        answers["split"] = several and _yes(read("Deal the rows of this table to the devices, to try it here? [y/N]: "))
    if answers.get("keys") is None:
        answers["keys"] = _yes(read("Keys: TLS certificates, signed rounds and updates? [Y/n]: "), default=True)
    scheme, port = ("mqtts", 8883) if answers["keys"] else ("mqtt", 1883)
    put("broker", "The MQTT broker's URL", f"{scheme}://localhost:{port}")
    return answers


def _yes(answer: str, default: bool = False) -> bool:
    return answer.strip().lower().startswith("y") if answer.strip() else default
