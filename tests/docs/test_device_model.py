"""docs/device-model.md: what its commands and its program say is what the model on the device says."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from brokers import eventually, free_port, require_mosquitto
from conftest import ROOT
from own_table import as_root, commands, shell, write_table

from edgefl import data
from edgefl.core.protobuf import metadata_of

PAGE = (ROOT / "docs" / "device-model.md").read_text(encoding="utf-8")


def test_its_commands_and_its_program_run(tmp_path):
    write_table(tmp_path / "machines.csv")
    mosquitto = require_mosquitto()
    script = commands(PAGE).replace("interval_s=2", "interval_s=0.2").replace("/usr/sbin/mosquitto", mosquitto)
    script = script.replace("--open", f"--open --broker mqtt://localhost:{free_port()}") + "\ntouch done\n"
    fleet, log = tmp_path / "fleet", tmp_path / "log"
    with shell(as_root(script) if os.geteuid() == 0 else script, tmp_path, log):
        try:
            eventually((fleet / "done").exists, 90.0)
            file = fleet / "model-on-pi-01.onnx"
            eventually(lambda: int(metadata_of(file.read_bytes())["version"]) >= 8, 90.0)
        except AssertionError:
            pytest.fail("\n".join(path.read_text() for path in [log, *fleet.glob("*.log")]))
    rows = list(csv.reader((fleet / "predictions.csv").read_text().splitlines()))
    assert rows[0] == ["row", "prediction", "output0", "output1", "output2"] and len(rows) > 100
    assert {row[1] for row in rows[1:]} <= {"fault", "ok", "worn"}

    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    alone = f"import sys; sys.modules.update(onnx=None, onnxruntime=None)\n{program}"
    done = subprocess.run([sys.executable, "-c", alone], cwd=fleet, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(str(file))
    first = session.run(None, {session.get_inputs()[0].name: np.array([[41.2, 1533, 0.0031]], np.float32)})[0]
    assert done.stdout == f"{first.argmax(axis=1)}\n"

    given = data.load(f"csv:{fleet}/data/pi-01.csv?target=state&missing=mean&labels=fault,ok,worn", test_fraction=0)
    known = session.run(None, {session.get_inputs()[0].name: given.x_train})[0].argmax(axis=1)
    assert (known == given.y_train).mean() > 0.9  # the file takes raw columns
