"""All data in one place: gradient descent, and mini-batch SGD. What everything else is measured by.

python examples/neighbours/pooled.py
"""

import numpy as np
import task


def gradient_descent(steps: int = task.STEPS) -> np.ndarray:
    """w ← w − η ∇F(w), with F over all examples."""
    params = task.MODEL.params
    for _ in range(steps):
        params = params - np.float32(task.LR) * task.TRAINER.gradient(params, task.DATA.x_train, task.DATA.y_train)
    return params


def minibatch_sgd(batch: int, steps: int = task.STEPS) -> np.ndarray:
    """The same over `batch` examples a step: those that each worker has next, batch / workers of each."""
    params, each = task.MODEL.params, batch // task.WORKERS
    for step in range(steps):
        rows = np.concatenate(
            [np.take(part, range(step * each, (step + 1) * each), mode="wrap") for part in task.PARTS]
        )
        found = task.TRAINER.gradient(params, task.DATA.x_train[rows], task.DATA.y_train[rows])
        params = params - np.float32(task.LR) * found
    return params


def main() -> None:
    for name, params in (("gradient descent", gradient_descent()), ("mini-batch SGD", minibatch_sgd(80))):
        print(f"{name:16}  loss {task.loss(params):.3f}, accuracy {task.accuracy(params):.3f}")


if __name__ == "__main__":
    main()
