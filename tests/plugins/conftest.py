"""Packages of outsiders, as pip would leave them, on the import path of one test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgefl import codecs

Install = Callable[..., None]
CODEC = """
import numpy as np
from edgefl.codecs import Codec
from edgefl.errors import CodecError

class {cls}(Codec):
    name = "{name}"
    wire_id = {wire_id}

    def __init__(self, gain=1.0, max_bytes=None):
        super().__init__(max_bytes)
        self.gain = float(gain)

    def bound(self, num_params):
        return 4 * num_params

    def encode(self, delta, rms=None):
        return (self._check_delta(delta) * np.float32(self.gain)).astype("<f4").tobytes()

    def decode(self, payload, num_params):
        self._check_length(payload, 4 * num_params)
        return self._check_decoded(np.frombuffer(payload, "<f4").astype(np.float32))

    def accumulate(self, payload, weight, accumulator):
        accumulator.add_f32(payload, weight)
"""


def codec_source(name: str = "loud", wire_id: int = 200, cls: str = "Loud") -> str:
    return CODEC.format(name=name, wire_id=wire_id, cls=cls)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """install(package, module, source, codecs={"name": "module:Class"}, ...) puts a package on the import path."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(package: str, module: str, source: str, **groups: dict[str, str]) -> None:
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = []
        for group, entries in groups.items():
            lines += [f"[edgefl.{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))  # which makes Python look again

    monkeypatch.setattr(codecs, "_offered", {})
    from edgefl.registry import _entry_points

    _entry_points.cache_clear()
    yield put
    _entry_points.cache_clear()
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]
