"""Any number of threads computes the same bits; they end with the net, end soon when cancelled, and survive a fork."""

from __future__ import annotations

import hashlib
import os
import threading
import time

import numpy as np
import pytest
from isa_runs import run as run_isa

from edgefl import Trainer, load
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Cancelled
from edgefl.errors import DataError, UsageError
from edgefl.onnx import zoo

SAME, SLIDE = [1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]


def recurrent(op: str, steps: int, wide: int, hidden: int, more: list[int]) -> tuple[list[Node], list[Param]]:
    gates = {"lstm": 4, "gru": 3}[op] * hidden
    shapes = {"wx": [2, wide, gates], "wh": [2, hidden, gates], "bx": [2, gates], "bh": [2, gates]}
    return [Node(op, [0], [0, 1, 2, 3], [hidden, 2, 0, *more])], [Param(name, s) for name, s in shapes.items()]


def chain(shape: list[int], nodes: list[Node], params: list[Param]) -> Plan:
    """The nodes, and the mean of the last one's values over each sample."""
    axes = list(range(len(shape)))
    ops = [*nodes, Node("mean", [len(nodes)], [], axes)]
    return Plan(shape, ops, params, "mse", len(ops), len(ops))


# Each has work for several threads in forward and backward at a batch of 13.
PLANS = {
    "dense": chain([40, 128], [Node("dense", [0], [0, 1]), Node("relu", [1]), Node("dense", [2], [2])],
                   [Param("w", [128, 200]), Param("b", [200]), Param("v", [200, 96])]),
    "wide dense": Plan([3000], [Node("dense", [0], [0, 1]), Node("tanh", [1]), Node("dense", [2], [2])],
                       [Param("w", [3000, 400]), Param("b", [400]), Param("v", [400, 400])], "mse", 3, 3),
    "turned dense": chain([70, 256], [Node("dense", [0], [0, 1], [1]), Node("dense", [1], [2])],
                          [Param("w", [300, 256]), Param("b", [300]), Param("v", [300, 7])]),
    "conv": chain([17, 19, 12], [Node("conv", [0], [0, 1], [*SAME, 1, 1, 1]), Node("leaky_relu", [1], [], [], [0.1]),
                                 Node("conv", [2], [2, 3], [2, 2, 1, 0, 1, 2, 1, 1, 1])],
                  [Param("w", [3, 3, 12, 70]), Param("b", [70]), Param("v", [3, 4, 70, 33]), Param("c", [33])]),
    "conv in parts": chain([17, 19, 12], [Node("conv_part", [0], [0, 3, 1], [*SAME, 1, 1, 0b10110]),
                                          Node("leaky_relu", [1], [], [], [0.1]),
                                          Node("conv_part", [2], [2, 4], [*SLIDE, 1, 1, 2**51 - 1, 7])],
                           [Param("w", [3, 3, 3, 70]), Param("b", [70]), Param("v", [1, 1, 54, 33]),
                            Param("f", [3, 3, 9, 70], False), Param("g", [1, 1, 16, 33], False)]),
    "first conv": chain([40, 40, 1], [Node("conv", [0], [0, 1], [2, 2, 2, 1, 2, 2, 1, 1, 1]), Node("relu", [1])],
                        [Param("w", [7, 5, 1, 64]), Param("b", [64])]),
    "groups": chain([20, 20, 24], [Node("conv", [0], [0, 1], [*SAME, 1, 1, 3]),
                                   Node("conv", [1], [2], [*SLIDE, 1, 1, 1])],
                    [Param("w", [3, 3, 8, 48]), Param("b", [48]), Param("v", [1, 1, 48, 60])]),
    "transposed": chain([12, 12, 40], [Node("conv_transpose", [0], [0, 1], [2, 2, 1, 1, 1, 1, 1, 1, 1, 23, 23])],
                        [Param("w", [3, 3, 30, 40]), Param("b", [30])]),
    "depthwise": chain([33, 31, 40], [Node("depthwise", [0], [0, 1], [*SAME, 1, 1]), Node("relu", [1]),
                                      Node("depthwise", [2], [2, 3], [2, 2, 1, 1, 1, 1, 1, 1])],
                       [Param("w", [3, 3, 40]), Param("b", [40]), Param("v", [3, 3, 80]), Param("c", [80])]),
    "pools": chain([32, 32, 33], [Node("mul", [0], [0]), Node("maxpool", [1], [], [3, 3, 2, 2, 1, 1, 1, 1]),
                                  Node("avgpool", [2], [], [2, 2, 1, 1, 0, 0, 1, 1, 0])], [Param("s", [33])]),
    "norms": chain([24, 24, 40], [Node("batch_norm", [0], [0, 1, 4, 5], [], [1e-3, 0.9]), Node("relu", [1]),
                                  Node("layer_norm", [2], [2, 3], [], [1e-3])],
                   [*(Param(f"p{i}", [40]) for i in range(4)), Param("mean", [40], False), Param("var", [40], False)]),
    "attention": chain([64, 64], [Node("dense", [0], [0]), Node("matmul", [1, 1], [], [1]), Node("softmax", [2]),
                                  Node("matmul", [3, 1], [], [0]), Node("gelu", [4], [], [0]), Node("add", [5, 1]),
                                  Node("dropout", [6], [], [], [0.3]), Node("transpose", [7], [], [1, 0])],
                       [Param("w", [64, 64])]),
    "masks": chain([64, 96, 7], [Node("mul", [0], [0]), Node("mask", [1], [1], [], [0.5]),
                                 Node("mask", [2], [], [1, 2], [0.25]), Node("max", [3], [2]), Node("min", [4, 1]),
                                 Node("select", [1, 5, 3]), Node("mean", [1], [], [0]),
                                 Node("step", [7], [], [], [2.0, -1.0]), Node("keep", [6, 8], [], [], [0.5]),
                                 Node("mish", [9])],
                   [Param("w", [7]), Param("b", [96, 1]), Param("kept", [96, 7], False)]),
    "reductions": chain([3, 96, 50], [Node("mul", [0], [0]), Node("reduce_max", [1], [], [1]),
                                      Node("reduce_min", [1], [], [1]), Node("norm", [1], [], [1]),
                                      Node("log_sum_exp", [1], [], [1]),
                                      Node("concat", [2, 3, 4, 5], [], [1]), Node("reshape", [6], [], [3, 200, 1])],
                        [Param("w", [50])]),
    "group norms": chain([24, 24, 40], [Node("mul", [0], [0]), Node("group_norm", [1], [1, 2], [8, 5], [1e-3]),
                                        Node("group_norm", [2], [], [40, 1], [1e-3]),
                                        Node("lrn", [3], [], [5], [0.1, 0.75, 1.0])],
                         [Param("s", [40]), Param("gamma", [40]), Param("beta", [40])]),
    "along": chain([20, 20, 24], [Node("mul", [0], [0]), Node("resize", [1], [], [0, 45, 1, 0, 0], [2.25]),
                                  Node("extend", [2], [], [1, 3, 4, 0]), Node("stride", [3], [], [1, 26, -2, 13]),
                                  Node("pad", [4], [], [1, 1, 0, 0, 0, 0], [0.0])], [Param("s", [24])]),
    "expand": chain([40, 1, 40], [Node("mul", [0], [0]), Node("expand", [1], [], [40, 30, 40]),
                                  Node("repeat", [1], [1]), Node("add", [2, 3]), Node("relu", [4])],
                    [Param("s", [40]), Param("kept", [40, 30, 40])]),
    "lstm": chain([9, 40], *recurrent("lstm", 9, 40, 80, [])),
    "narrow lstm": chain([40, 12], *recurrent("lstm", 40, 12, 30, [])),
    "large lstm": chain([3, 8], *recurrent("lstm", 3, 8, 370, [])),  # whose steps are split by columns
    "gru": chain([9, 40], *recurrent("gru", 9, 40, 80, [1])),
    "large gru": chain([3, 8], *recurrent("gru", 3, 8, 420, [1])),
    "gru before": chain([9, 40], *recurrent("gru", 9, 40, 80, [0])),
}  # fmt: skip


def everything(trainer: Trainer, samples: int = 26, **how: object) -> bytes:
    """The bytes of a fit, a gradient, an evaluation and a prediction."""
    plan, rng = trainer.plan, np.random.default_rng(0)
    params = rng.normal(0, 0.1, plan.num_params).astype(np.float32)
    x = rng.normal(0, 1, (samples, *plan.input_shape)).astype(np.float32)
    out = trainer.predict(params, x)
    y = rng.normal(0, 1, out.shape).astype(np.float32)
    made = trainer.fit(params, x, y, epochs=1, batch_size=13, lr=0.01, seed=3, **how)
    loss = np.array([made.loss, trainer.evaluate(params, x, y).loss])
    return b"".join(a.tobytes() for a in (made.delta, loss, trainer.gradient(params, x, y), out))


HOW: dict[str, dict[str, object]] = {
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "clipped": {"clip_norm": 0.1},
    "adam": {"optimizer": "adam"},
}


@pytest.mark.parametrize(
    ("name", "how"),
    [*((name, {}) for name in PLANS), *((name, HOW[how]) for name in ("dense", "wide dense", "norms") for how in HOW)],
)
def test_any_number_of_threads_gives_the_same_bits(name, how):
    plan = PLANS[name]
    alone = everything(Trainer(plan, batch=26), **how)
    for threads in (2, 3, 8):
        assert everything(Trainer(plan, batch=26, threads=threads), **how) == alone, threads


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import hashlib
import numpy as np
from test_threads import PLANS, everything
from edgefl import Trainer
for name, plan in PLANS.items():
    alone = everything(Trainer(plan, batch=26))
    assert everything(Trainer(plan, batch=26, threads=3)) == alone, name
sys.stdout.buffer.write(np.float32(1).tobytes())
"""


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_so_it_is_with_every_instruction_set(isa):
    folders = [os.path.dirname(__file__), os.path.dirname(run_isa.__code__.co_filename)]
    run_isa(isa, f"import sys; sys.path[:0] = {folders!r}\n" + SCRIPT.format(folder=folders[0]))


def test_the_work_is_done_by_several_threads():
    """A thread that is asked for takes part: the caller computes less of the time than all together."""
    plan = PLANS["conv"]
    trainer, params = Trainer(plan, batch=26, threads=2), np.zeros(plan.num_params, np.float32)
    x = np.zeros((26, *plan.input_shape), np.float32)
    for _ in range(20):  # a busy machine may give the second thread no time
        mine, all_of_us = time.thread_time(), time.process_time()
        for _ in range(20):
            trainer.predict(params, x)
        mine, all_of_us = time.thread_time() - mine, time.process_time() - all_of_us
        if mine < 0.8 * all_of_us:
            return
    pytest.fail(f"this thread took {mine:.3f} of {all_of_us:.3f} s")


def count_threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_threads_start_with_the_first_call_and_end_with_the_net():
    before = count_threads()
    trainer = Trainer(PLANS["conv"], threads=5)
    assert count_threads() == before
    everything(trainer)
    assert count_threads() == before + 4
    everything(trainer)
    assert count_threads() == before + 4
    del trainer
    assert count_threads() == before


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_that_wait_sleep(threads):
    """Those that look out first, where there is a core for each, and those that don't."""
    trainer = Trainer(PLANS["conv"], threads=threads)
    everything(trainer)
    time.sleep(0.01)
    took = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - took < 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_starts_threads_of_its_own():
    trainer = Trainer(PLANS["conv"], threads=3)
    expected = hashlib.sha256(everything(trainer)).digest()
    child = os.fork()
    if child == 0:
        same = hashlib.sha256(everything(trainer)).digest() == expected
        os._exit(0 if same else 1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline, "the child hangs"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0
    assert hashlib.sha256(everything(trainer)).digest() == expected


def test_a_cancel_ends_all_threads_soon_and_the_net_works_on():
    plan = PLANS["wide dense"]
    trainer, outcome = Trainer(plan, threads=3), []
    params = np.zeros(plan.num_params, np.float32)
    x, y = np.ones((200, 3000), np.float32), np.zeros((200, 400), np.float32)

    def work() -> None:
        try:
            trainer.fit(params, x, y, epochs=10**6, batch_size=20)
        except Cancelled:
            outcome.append("cancelled")

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.2)
    began = time.perf_counter()
    trainer.cancel()
    thread.join(10)
    assert outcome == ["cancelled"]
    assert time.perf_counter() - began < 2
    assert everything(trainer) == everything(Trainer(plan))


def test_a_share_of_the_time_holds_for_all_threads():
    plan = PLANS["conv"]
    trainer = Trainer(plan, batch=13, threads=2)
    expected = everything(trainer)
    trainer.set_cpu_percent(20)
    params, rng = np.zeros(plan.num_params, np.float32), np.random.default_rng(0)
    x = rng.normal(0, 1, (13, *plan.input_shape)).astype(np.float32)
    cpu, wall = time.process_time(), time.perf_counter()
    trainer.fit(params, np.tile(x, (10, 1, 1, 1)), np.zeros(130, np.float32), epochs=4, batch_size=13, lr=0.01)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert cpu / wall < 2 * 0.35, "a busy machine can only make it less"
    assert everything(trainer) == expected


def test_an_error_leaves_the_threads_in_order():
    model = load(zoo.mlp([8, 16, 3], seed=0))
    trainer = Trainer(model.plan, threads=4)
    x = np.zeros((5, 8), np.float32)
    for _ in range(3):
        with pytest.raises(DataError):
            trainer.fit(model.params, x, np.full(5, 9))
        assert trainer.fit(model.params, x, np.zeros(5, np.int64)).steps == 1


def test_fewer_threads_where_their_memory_is_not_allowed():
    plan = PLANS["conv"]
    one = Trainer(plan, batch=13).arena_bytes
    many = Trainer(plan, batch=13, threads=8)
    assert many.threads == 8
    each = (many.arena_bytes - one) // 7
    few = Trainer(plan, batch=13, threads=8, max_arena_bytes=one + 2 * each)
    assert few.threads == 3
    assert few.arena_bytes == one + 2 * each
    assert everything(few) == everything(many)


@pytest.mark.parametrize("wrong", [0, -1, 65, 1.5, "2", True])
def test_a_wrong_number_of_threads_is_refused(wrong):
    with pytest.raises(UsageError, match="threads"):
        Trainer(PLANS["conv"], threads=wrong)
