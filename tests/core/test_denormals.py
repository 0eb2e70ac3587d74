"""A net computes with 0 for denormals, and its caller has its own floating-point mode again after every return."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import threading

import numpy as np
import pytest

from edgefl import Trainer, codecs, load
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Cancelled, Diverged
from edgefl.errors import DataError
from edgefl.onnx import zoo

MACHINE = platform.machine()
# The control register in glibc's fenv_t: (type, offset), and the bits that flush results and operands.
REGISTER = {"x86_64": (ctypes.c_uint32, 28, 0x8040), "aarch64": (ctypes.c_uint32, 0, 1 << 24)}
pytestmark = pytest.mark.skipif(MACHINE not in REGISTER, reason="no processor whose mode is known")
UPWARD = {"x86_64": 0x4000, "aarch64": 1 << 22}.get(MACHINE)  # rounding towards infinity: no caller's usual mode

MODEL = load(zoo.mlp([8, 16, 3], seed=0))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(50, 8)).astype(np.float32), RNG.integers(0, 3, 50)
TINY = np.float32(1e-20)  # its square is denormal


class Mode:
    """This thread's control register."""

    def __init__(self) -> None:
        self.libm = ctypes.CDLL(ctypes.util.find_library("m"))
        self.fenv = ctypes.create_string_buffer(64)
        kind, offset, self.flush = REGISTER[MACHINE]
        self.register = kind.from_buffer(self.fenv, offset)

    def read(self) -> int:
        assert self.libm.fegetenv(self.fenv) == 0
        return self.register.value & ~0x3F if MACHINE == "x86_64" else self.register.value  # without sticky flags

    def write(self, value: int) -> None:
        self.read()
        self.register.value = value
        assert self.libm.fesetenv(self.fenv) == 0


@pytest.fixture
def mode():
    mode = Mode()
    before = mode.read()
    yield mode
    mode.write(before)


def product(loss: str = "mse") -> Plan:
    """y = w x of one number, and a loss."""
    return Plan([1], [Node("dense", [0], [0])], [Param("w", [1, 1])], loss, 1, 1)


def cancelled(trainer: Trainer) -> None:
    timer = threading.Timer(0.05, trainer.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        trainer.fit(MODEL.params, X, Y, epochs=10_000_000)
    timer.join()


def refused(trainer: Trainer) -> None:
    for call in (trainer.fit, trainer.gradient, trainer.evaluate):
        with pytest.raises(DataError):
            call(MODEL.params, X, np.full(50, 7))


def diverged(trainer: Trainer) -> None:
    with pytest.raises(Diverged):
        trainer.fit(MODEL.params, X * 1e30, Y, lr=1e30, epochs=5)


CALLS = {
    "fit": lambda trainer: trainer.fit(MODEL.params, X, Y, momentum=0.9),
    "adam": lambda trainer: trainer.fit(MODEL.params, X, Y, optimizer="adam", lr=0.001),
    "gradient": lambda trainer: trainer.gradient(MODEL.params, X, Y),
    "evaluate": lambda trainer: trainer.evaluate(MODEL.params, X, Y),
    "predict": lambda trainer: trainer.predict(MODEL.params, X),
    "refused": refused,
    "cancelled": cancelled,
    "diverged": diverged,
}


@pytest.mark.parametrize("flushing", [False, True], ids=["kept", "flushed"])
@pytest.mark.parametrize("call", CALLS)
def test_the_caller_has_its_own_mode_after_every_return(call, flushing, mode):
    trainer = Trainer(MODEL.plan)
    mine = (mode.read() & ~mode.flush) | UPWARD | (mode.flush if flushing else 0)
    mode.write(mine)
    assert mode.read() == mine
    CALLS[call](trainer)
    assert mode.read() == mine


def test_a_net_computes_with_zero_for_denormals():
    trainer = Trainer(product())
    assert TINY * TINY != 0
    assert trainer.predict([TINY], [[TINY]]) == 0, "a denormal result"
    assert trainer.predict([TINY * TINY], [[1e30]]) == 0, "a denormal operand"
    assert trainer.predict([1e-30], [[1e-5]]) == np.float32(1e-30) * np.float32(1e-5), "a small number is no denormal"
    assert trainer.gradient([0], [[TINY]], [[TINY]]) == 0


def test_codecs_and_the_delta_have_their_callers_mode():
    denormal = np.float32(1e-40)
    raw = codecs.get("raw32")
    delta = np.array([denormal, 1], np.float32)
    Trainer(MODEL.plan).fit(MODEL.params, X, Y)
    assert raw.decode(raw.encode(delta), 2)[0] == denormal
    frozen = Trainer(product()).fit([denormal], [[0.0]], [[0.0]], lr=0.1)
    assert frozen.delta == 0, "a param that does not move stays as it is"
