"""What `edgefl simulate --out DIR` writes: run.json at the start, a line of history.jsonl for each round, model.onnx at
the end. Ctrl-C ends a run too: the files then have the rounds until then."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..atomic import remove_partials
from ..errors import UsageError
from ..history import History, RoundRecord, Run
from ..onnx.model import Model

FILES = ("history.jsonl", "run.json", "model.onnx")
OF_DAEMONS = "aggregator.toml"  # in the folder of a run over MQTT, where devices keep their state too


class RunFolder:
    """The folder `path`, or None to write nothing. Raises UsageError if it holds a run, unless `force`."""

    def __init__(self, path: Path | None, force: bool) -> None:
        self.path = path
        if path is None:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"can't make {path}: {error.strerror}: choose another folder with --out") from None
        if (path / OF_DAEMONS).exists():
            raise UsageError(f"{path} already holds a run over MQTT: choose another --out folder or remove it")
        there = [name for name in FILES if (path / name).exists()]
        if there and not force:
            what = f"{path} already holds a run ({', '.join(there)})"
            raise UsageError(f"{what}: choose another --out folder, or replace it with --force")

    def begin(self, run: Run | None) -> None:
        """Before the first round: removes the files of a former run."""
        if self.path:
            remove_partials(self.path)
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
            (self.path / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")

    def add(self, record: RoundRecord) -> None:
        """After each round."""
        if self.path:
            with open(self.path / "history.jsonl", "ab") as file:
                file.write(msgspec.json.encode(record) + b"\n")

    def end(self, model: Model, history: History) -> None:
        """Write the model as it is now, however the run has ended."""
        if self.path:
            model.save(self.path / "model.onnx", history.params)
