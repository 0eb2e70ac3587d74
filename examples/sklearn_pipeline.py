"""A scikit-learn pipeline, scaler included: converted by skl2onnx, trained by a fleet, used as before.

The operator has a handful of rows, fits the pipeline on them and converts it. The fleet trains the classifier on rows
that the operator never sees; the scaler stays as it was fitted, and the file still takes the raw columns.

    python examples/sklearn_pipeline.py
"""

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import edgefl
from edgefl.data import Dataset

DEVICES, OWN = 6, 12  # devices, and rows that the operator has


def main() -> None:
    x, y = load_wine(return_X_y=True)  # 13 measurements of 178 wines, in units of their own
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order].astype(np.float32), y[order]
    own, test = slice(0, OWN), slice(-60, None)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[own], y[own])
    print(f"fitted on {OWN} rows: accuracy {pipeline.score(x[test], y[test]):.3f}")

    model = edgefl.load(to_onnx(pipeline, x[:1]))
    print(f"loss {model.loss_line}; {model.plan.num_trainable} of {model.plan.num_params} params train")
    fleet = Dataset(x[OWN:-60], y[OWN:-60], x[test], y[test])
    history = edgefl.simulate(model, fleet, devices=DEVICES, rounds=20, lr=0.05, epochs=2)

    session = onnxruntime.InferenceSession(model.to_bytes(history.params))
    labels = session.run(None, {session.get_inputs()[0].name: x[test]})[0]
    print(f"trained by {DEVICES} devices, run by onnxruntime on raw columns: accuracy {(labels == y[test]).mean():.3f}")


if __name__ == "__main__":
    main()
