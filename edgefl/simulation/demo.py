"""`edgefl demo`: a whole federation on one machine, with real processes, a real broker and a power cut.

Ten agents learn to read digits. Half way two of them are killed; one comes back. Every round ends all the same.

An agent needs about a second to start, in which ten rounds pass. On a slow machine all rounds may be over by then: the
demo then runs one more round, which waits for the device that came back, so that it is always seen to report again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from .. import auto, data
from ..errors import ModelError, UsageError
from ..history import History
from ..history_record import RoundRecord
from ..onnx import zoo
from ..onnx.evaluate import OnnxEvaluator
from ..onnx.load import load
from ..settings import Settings
from ..transports.embedded import EmbeddedBroker
from .processes import ProcessFleet
from .split.partitions import split

SIZES = [64, 50, 10]
PARTITION = "dirichlet:0.5"
ABSENCE = 3  # rounds that pass before the first of the killed agents is started again
KILLED = 2
TIMEOUT_S = 300.0
RETURN_S = 60.0  # in which the agent that was started again has to report


class Story:
    """Which devices die, which one comes back and when; and the table that shows it."""

    def __init__(self, fleet: ProcessFleet, rounds: int, say: Callable[[str], None]) -> None:
        self._fleet, self._rounds, self._say = fleet, rounds, say
        self._killed = [fleet.devices[1], fleet.devices[-2]]
        self.revived = self._killed[0]
        self._back_at = self._last_before = rounds + 1
        self.returned = False  # the device that came back has reported again
        say(
            f"{'round':>5}  {'devices that reported':<{3 * len(fleet.devices)}} {'accuracy':>8}  {'kB up':>7}  {'s':>5}"
        )

    def on_round(self, record: RoundRecord) -> None:
        self.returned |= record.round > self._last_before and self.revived in record.devices
        marks = " ".join(d.rpartition("-")[2] if d in record.devices else "--" for d in self._fleet.devices)
        accuracy = "" if record.accuracy is None else f"{record.accuracy:.4f}"
        self._say(
            f"{record.round:>5}  {marks:<{3 * len(self._fleet.devices)}} {accuracy:>8}  "
            f"{record.bytes_up / 1000:>7.1f}  {record.seconds:>5.2f}"
            + (f" {record.state}" if record.state != "committed" else "")
        )
        if record.round == self._rounds // 2:
            for device in self._killed:
                self._fleet.kill(device)
            self._back_at = record.round + ABSENCE
            self._say(f"       {' and '.join(self._killed)} lose power (SIGKILL)")
        if record.round == self._back_at:
            # The round that is open by now may hold an update from before the power cut.
            self._last_before = self._fleet.records()[-1].round + 1
            self._fleet.start(self.revived)
            self._say(f"       {self.revived} is switched on again")

    def wait_for_return(self, min_reports: int) -> None:
        """One more round, with `min_reports` that are reached only with the device that came back."""
        self._say(f"       one more round, which waits for {self.revived}")
        self._fleet.go_on(rounds=self._rounds + 1, min_reports=min_reports)
        self._fleet.wait(self.on_round, RETURN_S)


def run_demo(folder: Path, devices: int, rounds: int, seed: int, say: Callable[[str], None]) -> History:
    """Run it in `folder`, which then holds model.onnx, history.jsonl, curve.png and every log; raises EdgeFLErrors."""
    if devices < 4 or rounds < 8:
        raise UsageError("the demo wants at least 4 devices and 8 rounds: two are killed, one has to come back")
    folder = folder.resolve()
    digits = data.load("digits", seed=seed)
    assert digits.x_test is not None and digits.y_test is not None
    parts = split(digits, PARTITION, devices, seed)
    settings = Settings().replace(
        rounds=rounds, deadline_s=20.0, min_reports=min(3, devices - KILLED), expect=devices, epochs=2, seed=seed
    )
    sizes = ", ".join(str(len(part)) for part in parts)
    say(f"{devices} agents, {len(digits.x_train)} digits spread by {PARTITION} ({sizes})")
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        say(f"MQTT broker on {broker.url}, run folder {folder}")
        start = zoo.mlp(SIZES, seed=seed, softmax=True).SerializeToString()
        say(f"auto: {auto.choose(settings, load(start).plan).explain(settings)}")
        tables = msgspec.to_builtins(settings)
        fleet = stack.enter_context(ProcessFleet(folder, broker.url, start, digits, parts, settings=tables))
        story = Story(fleet, rounds, say)
        fleet.wait(story.on_round, TIMEOUT_S)
        if not story.returned:
            story.wait_for_return(devices - KILLED + 1)
    return _close(fleet, digits, say)


def _close(fleet: ProcessFleet, digits: data.Dataset, say: Callable[[str], None]) -> History:
    """Judge the exported file as its users will, and leave the run folder tidy."""
    folder = fleet.folder
    history = fleet.history(load(fleet.model).params)
    for name in ("model.onnx", "history.jsonl", "run.json"):
        (folder / "state" / name).replace(folder / name)
    model = load(folder / "model.onnx")
    assert digits.x_test is not None and digits.y_test is not None
    result = OnnxEvaluator(model).evaluate(model.params, digits.x_test, digits.y_test)
    records = history.rounds
    if history.final.committed != len(records):
        raise ModelError(f"{len(records) - history.final.committed} rounds were abandoned: see {folder}/aggregator.log")
    history.plot(folder / "curve.png", f"digits, {PARTITION}, two agents killed half way")
    final = history.final
    say(f"onnxruntime on {len(digits.x_test)} digits that no device has seen: accuracy {result.accuracy:.4f}")
    say(f"sent: {final.bytes_up / 1e6:.2f} MB up, {final.bytes_down / 1e6:.2f} MB down, {len(records)} rounds closed")
    say(f"see {folder}/model.onnx, history.jsonl, curve.png")
    return history
