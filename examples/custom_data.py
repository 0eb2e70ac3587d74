"""Your own arrays as training data.

The simulator takes the Dataset that `sensor_windows` returns. An agent on a device finds the same function by its name:

    [data]
    source = "python:custom_data:sensor_windows"

    python examples/custom_data.py
"""

import numpy as np

import edgefl
from edgefl.data import Dataset

DEVICES, WINDOWS, SAMPLES = 8, 60, 32


def sensor_windows() -> Dataset:
    """Windows of a vibration sensor, x (n, SAMPLES) float32, y (n,) 0 for a sound bearing and 1 for a worn one.

    `device_train` says which machine each window comes from; partition="natural" gives each device its own.
    """
    rng = np.random.default_rng(0)
    device = np.repeat(np.arange(DEVICES), WINDOWS)
    worn = rng.integers(0, 2, len(device))
    time = np.arange(SAMPLES) / SAMPLES
    hum = np.sin(2 * np.pi * 3 * time + rng.uniform(0, 2 * np.pi, (len(device), 1)))
    rattle = np.sin(2 * np.pi * 11 * time) * worn[:, None]
    windows = (1 + device[:, None] / DEVICES) * hum + 0.5 * rattle + rng.normal(0, 0.3, hum.shape)
    test = rng.random(len(device)) < 0.2
    return Dataset(
        x_train=windows[~test].astype(np.float32),
        y_train=worn[~test],
        x_test=windows[test].astype(np.float32),
        y_test=worn[test],
        device_train=device[~test],
    )


def main() -> None:
    model = f"mlp:{SAMPLES}-16-2"
    history = edgefl.simulate(model, sensor_windows(), devices=DEVICES, rounds=15, partition="natural")
    first, last = history.rounds[0].accuracy, history.final.accuracy
    print(f"{DEVICES} machines: accuracy {first:.3f} after one round, {last:.3f} after {len(history.rounds)}")


if __name__ == "__main__":
    main()
