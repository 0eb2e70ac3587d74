"""A strategy's state as bytes: what was packed comes back, what is damaged does not."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.errors import StoreError
from edgefl.strategies import Update, get
from edgefl.strategies.checkpoint import pack, unpack

STATE = {"a": np.float32([1, -0.0, np.nan]), "b": np.arange(6).reshape(2, 3), "c": np.array(0.5)}


def test_what_was_packed_comes_back_bit_for_bit() -> None:
    name, back = unpack(pack("rule", STATE))
    assert name == "rule" and list(back) == list(STATE)
    for key, array in STATE.items():
        assert (back[key].dtype, back[key].shape) == (array.dtype, array.shape)
        assert back[key].tobytes() == array.tobytes()
    assert pack("rule", {}) == b"" and unpack(b"") == ("", {})


def test_other_types_are_refused_by_name() -> None:
    with pytest.raises(StoreError, match=r"state 'x' of strategy 'rule' is .*float16|<f2"):
        pack("rule", {"x": np.zeros(2, np.float16)})


def test_what_is_malformed_is_refused() -> None:
    data = pack("rule", STATE)
    for length in range(1, len(data)):
        with pytest.raises(StoreError):
            unpack(data[:length])
    with pytest.raises(StoreError):
        unpack(data + b"x")


def test_a_state_that_does_not_fit_is_refused() -> None:
    strategy = get("fedavgm")
    for state in ({"server.speed": np.float32([1])}, {"server.velocity": np.zeros(2)}, {"other.x": np.float32([1])}):
        with pytest.raises(StoreError):
            strategy.restore(state)
    with pytest.raises(StoreError):
        get("fedavg").restore({"server.velocity": np.float32([1])})


def test_state_is_never_changed_in_place() -> None:
    from edgefl import codecs

    raw, strategy = codecs.get("raw32"), get("fedavgm")
    states = []
    for round in range(3):
        strategy.start(np.float32([1, 2]), round)
        strategy.add(Update("a", 1, raw, raw.encode(np.float32([round, 1]))))
        strategy.finish()
        states.append((strategy.state()["server.velocity"], strategy.state()["server.velocity"].tobytes()))
    assert all(array.tobytes() == before for array, before in states)
    assert len({before for _, before in states}) == 3
