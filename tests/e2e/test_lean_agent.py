"""What an agent has loaded after a round, on a real mosquitto: nothing that only TLS or an aggregator needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brokers import Mosquitto

# The owner's code, which is called for each round: by then all earlier ones have been trained, encoded and answered.
# At last it needs TLS of its own.
OWNERS = """
import json, sys
import numpy as np

calls = []

def examples():
    calls.append(sorted(sys.modules))
    found = {"loaded": calls[-1]}
    if len(calls) == 4:
        import hashlib, ssl, urllib.request
        found["context"] = isinstance(ssl.create_default_context(), ssl.SSLContext)
        found["hash"] = hashlib.scrypt(b"", salt=b"", n=2, r=1, p=1, dklen=2).hex()
        found["real"] = [type(module) is type(sys) for module in (ssl, hashlib, urllib.request)]
    with open("found", "a") as file:
        file.write(json.dumps(found) + "\\n")
    x = np.sin(np.arange(240, dtype=np.float32)).reshape(60, 4)
    return x, (x[:, 0] > 0).astype(np.int64)
"""
UNUSED = {
    "_hashlib", "_ssl", "argparse", "ast", "asyncio", "bz2", "calendar", "cryptography", "ctypes", "edgefl.auto",
    "edgefl.board", "edgefl.checks", "edgefl.cli", "edgefl.coordinator", "edgefl.device.masked",
    "edgefl.device.columns.profiling", "edgefl.federation", "edgefl.history", "edgefl.keys", "edgefl.masking.vector",
    "edgefl.onnx", "edgefl.project", "edgefl.simulation", "edgefl.strategies.combine", "edgefl.strategies.presets",
    "edgefl.strategies.server", "edgefl.testing", "edgefl.viewer", "edgefl_broker", "email", "gettext", "hashlib",
    "http.client", "importlib.metadata", "inspect", "ipaddress", "locale", "lzma", "msgspec._json_schema",
    "msgspec.inspect", "multiprocessing", "nacl", "numpy._core._add_newdocs", "numpy._typing", "numpy.linalg",
    "numpy.random", "onnx", "onnxruntime", "pickle", "rich", "secrets", "shutil", "ssl", "subprocess", "unittest",
    "urllib.request", "zipfile", "zoneinfo",
}  # fmt: skip


def test_an_agent_without_tls_loads_nothing_for_it(tmp_path: Path, federation: Callable[..., Any]) -> None:
    with Mosquitto() as broker:
        one = federation(broker.url)
        config = one.write_agent("device", "python:owners:examples")
        (tmp_path / "owners.py").write_text(OWNERS)
        words = [sys.executable, "-m", "edgefl_agent", "--config", str(config)]
        agent = subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        try:
            rounds = {"rounds": 4, "deadline_s": 20.0, "min_reports": 1, "expect": 1}
            running = one.aggregator(rounds=rounds)
            assert running.join(60.0) and running.error is None
        finally:
            agent.terminate()
            log = agent.communicate(timeout=20.0)[1]
    bare = {*subprocess.check_output([sys.executable, "-c", "import sys; print(*sys.modules)"], text=True).split()}
    found = [json.loads(line) for line in (tmp_path / "found").read_text().splitlines()]
    assert len(found) >= 4, log
    assert UNUSED & {*found[3]["loaded"]} - bare == set()
    assert found[3]["context"] and all(found[3]["real"]) and len(found[3]["hash"]) == 4
