"""Modules: which part of the exported net a node belongs to, and which tensors that part reads.

PyTorch's exporters leave it in the file. The newer one lists the modules around a node in its metadata. The older one
names nodes after them, "/layers.0/linear1/Gemm", and numbers further calls of a module: "/layers.0/linear1_1/Gemm".

Not here: what follows from it for a tensor that several nodes read (sharing.py).
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx

from .nodes import op_key

SCOPES = "pkg.torch.onnx.name_scopes"  # the newer exporter's list: the modules around a node, then the node
PYTORCH = "pytorch"  # producer_name
_CALL = re.compile(r"_\d+$")


class Modules:
    """The modules of a graph, as far as the file tells."""

    def __init__(self, proto: onnx.ModelProto, order: Sequence[int], tensors: Mapping[str, np.ndarray]) -> None:
        """`tensors` are the float32 initializers that live nodes read, by name."""
        self.is_pytorch = proto.producer_name == PYTORCH
        self._nodes = [proto.graph.node[index] for index in order]
        self.is_newer = any(entry.key == SCOPES for node in self._nodes for entry in node.metadata_props)
        self._tensors = tensors
        self._roots = {name: name for name in tensors}  # of each tensor and of the names that an Identity gives it
        for node in self._nodes:
            if op_key(node) == "Identity" and node.input and node.input[0] in self._roots:
                self._roots[node.output[0]] = self._roots[node.input[0]]

    def of(self, node: onnx.NodeProto) -> str | None:
        """The module of `node`, "" for the net itself; None if the file does not tell."""
        if (module := module_of(node)) is not None:
            return module
        if self.is_pytorch and node.name.startswith("/"):
            return "/".join(_CALL.sub("", part) for part in node.name.split("/")[1:-1])
        return None

    def owns(self, module: str) -> bool:
        """Whether an initializer is named after the module or after a part of it."""
        return any(name.startswith(f"{module}.") for name in self._tensors)

    def are_equal(self, one: str, other: str) -> bool:
        """Whether two modules read equal tensors throughout, as a copy of a module does."""
        return one in self._read and self._read[one] == self._read.get(other)

    @cached_property
    def _read(self) -> dict[str, frozenset[bytes]]:
        """Digests of the tensors that each module reads."""
        digests = {name: hashlib.sha256(array.tobytes()).digest() for name, array in self._tensors.items()}
        roots, read = self._roots, dict[str, set[bytes]]()
        for node in self._nodes:
            module = self.of(node)
            if module is not None and op_key(node) != "Identity":
                read.setdefault(module, set()).update(digests[roots[name]] for name in node.input if name in roots)
        return {module: frozenset(found) for module, found in read.items()}


def module_of(node: onnx.NodeProto) -> str | None:
    """The module of `node` in a file of the newer exporter; None in others."""
    text = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
    try:
        scopes = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None
    return scopes[-2] if isinstance(scopes, list) and len(scopes) > 1 else None
