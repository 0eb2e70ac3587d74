"""Activities from a sensor on the wrist: a 1-D CNN, trained by some people, tested on others.

Ten people wear a sensor of acceleration, and each device has the windows of one of them. People differ in pace,
strength and in how they wear it, so the test is on five people that no device has seen. Agents cut windows out of a
table:

    [data]
    source = "csv:/var/lib/edgefl/wrist.csv?target=activity&labels=still,walk,run,stairs&window=64&step=32&time=t"

    python examples/activity.py
"""

import numpy as np

import edgefl
from edgefl.data import Dataset
from edgefl.onnx.templates import Examples, template

ACTIVITIES = ("still", "walk", "run", "stairs")
PEOPLE, OTHERS, WINDOWS, SAMPLES, HERTZ, ROUNDS = 10, 5, 40, 64, 32, 40
PACE = (0.0, 1.8, 2.8, 1.4)  # steps a second
FORCE = ((0, 0, 0), (0.3, 0.1, 0.5), (0.9, 0.3, 1.4), (0.3, 0.5, 0.4))  # along x, y, z


def windows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of one person: x (WINDOWS, SAMPLES, 3) float32 in g, y (WINDOWS,) the activity."""
    pace, strength, tilt = rng.uniform(0.8, 1.2), rng.uniform(0.7, 1.4), rng.normal(0, 0.2)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    y = rng.integers(0, len(ACTIVITIES), WINDOWS)
    time = np.arange(SAMPLES) / HERTZ + rng.uniform(0, 1, (WINDOWS, 1))
    phase = 2 * np.pi * pace * np.array(PACE)[y][:, None] * time
    beat = np.stack([np.sin(phase), np.sin(phase + 1), np.sin(phase) + 0.5 * np.sin(2 * phase)], axis=2)
    x = (strength * beat * np.array(FORCE)[y][:, None, :]) @ turn.T + [0, 0, 1]
    return (x + rng.normal(0, 0.15, x.shape)).astype(np.float32), y


def main() -> None:
    rng = np.random.default_rng(0)
    parts = [windows(rng) for _ in range(PEOPLE + OTHERS)]
    x, y = (np.concatenate(values) for values in zip(*parts[:PEOPLE], strict=True))
    x_test, y_test = (np.concatenate(values) for values in zip(*parts[PEOPLE:], strict=True))
    fleet = Dataset(x, y, x_test, y_test, device_train=np.repeat(np.arange(PEOPLE), WINDOWS))
    model = edgefl.load(template("cnn1d", Examples((SAMPLES, 3), len(ACTIVITIES))), y=y)
    history = edgefl.simulate(
        model, fleet, devices=PEOPLE, partition="natural", rounds=ROUNDS, epochs=2, optimizer="adam", lr=0.005
    )
    first, last = history.rounds[0].accuracy, history.final.accuracy
    print(f"{OTHERS} people that no device has seen: accuracy {first:.3f} after one round, {last:.3f} after {ROUNDS}")


if __name__ == "__main__":
    main()
