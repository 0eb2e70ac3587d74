"""ModelFiles: accepted models as files, each replaced whole, and what is run afterwards. Imported where [model] asks.

    STATE_DIR/model/skeleton.bin    the ONNX file without its trained numbers, as the aggregator publishes it
    STATE_DIR/model/plan.json       the plan of the newest model
    STATE_DIR/model/facts.json      which model the files hold (core/stamp.py)

At a start the files themselves say which model they hold: the SHA-256 of the params in them. So a power cut between two
files, or a file that somebody has changed, costs one download, and nothing else does.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from edgefl.atomic import PARTIAL, write_atomically
from edgefl.core.params import params_from_bytes, params_sha256, params_to_bytes
from edgefl.core.plan import Plan
from edgefl.core.skeleton import LONGEST, Skeleton, sha256_of
from edgefl.core.stamp import Facts
from edgefl.device.events import KeepModel, TrainJob
from edgefl.device.model.delivery import Wanted
from edgefl.device.personal import Verdict
from edgefl.errors import ModelError, UsageError

from .model_config import ModelConfig

FOLDER = "model"
LONGEST_PLAN = 2**20
log = logging.getLogger("edgefl.agent")


class ModelFiles:
    """UsageError for a configuration that does not fit together."""

    def __init__(self, config: ModelConfig, state_dir: Path) -> None:
        check(config)
        self.config, self._folder = config, state_dir / FOLDER
        self._mode = None if config.mode == "umask" else int(config.mode, 8)

    def wanted(self) -> Wanted:
        """What the owner wants, and what is there: read once, at the start."""
        self._tidy()
        config, params = self.config, self.params()
        blob = b"" if params is None else params_to_bytes(params)
        return Wanted(
            config.every_s, bool(config.file), not config.only,
            "" if params is None else params_sha256(params), blob, self._skeleton_sha256(),
        )  # fmt: skip

    def keep(self, model: KeepModel) -> Facts:
        """Write all files of an accepted model; OSError, ModelError."""
        whole, plan = params_from_bytes(model.params), model.manifest.plan
        if params_sha256(whole) != model.round.model_sha256:
            raise ModelError("the params are not those that the round names")
        params, _ = model.manifest.unstack(whole)
        sha256 = params_sha256(params)
        facts = Facts(
            model.manifest.federation, model.manifest.run, model.round.version, model.round.round, plan.hash, sha256,
            model.round.accuracy,
        )  # fmt: skip
        self._keep_own("plan.json", plan.to_bytes())
        config = self.config
        if config.plan_file:
            self._replace(config.plan_file, [plan.to_bytes()])
        if config.params_file:
            self._replace(config.params_file, [_npy_head(params), params_to_bytes(params)])
        if config.file and (skeleton := self._skeleton(plan, model)) is not None:
            self._replace(config.file, [*skeleton.pieces(params), facts.stamp(skeleton.header.notes)])
        self._keep_own("facts.json", msgspec.json.encode(facts))
        return facts

    def keep_own(self, job: TrainJob, verdict: Verdict) -> bool:
        """Write the file of the model that the device keeps for itself; False if its skeleton has not come yet. Called
        in the thread that trains; OSError, ModelError."""
        path, info = self.config.personal_file, job.manifest.skeleton
        blob = _read(self._folder / "skeleton.bin", LONGEST)
        if path is None or info is None or blob is None or sha256_of(blob) != info.sha256:
            return False
        plan, params = job.manifest.plan, np.ascontiguousarray(verdict.params, np.float32)
        skeleton, scores = Skeleton.from_bytes(blob, plan.num_params), verdict.scores.get("personal")
        accuracy, loss = (None, None) if scores is None else (scores.accuracy, scores.loss)
        facts = Facts(
            job.manifest.federation, job.manifest.run, job.round.version, job.round.round, plan.hash,
            params_sha256(params), accuracy, loss, "own" if verdict.own else "received",
        )  # fmt: skip
        self._replace(path, [*skeleton.pieces(params), facts.stamp(skeleton.header.notes)])
        return True

    def _skeleton(self, plan: Plan, model: KeepModel) -> Skeleton | None:
        if model.manifest.skeleton is None:
            text = "no skeleton of the model's file: the aggregator's log says why, or it is of an older version"
            log.warning("[model] file is not written: %s", text)
            return None
        blob = _read(self._folder / "skeleton.bin", LONGEST)
        if blob is None or sha256_of(blob) != model.manifest.skeleton.sha256:
            raise ModelError(f"{self._folder / 'skeleton.bin'} is gone or damaged: start the agent again")
        return Skeleton.from_bytes(blob, plan.num_params)

    def keep_skeleton(self, blob: bytes) -> None:
        """Keep the skeleton; OSError."""
        self._keep_own("skeleton.bin", blob)

    # What is there

    def plan(self) -> Plan | None:
        """The plan of the model that the files hold; None if it is missing or damaged."""
        blob, facts = _read(self._folder / "plan.json", LONGEST_PLAN), self.facts()
        if blob is None or facts is None:
            return None
        with suppress(ModelError):
            plan = Plan.from_bytes(blob)
            return plan if plan.hash == facts.plan else None
        return None

    def facts(self) -> Facts | None:
        """Which model the files hold."""
        blob = _read(self._folder / "facts.json", 65536)
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            return None if blob is None else msgspec.json.decode(blob, type=Facts)
        return None

    def labels(self) -> tuple[str, ...]:
        """The names of the classes, if the aggregator has told them."""
        plan, blob = self.plan(), _read(self._folder / "skeleton.bin", LONGEST)
        if plan is None or blob is None:
            return ()
        try:
            notes = Skeleton.from_bytes(blob, plan.num_params).header.notes
            names = msgspec.json.decode(notes.get("labels", "[]"), type=list[str])
            return tuple(names) if all(map(str.isprintable, names)) else ()  # they go to a terminal
        except (ModelError, msgspec.DecodeError):
            return ()

    def params(self) -> np.ndarray | None:
        """(P,) the params in the files; None if files are missing, damaged, or hold different models."""
        plan = self.plan()
        if plan is None:
            return None
        found = []
        if self.config.params_file:
            found.append(read_params(self.config.params_file, plan))
        if self.config.file:
            found.append(self._in_file(Path(self.config.file), plan))
        first, equal = found[0], True
        for other in found[1:]:
            equal = equal and first is not None and other is not None and np.array_equal(first, other)
        return first if equal else None

    def _in_file(self, path: Path, plan: Plan) -> np.ndarray | None:
        blob = _read(self._folder / "skeleton.bin", LONGEST)
        try:
            if blob is None:
                return None
            skeleton = Skeleton.from_bytes(blob, plan.num_params)
            data = _read(path, skeleton.header.size + 65536)
            return None if data is None else skeleton.params_of(data)
        except ModelError:
            return None

    def _skeleton_sha256(self) -> str:
        blob = _read(self._folder / "skeleton.bin", LONGEST)
        return "" if blob is None else sha256_of(blob)

    # Writing

    def _keep_own(self, name: str, data: bytes) -> None:
        """A file of the state folder, if it is not so already."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if _read(self._folder / name, len(data)) != data:
            write_atomically(self._folder / name, data, mode=0o600)

    def _replace(self, path: str, pieces: Iterable[bytes]) -> None:
        write_atomically(Path(path), pieces, exact=self._mode)

    def _tidy(self) -> None:
        """Remove what a kill has left half written."""
        config = self.config
        for path in (config.file, config.personal_file, config.params_file, config.plan_file):
            for left in [] if path is None else Path(path).parent.glob(f".{Path(path).name}.*{PARTIAL}"):
                with suppress(OSError):
                    left.unlink()


def check(config: ModelConfig) -> None:
    """UsageError."""
    if not config.wants_files:
        raise UsageError("[model] names no file: give file, params_file or both, or leave the section out")
    if config.personal_file is not None and config.file is None:
        raise UsageError("[model] personal_file needs file: it is put together like that one; give file too")
    for name in ("file", "personal_file", "params_file", "plan_file"):
        path = getattr(config, name)
        if path is not None and not os.path.isabs(path):
            raise UsageError(f"[model] {name} is {path!r}: give the whole path, from /")


def read_params(path: str | os.PathLike[str], plan: Plan) -> np.ndarray | None:
    """(P,) float32 of a NumPy file; None if it has none for this plan."""
    data = _read(Path(path), 4 * plan.num_params + 4096)
    if data is None:
        return None
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    sound = isinstance(found, np.ndarray) and found.shape == (plan.num_params,) and found.dtype == np.float32
    return found if sound and bool(np.isfinite(found).all()) else None


def _npy_head(params: np.ndarray) -> bytes:
    """What stands before the params (P,), little-endian float32, in a NumPy file."""
    file = io.BytesIO()
    head = {"descr": "<f4", "fortran_order": False, "shape": params.shape}
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue()


def _read(path: Path, longest: int) -> bytes | None:
    """The file's bytes; None if it can't be read or is longer."""
    with suppress(OSError):
        with open(path, "rb") as file:
            data = file.read(longest + 1)
        return data if len(data) <= longest else None
    return None
