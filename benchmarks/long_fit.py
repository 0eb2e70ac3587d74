"""Whether the last step of a long local training is as fast as its first, on real data.

    python benchmarks/long_fit.py [--data SPEC] [--steps N] [--repeats N]

Momentum that fades and Adam's moments become denormal after about a thousand steps, which a processor computes many
times slower unless it is told to flush them. The first and last 300 steps of an MLP, after its very first, are timed in
turns, as differences of runs; a figure is the median over the turns, in time of the processor.
"""

from __future__ import annotations

import argparse
import statistics
import time

from edgefl import Trainer, data, load
from edgefl.onnx import zoo

SPAN = 300
OPTIMIZERS = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.05, "momentum": 0.9},
    "adam": {"lr": 0.001, "optimizer": "adam"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="(default: digits)")
    parser.add_argument("--steps", type=int, default=2400, help="(default: 2400)")
    parser.add_argument("--repeats", type=int, default=7, help="(default: 7)")
    options = parser.parse_args()
    examples = data.load(options.data)
    x, y = examples.x_train.reshape(len(examples.x_train), -1), examples.y_train
    model = load(zoo.mlp([x.shape[1], 200, 200, int(y.max()) + 1], seed=0))
    trainer = Trainer(model.plan)

    def seconds(steps: int, how: dict[str, object]) -> float:
        began = time.thread_time()
        trainer.fit(model.params, x, y, epochs=steps, max_steps=steps, **how)
        return time.thread_time() - began

    print(f"{'optimizer':<10} {'first':>8} {'last':>8} us/step   last/first")
    for name, how in OPTIMIZERS.items():
        firsts, lasts = [], []
        for _ in range(options.repeats):
            firsts.append((seconds(SPAN + 1, how) - seconds(1, how)) / SPAN)
            lasts.append((seconds(options.steps, how) - seconds(options.steps - SPAN, how)) / SPAN)
        first, last = statistics.median(firsts), statistics.median(lasts)
        print(f"{name:<10} {first * 1e6:8.1f} {last * 1e6:8.1f}           {last / first:8.2f}")


if __name__ == "__main__":
    main()
