"""What an agent takes of a device: resident memory, idle and training, and the size of what is installed.

    python benchmarks/footprint.py [--model 2nn] [--tls] [--codec NAME] [--python /usr/bin/python3]

A wheel of this checkout goes into an environment of its own with what a device needs and nothing else. The agent runs
from there by its console script, as a process with the environment of its systemd unit, on mosquitto and with the real
aggregator. With --tls the federation has keys: TLS both ways, signed rounds and updates, and PyNaCl on the device.
Linux only.

Memory is read from /proc/PID/smaps_rollup every 20 ms. Rss is what is resident: all pages that the agent has in memory,
those of shared libraries and of files included, whoever else uses them too. Pss counts such a page by its share. Both
are printed, with the kernel's own high-water mark of Rss (VmHWM). The targets are for Rss.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
from loopback import free_port, mosquitto, serving
from unit import REPOSITORY, unit_environment

from edgefl.keys import enrolment
from edgefl.keys.federation import Federation
from edgefl.onnx import zoo
from edgefl.settings.render import dump

NAME, DEVICE = "bench", "device"
MODELS = {"mlp": [64, 128, 10], "2nn": [784, 200, 200, 10]}
EXAMPLES = 600
ROUNDS = 5
SAMPLE_S = 0.02
SETTLE_S = 12.0
TIMEOUT_S = 120.0
UNITS = {"edgefl_agent": "device_agent/edgefl-agent.service", "edgefl_broker": "broker/edgefl-aggregator.service"}
TARGETS = {"idle_rss_mb": 36.0, "training_rss_mb": 45.0, "installed_mb": 80.0}
WITH_TLS = {"idle_rss_mb": 40.0}
Tables = dict[str, dict[str, object]]  # of settings, for "agent" and "aggregator"


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--codec", default="raw32", metavar="NAME", help="of the updates (%(default)s)")
    parser.add_argument("--model", default="mlp", choices=MODELS, help="64-128-10 or 784-200-200-10 (%(default)s)")
    parser.add_argument("--tls", action="store_true", help="with keys and certificates")
    parser.add_argument("--python", metavar="FILE", help="the device's interpreter, of this one's version")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="footprint-") as name:
        folder = Path(name)
        python = install(folder, options.python, keys=options.tls)
        packages = installed(python)
        version = subprocess.check_output([python, "--version"], text=True).strip()
        with secured(folder) if options.tls else plain(folder) as tables:
            figures = {"installed_mb": sum(packages.values()), **measure(folder, python, options, tables)}
    targets = TARGETS | (WITH_TLS if options.tls else {})
    for key, value in figures.items():
        target = f"  (to reach: {targets[key]:.0f})" if key in targets else ""
        print(f"{key:<18} {value:6.1f}{target}")
    machine = f"{platform.machine()}, {version}"
    print(f"{machine}; installed:", ", ".join(f"{package} {size:.1f}" for package, size in packages.items()))
    if options.json:
        report = {"machine": machine, "packages_mb": packages, **figures}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def install(folder: Path, base: str | None = None, *, keys: bool = False) -> Path:
    """A device's environment in `folder`, from a wheel of this checkout; returns its interpreter."""
    base = base or getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", REPOSITORY]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL, env=plain_environment())
    (wheel,) = (folder / "dist").glob("*.whl")
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    wanted = f"{wheel}[keys]" if keys else wheel
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", packages, wanted]
    subprocess.run(command, check=True, env=plain_environment())
    return folder / "venv" / "bin" / "python"


def installed(python: Path) -> dict[str, float]:
    """MB (10^6 bytes) of each thing in the environment's site-packages, largest first."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    sizes: dict[str, float] = {}
    for path in packages.rglob("*"):
        if path.is_file():
            top = path.relative_to(packages).parts[0].partition(".")[0].partition("-")[0]
            sizes[top] = sizes.get(top, 0.0) + path.stat().st_size / 1e6
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


@contextmanager
def plain(folder: Path) -> Iterator[Tables]:
    """A broker that anybody may use."""
    with mosquitto(folder) as port:
        yield open_to_all(f"mqtt://127.0.0.1:{port}")


def open_to_all(url: str) -> Tables:
    both: dict[str, object] = {"mqtt": {"url": url, "session_expiry_s": 0}}
    return {"agent": both, "aggregator": both}


@contextmanager
def secured(folder: Path) -> Iterator[Tables]:
    """A broker, an agent and an aggregator with what `edgefl keys` makes for them."""
    port, keys = free_port(), folder / "keys"
    enrolment.init(keys, Federation(federation=NAME, broker="localhost", port=port, home=str(keys / "broker")))
    (bundle,) = enrolment.add(keys, [DEVICE])
    with tarfile.open(bundle) as tar:
        tar.extractall(folder / "bundle", filter="data")
    lines = (keys / "broker/mosquitto.conf").read_text().splitlines()
    wanted = [line for line in lines if not line.startswith(("plugin", "persistence", "autosave"))]
    both = {"mqtt": {"url": f"mqtts://localhost:{port}", "session_expiry_s": 0}}
    with serving(folder, port, "\n".join([*wanted, *(["user root"] if os.geteuid() == 0 else []), ""])):
        yield {
            "agent": both | {"keys": {"dir": str(folder / "bundle")}, "policy": {"plans": "any"}},
            "aggregator": both | {"keys": {"dir": str(keys / "aggregator")}},
        }


def measure(folder: Path, python: Path, options: argparse.Namespace, tables: Tables) -> dict[str, float]:
    """MB (10^6 bytes) of an agent that waits, while it trains, and after."""
    agent_toml, aggregator_toml = write(folder, tables, options.codec, MODELS[options.model])
    with start(folder, python, "edgefl_agent", agent_toml) as agent:
        idle = watch(agent, lambda seconds: seconds > SETTLE_S)
        with start(folder, Path(sys.executable), "edgefl_broker", aggregator_toml) as aggregator:
            training = watch(agent, lambda seconds: aggregator.poll() is not None)
            if aggregator.returncode != 0:
                raise SystemExit((folder / "edgefl_broker.log").read_text())
        after = watch(agent, lambda seconds: seconds > SETTLE_S)
        peak = high_water(agent.pid)
        agent.terminate()
    return {
        "idle_rss_mb": statistics.median(rss for rss, _ in idle[len(idle) // 2 :]),
        "idle_pss_mb": statistics.median(pss for _, pss in idle[len(idle) // 2 :]),
        "training_rss_mb": max(rss for rss, _ in training),
        "training_pss_mb": max(pss for _, pss in training),
        "peak_rss_mb": peak,
        "after_rss_mb": after[-1][0],
        "after_pss_mb": after[-1][1],
    }


def write(folder: Path, tables: Tables, codec: str, sizes: list[int] = MODELS["2nn"]) -> tuple[Path, Path]:
    """Data, model and both configurations; returns agent.toml and aggregator.toml."""
    rng = np.random.default_rng(0)
    x = rng.random((EXAMPLES, sizes[0]), np.float32)
    np.savez(folder / "data.npz", x=x, y=rng.integers(0, sizes[-1], EXAMPLES))
    (folder / "start.onnx").write_bytes(zoo.mlp(sizes).SerializeToString())
    agent = {
        "federation": NAME, "device_id": DEVICE, "state_dir": str(folder / "agent"), **tables["agent"],
        "data": {"source": f"npz:{folder / 'data.npz'}"},
    }  # fmt: skip
    aggregator = {
        "federation": NAME, "model": str(folder / "start.onnx"), "state_dir": str(folder / "aggregator"),
        **tables["aggregator"],
        "rounds": {"rounds": ROUNDS, "interval_s": 0.0, "min_reports": 1, "expect": 1, "deadline_s": 60.0},
        "train": {"epochs": 5, "batch_size": 10, "lr": 0.01}, "codec": {"name": codec},
        "downlink": {"name": "raw32"},
    }  # fmt: skip
    (folder / "agent.toml").write_text(dump(agent))
    (folder / "aggregator.toml").write_text(dump(aggregator))
    return folder / "agent.toml", folder / "aggregator.toml"


def start(folder: Path, python: Path, module: str, config: Path) -> subprocess.Popen[bytes]:
    """A daemon: by its console script where that is installed beside the interpreter, else as a module."""
    environment = plain_environment() | unit_environment(UNITS[module])
    scripts = sorted(python.parent.parent.glob("lib/python*/site-packages/bin/edgefl-agent"))
    what = scripts[:1] if module == "edgefl_agent" and scripts else ["-m", module]
    with open(folder / f"{module}.log", "wb") as log:
        command = [python, *what, "--config", config]
        return subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def plain_environment() -> dict[str, str]:
    """Ours without settings of Python and malloc, as they are not a device's."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MALLOC_"))}


def watch(process: subprocess.Popen[bytes], done: Callable[[float], bool]) -> list[tuple[float, float]]:
    """(Rss, Pss) in MB of a process, every SAMPLE_S until `done(seconds)`."""
    samples, began = [], time.monotonic()
    while not done(seconds := time.monotonic() - began):
        if process.poll() is not None or seconds > TIMEOUT_S:
            raise SystemExit(f"the agent ended with {process.poll()}, or no round came, after {seconds:.0f} s")
        fields = proc_fields(process.pid, "smaps_rollup")
        samples.append((fields["Rss"], fields["Pss"]))
        time.sleep(SAMPLE_S)
    return samples


def high_water(pid: int) -> float:
    return proc_fields(pid, "status")["VmHWM"]


def proc_fields(pid: int, file: str) -> dict[str, float]:
    """The lines `Name: N kB` of a file in /proc/PID, in MB (10^6 bytes)."""
    rows = (line.split() for line in Path(f"/proc/{pid}/{file}").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 / 1e6 for row in rows if row[-1] == "kB"}


if __name__ == "__main__":
    main()
