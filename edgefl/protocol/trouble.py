"""Trouble: why a device can't take part, as a short code and a text that may leave the device. No I/O.

An aggregator counts and shows codes, so they are fixed; a newer device may have others. The text says where and what,
and never holds a value from the device's data: errors that may quote the data are told by their kind alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ..core.trainer import Diverged
from ..errors import CodecError, DataError, EdgeFLError, ModelError, PolicyError, StoreError

CODES = {
    "data": "its examples can't be read, or don't fit the model",
    "labels": "its targets are class labels, and the federation's loss takes numbers",
    "values": "its targets are numbers, and the federation's loss takes class labels",
    "memory": "the model does not fit into the device's memory",
    "disk": "its state folder can't be read or written",
    "manifest": "it refuses the manifest, or a round, and waits for another",
    "missing": "it waits for the manifest that rounds name, which the aggregator publishes again",
    "model": "it refuses the model, by its size or by its plan",
    "diverged": "training ended in numbers that are not finite",
    "codec": "its update can't be encoded",
    "rejected": "the aggregator refused its update",
    "hung": "its training, or its own data code, does not come to an end",
    "budget": "its owner's byte budget is spent, or does not allow what the round takes",
    "hours": "it is outside the hours that its owner has set",
    "power": "it runs on its battery, and its owner has it train on mains power only",
    "heat": "it is hotter than its owner wants, or its processor is throttled",
    "metered": "its link is metered, and its owner has it take part on others only",
    "room": "it keeps memory or disk space free for its other programs",
    "busy": "its owner's pause_command wants it to pause",
    "clock": "its owner has set limits, and its clock is not synchronised",
    "policy": "its owner's policy does not allow what the manifest or the round asks for",
    "rests": "it has taken part a short while ago, and rests for as many rounds as the noise wants",
    "plan": "it waits for its owner to approve the plan",
    "signer": "it refuses a round that its federation's key has signed, or has seen messages that it has not",
    "settings": "it can't start with its configuration, or a file that it names",
    "error": "something else, which its own log tells",
}
OF_TARGETS = ("labels", "values")  # nothing that a device can mend while the data and the manifest stay the same
# What an operator does about each; codes without one are the owner's wish, or pass by themselves.
REMEDIES = {
    "data": "correct the device's [data] source, or its file",
    "labels": "set the aggregator's `loss` to one for class labels, or the device's target= to another column",
    "values": "set the aggregator's `loss` to one for numbers, or the device's target= to another column",
    "memory": "raise max_arena_mb where there is room for it, or train a smaller model",
    "disk": "make room on the device's disk, or look whether it fails",
    "manifest": "update the device's software, or change what the federation asks for",
    "missing": "see at the broker who may write the federation's manifest: somebody may have replaced it",
    "model": "raise max_model_mb on the device, or train a smaller model",
    "diverged": "lower [train] lr, or set clip_norm",
    "codec": "look at the device's log; another [codec] name may help",
    "rejected": "look at the aggregator's log, which says why",
    "hung": "look at the device's data source; the device goes on when that answers",
    "budget": "the owner's byte budget: wait, or agree on a larger one",
    "heat": "cool the device, or raise its owner's max_celsius",
    "room": "free memory or disk space on the device",
    "clock": "let the device's clock synchronise: timedatectl shows it",
    "policy": "agree with the owner, or change what the federation asks for",
    "plan": "ask its owner: edgefl-agent plans shows and approves it",
    "signer": (
        "after the aggregator was restored, or lost its state: `edgefl keys epoch`; else see docs/troubleshooting.md, "
        "Keys, and who may write at the broker"
    ),
    "settings": "correct it on the device: edgefl-agent --check shows what is wrong",
    "error": "look at the device's log: journalctl -u edgefl-agent",
}
SEE_LOG = "the log on the device says why"
NO_MEMORY = "not enough memory to train this model: lower max_arena_mb to refuse it at once"

_KINDS: tuple[tuple[type[EdgeFLError], str], ...] = (
    (Diverged, "diverged"), (ModelError, "model"), (CodecError, "codec"), (StoreError, "disk"),
    (PolicyError, "policy"),
)  # fmt: skip


class Trouble(NamedTuple):
    """A code of CODES, and a text without a value from the data."""

    code: str
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Trouble:
        """What may be told of an error that ended a round's work."""
        if isinstance(error, DataError):
            return cls(error.code, f"its data can't be used: {error.safe or SEE_LOG}")
        if isinstance(error, MemoryError):
            return cls("memory", NO_MEMORY)
        code = next((code for kind, code in _KINDS if isinstance(error, kind)), "error")
        told = isinstance(error, EdgeFLError)
        return cls(code, str(error) if told else f"{type(error).__name__}: {SEE_LOG}")
