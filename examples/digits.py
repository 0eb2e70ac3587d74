"""Handwritten digits: a CNN on devices that each know two digits well and the others hardly.

Without an argument it reads scikit-learn's digits of 8x8. With the folder of MNIST's four files it reads those, which
takes a few minutes.

    python examples/digits.py
"""

import sys

import numpy as np

import edgefl
from edgefl.onnx.templates import Examples, template

DEVICES, ROUNDS = 20, 25


def main() -> None:
    data = edgefl.data.load(f"mnist:{sys.argv[1]}" if len(sys.argv) > 1 else "digits")
    model = edgefl.load(template("cnn", Examples(data.x_train.shape[1:], 10)), y=data.y_train)
    history = edgefl.simulate(
        model, data, devices=DEVICES, rounds=ROUNDS, fraction=0.5, partition="dirichlet:0.3", lr=0.05, epochs=2
    )
    for record in history.rounds[4::5]:
        sent = f"{record.bytes_up / record.reported / 1e3:.1f} kB an update"
        print(
            f"round {record.round:>2}: accuracy {record.accuracy:.3f}, {sent} (float32: {4e-3 * model.params.size:.0f})"
        )
    guesses = edgefl.Trainer(model.plan).predict(history.params, data.x_test.reshape(-1, *model.plan.input_shape))
    wrong = np.bincount(data.y_test[guesses.argmax(1) != data.y_test], minlength=10)
    print(f"mistakes by digit, of {len(data.y_test)} that no device has seen: {', '.join(map(str, wrong))}")
    print(f"accuracy {history.final.accuracy:.3f}")


if __name__ == "__main__":
    main()
