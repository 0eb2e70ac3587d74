"""What `load` tells of a model beside its plan: what is not trained, what is shared, and choices that meant nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from ..errors import UsageError, nearest
from .choices import Choices
from .nodes import label
from .sharing import COPY
from .trace import Trace
from .untrained import FROZEN, UNREAD, Shared, Untrained


def untrained(trace: Trace, owned: Sequence[int], tensors: Mapping[str, np.ndarray]) -> tuple[Untrained, ...]:
    """First params of the plan, then float32 initializers `tensors` of several numbers that no param holds."""
    found = [
        Untrained(trace.params[at].name, trace.shape_of(at), trace.why[at])
        for at in owned
        if not trace.params[at].trainable and trace.why.get(at)
    ]
    held = np.zeros(sum(origin.values.size for origin in trace.origins), bool)
    for at in owned:
        for place in trace.bindings[at].places:
            held[place.where] = True
    known = {item.name for item in found}
    for twin in trace.twins:
        held[twin.place] = held[twin.where].any()
    for origin in trace.origins:
        name = trace.named.get(origin.offset, "")
        span = held[origin.offset : origin.offset + origin.values.size]
        if origin.attribute is None and name in tensors and name not in known and span.size > 1 and not span.any():
            why = FROZEN if trace.choices.meaning("freeze", [name]) else UNREAD
            found.append(Untrained(name, tensors[name].shape, why))
    return tuple(found)


def shared(trace: Trace, owned: Sequence[int], nodes: Sequence[onnx.NodeProto]) -> tuple[Shared, ...]:
    """The trained params that several nodes read, and those whose tensor is another param's too."""
    found: list[Shared] = []
    begun: set[int] = set()  # where tensors of equal numbers lie that a param has
    for at in sorted(owned):
        use, reads = trace.uses.get(at), {read.node for read in trace.bindings[at].reads}
        if use is None or not trace.params[at].trainable:
            continue
        place, kind = int(use.weight.where.min()), "tied" if len(reads) > 1 else ""
        if use.group is not None and use.group[:1] == (COPY,):
            kind = "copy"
        elif use.weight.blank and place in begun:
            kind = "fresh"
        begun.add(place)
        if kind:
            readers = tuple(label(nodes[node]) for node in sorted(reads))
            found.append(Shared(trace.params[at].name, readers, kind))  # type: ignore[arg-type]
    return tuple(found)


def check_choices(choices: Choices, trace: Trace) -> None:
    """UsageError for a pattern that matched nothing, or nothing that can be done."""
    for option, pattern in choices.unmet():
        if option == "train" and pattern in trace.unwilling:
            name, why = trace.unwilling[pattern]
            raise UsageError(f"train={pattern!r} names {name!r}, which can't be trained: {why}")
        if option in ("tie", "untie"):
            names = sorted(filter(None, trace.taken_names))
            raise UsageError(
                f"{option}={pattern!r} matches no tensor that is read as a weight: {nearest(pattern, names)}"
            )
        names = [param.name for param in trace.params]
        raise UsageError(f"{option}={pattern!r} matches no weight of the model: {nearest(pattern, names)}")
