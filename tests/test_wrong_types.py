"""A value of a wrong type, anywhere in the public API, is an EdgeFLError, never a raw TypeError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl import codecs, data, strategies, testing
from edgefl.errors import CodecError, EdgeFLError
from edgefl.onnx import zoo

ODD: list[Any] = [
    None, True, 5, -1, 1.5, float("nan"), 10**30, "", "x", "a\0b", "os:getcwd", b"x", [], [1], ["x"], {}, {"a": "b"},
    (1, 2), np.zeros(3), np.array(["x"]), int, object(), lambda: 1,
]  # fmt: skip
FILE = zoo.mlp([4, 2])
MODEL = edgefl.load(FILE)
TRAINER = edgefl.Trainer(MODEL.plan)
ECQ = codecs.get("ecq")
X, Y = np.zeros((4, 4), np.float32), np.zeros(4, np.int64)
SMALL: dict[str, Any] = {"devices": 2, "rounds": 1, "workers": 1}


def fit(**options: Any) -> Any:
    return TRAINER.fit(MODEL.params, X, Y, **options)


def run(**options: Any) -> Any:
    return edgefl.simulate(**{"model": MODEL, "data": data.Dataset(X, Y), **SMALL, **options})


CALLS: dict[str, Callable[[Any], Any]] = {
    "load": lambda v: edgefl.load(v),
    "load loss": lambda v: edgefl.load(FILE, v),
    "load freeze": lambda v: edgefl.load(FILE, freeze=v),
    "load dims": lambda v: edgefl.load(FILE, dims=v),
    "save params": lambda v: MODEL.to_bytes(v),
    "Settings.load": lambda v: edgefl.Settings.load(v),
    "Settings.replace": lambda v: edgefl.Settings().replace(lr=v, codec=v, train=v),
    "data.load": lambda v: data.load(v),
    "data.load seed": lambda v: data.load("digits", seed=v),
    "data.load test_fraction": lambda v: data.load("digits", test_fraction=v),
    "Dataset": lambda v: data.Dataset(v, Y),
    "Dataset test": lambda v: data.Dataset(X, Y, v, v),
    "Trainer": lambda v: edgefl.Trainer(v),
    "Trainer batch": lambda v: edgefl.Trainer(MODEL.plan, batch=v),
    "fit params": lambda v: TRAINER.fit(v, X, Y),
    "fit x": lambda v: TRAINER.fit(MODEL.params, v, Y),
    "fit y": lambda v: TRAINER.fit(MODEL.params, X, v),
    "predict": lambda v: TRAINER.predict(MODEL.params, v),
    "codecs.get": lambda v: codecs.get(v),
    "codec option": lambda v: codecs.get("ecq", step=v),
    "encode": lambda v: ECQ.encode(v),
    "decode": lambda v: ECQ.decode(v, 4),
    "strategies.get": lambda v: strategies.get(v),
    "strategy option": lambda v: strategies.get("fedavgm", momentum=v),
    "check_codec": lambda v: testing.check_codec(v),
    "check_strategy": lambda v: testing.check_strategy(v),
    **{f"fit {name}": lambda v, name=name: fit(**{name: v}) for name in (
        "batch_size", "lr", "momentum", "weight_decay", "prox_mu", "clip_norm", "max_steps", "seed", "optimizer",
    )},
    **{f"simulate {name}": lambda v, name=name: run(**{name: v}) for name in (
        "model", "settings", "devices", "partition", "workers", "seed", "faults", "strategy", "codec", "downlink", "lr",
        "fraction",
    )},
    **{f"simulate {name}": lambda v, name=name: callable(v) or run(**{name: v}) for name in (
        "on_start", "on_round", "on_model", "on_update", "on_end", "note",
    )},
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_type_is_an_error_of_ours(call: str) -> None:
    for odd in ODD:
        try:
            CALLS[call](odd)
        except (EdgeFLError, testing.BrokenLaw) as error:
            assert str(error)


def test_a_codec_refuses_what_is_no_vector_and_no_payload() -> None:
    for name in codecs.CODECS:
        for odd in ("x", None, {}, object()):
            with pytest.raises(CodecError, match=name):
                codecs.get(name).encode(odd)
            with pytest.raises(CodecError, match=name):
                codecs.get(name).decode(odd, 4)
