"""Adapters: small trained matrices beside frozen weights (LoRA, Hu et al. 2021, arXiv:2106.09685), in an ONNX file.

    y = x W + (alpha / rank) (x A) B        W (I, O) frozen, A (I, rank), B (rank, O)

As in scaling.py, the file itself is changed, and compiled again. After the node that reads W, and the bias behind it,
stand MatMul, Mul, MatMul and Add; A, B and the factor are initializers. So the plan has no op that is new, and a file
that keeps the adapters is an ONNX file like any other. A is normal with variance 1 / I, and B is 0: the model begins as
the file that it was made of.

The mean of A B over devices is not the mean of A times the mean of B. So A stays as it was drawn, unless the caller
wants both trained: with A frozen the mean is exact (FFA-LoRA, Sun et al. 2024, arXiv:2403.12313).

Not here: merging (sites.py) and the model (model.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..core.adapters import PREFIX, AdapterSettings
from ..core.params import to_bfloat16
from ..core.plan import Plan
from ..core.protobuf import PREFIX as FACTS
from ..core.seeds import derived_seed
from ..errors import ModelError, UsageError, nearest
from .choices import called
from .export import INITIALIZERS_ARE_INPUTS_BEFORE_IR, Binding
from .graph import read_onnx
from .modules import module_of
from .nodes import attributes, op_key
from .sites import Adapters, Site

FACTOR = f"{PREFIX}factor"
METADATA = f"{FACTS}adapters"  # key of the file's metadata
NO_SMALLER = "is no larger than its adapter"
SEVERAL = "is read by {count} nodes: --untie {name} gives each a weight of its own, which can have an adapter"
OTHER = "is not what MatMul or Gemm reads on the right"
PARTS = ("down", "scaled", "up", "sum")  # the nodes of an adapter, in order


class _Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file's metadata say of its adapters."""

    rank: int
    alpha: float
    trained: str
    also: list[str]


def settings_in(source: bytes) -> AdapterSettings | None:
    """What a file says of the adapters in it; None if it has none. ModelError if it says it wrongly."""
    if METADATA.encode() not in source:
        return None
    told = next((entry.value for entry in read_onnx(source).metadata_props if entry.key == METADATA), None)
    if told is None:
        return None
    try:
        return AdapterSettings.of({**msgspec.to_builtins(msgspec.json.decode(told, type=_Told)), "merge": False})
    except (msgspec.ValidationError, msgspec.DecodeError, UsageError) as error:
        raise ModelError(f"the file's metadata don't say what its adapters are ({error}): save it again") from None


# Which weights


def kept(source: bytes, base: bytes, plan: Plan, bindings: Sequence[Binding]) -> tuple[Site, ...]:
    """The adapters in the file `source`, from its `base` (`without`), and what that is compiled to. ModelError."""
    names = {tensor.name for tensor in read_onnx(source).graph.initializer}
    sites, _ = _sites(read_onnx(base).graph, plan, bindings)
    found = tuple(site for site in sites if {site.a, site.b} <= names)
    if not found:
        raise ModelError("the file's metadata tell of adapters that it does not have: save it again")
    return found


def chosen(source: bytes, plan: Plan, bindings: Sequence[Binding], settings: AdapterSettings) -> Adapters:
    """The weights that get an adapter, and those that are named but get none. UsageError for a name that matches no
    weight that can have one, and if no weight is left."""
    graph = read_onnx(source).graph
    sites, without = _sites(graph, plan, bindings)
    known = {site: _names(site, graph.node[site.node]) for site in sites}
    plain: dict[str, str] = {}
    wanted: set[Site] = set()
    for pattern in settings.on:
        meant = {site for site, names in known.items() if any(_means(pattern, name) for name in names)}
        left = {name: why for name, why in without.items() if _means(pattern, name)}
        if not meant and left:
            raise UsageError("; ".join(f"adapters.on has {pattern!r}, but {name} {why}" for name, why in left.items()))
        plain |= left
        if not meant:
            names = [name for own in known.values() for name in own]
            what = nearest(pattern, names) if names else "it has no dense weights"
            raise UsageError(
                f"adapters.on has {pattern!r}, which no dense weight, node or module of one is called: {what}"
            )
        wanted |= meant
    names = [param.name for param in plan.params]
    for pattern in settings.also:
        if not any(called(name, pattern) for name in names):
            raise UsageError(f"adapters.also has {pattern!r}, which no weight is called: {nearest(pattern, names)}")
        wanted -= {site for site in sites if called(site.weight, pattern)}
    smaller = {site for site in wanted if settings.rank * (site.inputs + site.outputs) < site.inputs * site.outputs}
    if not smaller:
        raise UsageError(
            f"adapters of rank {settings.rank} are no smaller than the weights {settings.on}: lower adapters.rank"
        )
    plain |= {site.weight: NO_SMALLER for site in wanted - smaller}
    return Adapters(settings, tuple(site for site in sites if site in smaller), plain)


def _sites(graph: onnx.GraphProto, plan: Plan, bindings: Sequence[Binding]) -> tuple[list[Site], dict[str, str]]:
    """The dense weights that MatMul and Gemm read on the right, each in one place; and why others get no adapter."""
    sites, without = [], {}
    for index in dict.fromkeys(node.params[0] for node in plan.nodes if node.op == "dense"):
        read, *others = bindings[index].reads
        node, shape, name = graph.node[read.node], read.shape, plan.params[index].name
        if others:
            without[name] = SEVERAL.format(count=1 + len(others), name=name)
        elif read.slot != 1 or op_key(node) not in ("MatMul", "Gemm") or len(shape) < 2:
            without[name] = OTHER
        else:
            turned = bool(attributes(node).get("transB", 0))
            inputs, outputs = shape[-2:][::-1] if turned else shape[-2:]
            sites.append(Site(name, read.node, inputs, outputs, turned))
    return sites, without


def _names(site: Site, node: onnx.NodeProto) -> tuple[str, ...]:
    """What the weight is known by: its name, its node's, and that of its PyTorch module, where the file tells it."""
    return tuple(filter(None, (site.weight, node.name, module_of(node))))


def _means(pattern: str, name: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern) or called(name, pattern)


def rounded(plan: Plan, params: np.ndarray, also: Sequence[str]) -> np.ndarray:
    """`params` (P,), in which matrices that will be frozen are rounded to bfloat16. Vectors are few, and stay."""
    start, out = 0, np.array(params)
    for param in plan.params:
        part = out[start : start + param.size]
        if len(param.shape) > 1 and not any(called(param.name, pattern) for pattern in also):
            part[:] = to_bfloat16(part)
        start += param.size
    return out


# The file


def put(source: bytes, sites: Sequence[Site], settings: AdapterSettings, seed: int) -> bytes:
    """The ONNX file with fresh adapters."""
    proto = onnx.ModelProto.FromString(source)
    if any(tensor.name.startswith(PREFIX) for tensor in proto.graph.initializer):
        raise UsageError("the file has adapters already: merge them (model.save), and use that file")
    after: dict[int, list[onnx.NodeProto]] = {}
    _store(proto, FACTOR, np.array(settings.alpha / settings.rank, np.float32))
    for site in sites:
        rng = np.random.default_rng(derived_seed(seed, "adapter", site.weight))
        a = rng.standard_normal((site.inputs, settings.rank)) / np.sqrt(site.inputs)
        a = a.astype(np.float32)
        _store(proto, site.a, a if settings.base == "float32" else to_bfloat16(a))
        _store(proto, site.b, np.zeros((settings.rank, site.outputs), np.float32))
        last = _biased(proto.graph, site)
        after[last] = _nodes(proto.graph.node[site.node].input[0], proto.graph.node[last], site)
    nodes = [made for index, node in enumerate(proto.graph.node) for made in (node, *after.get(index, ()))]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    told = _Told(settings.rank, settings.alpha, settings.trained, list(settings.also))
    _tell(proto, {METADATA: msgspec.json.encode(told).decode()})
    written: bytes = proto.SerializeToString()
    return written


def _nodes(x: str, last: onnx.NodeProto, site: Site) -> list[onnx.NodeProto]:
    """What stands behind node `last`, whose output gets another name, and how that comes back."""
    y, last.output[0] = last.output[0], site.part("base")
    down, scaled, up, total = (site.part(name) for name in PARTS)
    return [
        helper.make_node("MatMul", [x, site.a], [down], name=down),
        helper.make_node("Mul", [down, FACTOR], [scaled], name=scaled),
        helper.make_node("MatMul", [scaled, site.b], [up], name=up),
        helper.make_node("Add", [last.output[0], up], [y], name=total),
    ]


def _biased(graph: onnx.GraphProto, site: Site) -> int:
    """The node that adds the bias to what the weight's node makes, if there is one; else the weight's node."""
    made = graph.node[site.node].output[0]
    readers = [index for index, node in enumerate(graph.node) if made in node.input]
    if len(readers) != 1 or op_key(graph.node[readers[0]]) != "Add" or any(o.name == made for o in graph.output):
        return site.node
    other = next((name for name in graph.node[readers[0]].input if name != made), "")
    bias = next((tensor for tensor in graph.initializer if tensor.name == other), None)
    return readers[0] if bias is not None and list(bias.dims)[-1:] == [site.outputs] else site.node


def _store(proto: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(array, name))
    if proto.ir_version < INITIALIZERS_ARE_INPUTS_BEFORE_IR:
        info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, array.shape)
        proto.graph.input.append(info)


def _tell(proto: onnx.ModelProto, told: dict[str, str]) -> None:
    kept = {entry.key: entry.value for entry in proto.metadata_props if entry.key != METADATA}
    del proto.metadata_props[:]
    helper.set_model_props(proto, kept | told)


def without(source: bytes) -> bytes:
    """The file as it was before `put`. ModelError if its nodes are not as that makes them."""
    proto = read_onnx(source)
    graph = proto.graph
    back = {}
    for node in graph.node:
        if node.name.startswith(PREFIX) and node.name.endswith(f".{PARTS[-1]}"):
            back[node.input[0]] = node.output[0]
    kept = [node for node in graph.node if not node.name.startswith(PREFIX)]
    for node in kept:
        node.output[0] = back.get(node.output[0], node.output[0])
        if any(name.startswith(PREFIX) for name in [*node.input, *node.output]):
            raise ModelError("the file's adapters have been changed by another program: use a file that was merged")
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    for field in (graph.initializer, graph.input, graph.value_info):
        own = [at for at, item in enumerate(field) if item.name.startswith(PREFIX)]
        for at in reversed(own):
            del field[at]
    del graph.node[:]
    graph.node.extend(nodes)
    _tell(proto, {})
    written: bytes = proto.SerializeToString()
    return written
