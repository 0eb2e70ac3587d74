"""Anomalies of machines: an autoencoder that learns what is normal, and never sees a fault.

Eight pumps have eight sensors each. Every pump trains on its own normal readings; what the shared model can't restore
is an anomaly. Agents do the same with a table: target=* makes the features the targets.

    [data]
    source = "csv:/var/lib/edgefl/pump.csv?target=*"

    python examples/anomaly.py
"""

import numpy as np

import edgefl
from edgefl.data import Dataset
from edgefl.onnx.templates import Examples, template

PUMPS, READINGS, SENSORS = 8, 250, 8
MIX = np.random.default_rng(0).normal(0, 0.7, (2, SENSORS))  # how speed and load show in the sensors


def readings(rng: np.random.Generator, n: int, pump: int = 0) -> np.ndarray:
    """(n, SENSORS) float32: pumps differ in the speed and the load that they run at."""
    hidden = rng.normal([0.3 * np.sin(pump), 0.3 * np.cos(pump)], 0.7, (n, 2))
    return (np.tanh(hidden @ MIX) + rng.normal(0, 0.05, (n, SENSORS))).astype(np.float32)


def with_faults(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """The same readings, but one sensor of each no longer follows the others; each value alone is quite usual."""
    broken = x.copy()
    sensor = rng.integers(0, SENSORS, len(x))
    rows = np.arange(len(x))
    broken[rows, sensor] = np.where(x[rows, sensor] > 0, -1, 1)
    return broken


def main() -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([readings(rng, READINGS, pump) for pump in range(PUMPS)])
    test = np.concatenate([readings(rng, 50, pump) for pump in range(PUMPS)])
    fleet = Dataset(x, x, test, test, device_train=np.repeat(np.arange(PUMPS), READINGS))
    model = edgefl.load(template("autoencoder", Examples((SENSORS,), SENSORS)), y=x)
    # An update of 450 numbers is small as it is, and the last digits of what a model restores matter here.
    history = edgefl.simulate(
        model, fleet, devices=PUMPS, partition="natural", rounds=60, epochs=3, optimizer="adam", lr=0.01, codec="raw32",
        downlink="raw32",
    )  # fmt: skip
    print(f"{model.loss_line}")
    print(f"{PUMPS} pumps: what the model fails to restore, {history.rounds[0].loss:.4f} -> {history.final.loss:.4f}")

    trainer = edgefl.Trainer(model.plan)

    def error(values: np.ndarray) -> np.ndarray:
        return ((trainer.predict(history.params, values) - values) ** 2).mean(axis=1)

    limit = np.quantile(error(test), 0.99)
    fresh = readings(rng, 400)
    alarms, caught = (error(fresh) > limit).mean(), (error(with_faults(rng, fresh)) > limit).mean()
    print(f"of readings that no pump has trained on: false alarms {alarms:.3f}, faults found {caught:.3f}")


if __name__ == "__main__":
    main()
