"""`make test-aarch64`: the wheel for a Raspberry Pi, tested in a Debian tree of its architecture, emulated.

1. A tree of arm64 Debian 12 is unpacked from its packages, and the wheel installed into a venv in it.
2. Golden payloads: every codec writes and reads the same bits as on x86-64.
3. An agent in the tree takes part in rounds of an aggregator outside; what it occupies is printed.
4. The suite, one process a file. What is left out, and why, is in LEFT_OUT and NOT_INSTALLED.

It needs root (chroot), a kernel with binfmt_misc, and: apt-get install gcc-aarch64-linux-gnu
libc6-dev-arm64-cross. Emulation is some ten times slower than a Pi 4: the suite takes hours. `--only golden agent` and
`--files tests/codecs` choose parts; a file that has passed with the same wheel is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "package"), str(ROOT / "benchmarks")]
import footprint  # noqa: E402
import trees  # noqa: E402
import wheels  # noqa: E402

from edgefl.transports.embedded import EmbeddedBroker  # noqa: E402

BUILD = ROOT / "build/aarch64-suite"
TREE = BUILD / "tree"
DEBIAN = ["mosquitto", "mosquitto-dev", "libmosquitto-dev", "openssl", "gcc", "libc6-dev", "make", "git"]
HOME = Path("/edgefl")  # of the checkout, in the tree
VENV = Path("/opt/edgefl")
SITE = VENV / "lib/python3.11/site-packages"
FILE_S = 3 * 3600  # the longest that one file may take
LEFT_OUT = {
    "tests/daemons/test_strace.py": "emulated programs can't be traced",
    "tests/e2e/test_packaging.py": "it builds the wheel, which here has been cross-compiled already",
    "tests/hostile": "a quarter of an hour where nothing is emulated: `make hostile` runs it there",
}
NOT_INSTALLED = {
    "torch": "the comparison with it takes an hour emulated; it runs on x86-64",
    "atheris": "it has no wheel for aarch64; `make fuzz` needs it, the suite does not",
}
REQUIREMENTS = ["pytest>=8", "hypothesis>=6", "skl2onnx>=1.17", "pandas>=2", "setuptools", "pip", "wheel"]
EXTRAS = "demo,completion,operator,dashboard"
QUICK_FIRST = (
    *("protocol", "settings", "trust", "device", "coordinator", "strategies", "data", "plugins", "keys", "onnx"),
    *("transports", "daemons", "core", "codecs", "simulation", "e2e"),
)
WORDS = ("passed", "failed", "error", "skipped")


def prepare(wheel: Path) -> None:
    """The tree, with the wheel and a copy of the checkout in it whose packages are the wheel's."""
    trees.make("bookworm", "arm64", TREE, DEBIAN)
    stamp = TREE / "etc/edgefl-wheel"
    if stamp.exists() and stamp.read_text() == wheels.digest(wheel):
        return
    site = TREE / SITE.relative_to("/")
    shutil.rmtree(TREE / VENV.relative_to("/"), ignore_errors=True)
    trees.run(TREE, ["python3", "-m", "venv", "--without-pip", VENV])
    wheels.install("3.11", "aarch64", site, [f"edgefl-toolkit[{EXTRAS}] @ file://{wheel}", *REQUIREMENTS])
    for script in (site / "bin").iterdir():
        head, _, rest = script.read_bytes().partition(b"\n")
        if head.startswith(b"#!"):
            there = TREE / VENV.relative_to("/") / "bin" / script.name
            there.write_bytes(b"#!%s/bin/python3\n" % str(VENV).encode() + rest)
            there.chmod(0o755)
    copy_checkout(TREE / HOME.relative_to("/"))
    shared = Path(os.environ.get("EDGEFL_SHARED", ROOT.parent / "shared"))
    if shared.is_dir():
        shutil.copytree(shared, TREE / "mnt/shared", dirs_exist_ok=True)
    stamp.write_text(wheels.digest(wheel))


def copy_checkout(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    wheels.sources(home, everything=True)
    for package in ("edgefl", "device_agent/edgefl_agent", "broker/edgefl_broker"):
        shutil.rmtree(home / package)
        (home / package).symlink_to(SITE / Path(package).name)


def environment() -> dict[str, str]:
    return {
        "PATH": f"{VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONSAFEPATH": "1",  # the current folder's packages would hide the wheel's
        "PYTHONDONTWRITEBYTECODE": "1",
        "EDGEFL_SHARED": "/mnt/shared",
        "EDGEFL_REQUIRE_MOSQUITTO": "1",
        "OMP_NUM_THREADS": "1",
    }


def test_files(chosen: list[str]) -> list[str]:
    """Files of the suite, the quick folders first."""
    found = [str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py")]
    kept = [name for name in found if not name.startswith(tuple(LEFT_OUT))]
    kept = [name for name in kept if not chosen or name.startswith(tuple(chosen))]
    order = {name: k for k, name in enumerate(QUICK_FIRST)}
    return sorted(kept, key=lambda name: (order.get(name.split("/")[1], len(order)), name))


def run_file(name: str, log: Path) -> dict[str, int]:
    """How many tests of one file have passed, failed, and so on; empty if pytest has not come to its end."""
    pytest = [VENV / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=1800"]
    with log.open("w") as out:
        done = trees.run(
            TREE, ["env", "-C", HOME, "timeout", "--kill-after=60", str(FILE_S), *pytest, name],
            env=environment(), check=False, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    last = ["", *log.read_text(errors="replace").splitlines()][-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    return counts if done.returncode in (0, 1) else {}


def run_suite(chosen: list[str]) -> bool:
    """One process a file; verdicts are kept in BUILD/verdicts.json, and what failed in BUILD/logs."""
    logs, record = BUILD / "logs", BUILD / "verdicts.json"
    logs.mkdir(exist_ok=True, parents=True)
    verdicts = json.loads(record.read_text()) if record.exists() else {}
    wheel = (TREE / "etc/edgefl-wheel").read_text()
    names = test_files(chosen)
    for name in names:
        if (known := verdicts.get(name)) and known["wheel"] == wheel and not known["bad"]:
            continue
        began = time.monotonic()
        counts = run_file(name, logs / f"{name.replace('/', '_')}.log")
        bad = not counts or any(word in counts for word in ("failed", "error"))
        verdicts[name] = {"wheel": wheel, "bad": bad, "seconds": round(time.monotonic() - began), **counts}
        record.write_text(json.dumps(verdicts, indent=1) + "\n")
        print(f"{'FAILED' if bad else 'ok':<7}{verdicts[name]['seconds']:>6} s  {name}: {counts}", flush=True)
    ours = [verdicts[name] for name in names]
    sums = ", ".join(f"{sum(verdict.get(word, 0) for verdict in ours)} {word}" for word in WORDS)
    print(f"{len(ours)} files on aarch64: {sums}")
    return not any(verdict["bad"] for verdict in ours)


def run_agent(wheel: Path) -> bool:
    """Rounds of an emulated agent with an aggregator on this machine; prints what the agent occupies."""
    folder = TREE / "tmp/footprint"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    footprint.TIMEOUT_S = 1800.0
    footprint.SETTLE_S = 20.0
    with EmbeddedBroker() as broker:
        agent_toml, aggregator_toml = footprint.write(folder, footprint.open_to_all(broker.url), "raw32")
        agent_toml.write_text(agent_toml.read_text().replace(str(TREE), ""))
        limits = footprint.unit_environment(footprint.UNITS["edgefl_agent"])
        command = ["env", f"HOME={HOME}", VENV / "bin/edgefl-agent", "--config", f"/{agent_toml.relative_to(TREE)}"]
        with (folder / "agent.log").open("wb") as log:
            chroot = ["chroot", TREE, *command]
            agent = subprocess.Popen(chroot, env=environment() | limits, stdout=log, stderr=log)
        try:
            footprint.watch(agent, lambda seconds: seconds > footprint.SETTLE_S)
            idle = resident(agent.pid)
            with footprint.start(folder, Path(sys.executable), "edgefl_broker", aggregator_toml) as aggregator:
                footprint.watch(agent, lambda seconds: aggregator.poll() is not None)
            trained = resident(agent.pid)
        finally:
            agent.terminate()
            agent.wait()
    done = aggregator.returncode == 0
    lines = [json.loads(line) for line in (folder / "aggregator/history.jsonl").read_text().splitlines()]
    verdict = "done" if done else "FAILED"
    print(f"agent on aarch64: {len(lines)} rounds with an aggregator on {os.uname().machine}: {verdict}")
    print(f"resident without the emulator's own memory: {idle:.1f} MB idle, {trained:.1f} MB after training")
    print(f"installed: {installed(wheel):.1f} MB")
    return done


def resident(pid: int) -> float:
    """MB (10^6 bytes) that an emulated program has resident, about: the emulator's program, heap and translated code
    are left out, and what it keeps elsewhere is counted."""
    total, skip = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            words = line.split(maxsplit=5)
            name = words[5] if len(words) > 5 else ""
            skip = "qemu" in name or name == "[heap]" or (words[1].startswith("rwx") and not name)
        elif line.startswith("Rss:") and not skip:
            total += int(line.split()[1]) * 1024
    return total / 1e6


def installed(wheel: Path) -> float:
    """MB of what pip installs on a device, with the extra `keys`."""
    folder = BUILD / "device"
    shutil.rmtree(folder, ignore_errors=True)
    wheels.install("3.11", "aarch64", folder, [f"edgefl-toolkit[keys] @ file://{wheel}"])
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=["golden", "agent", "suite"], default=["golden", "agent", "suite"])
    parser.add_argument("--files", nargs="+", default=[], help="parts of the suite, as tests/codecs")
    parser.add_argument("--wheel", type=Path, help="the wheel to test (default: the newest for aarch64 in dist)")
    options = parser.parse_args()
    trees.needs_root()
    found = [options.wheel] if options.wheel else sorted((ROOT / "dist").glob("*-cp311-*aarch64.whl"))
    if not found:
        sys.exit("no wheel for aarch64 in dist: make wheels")
    wheel = found[-1].resolve()
    BUILD.mkdir(parents=True, exist_ok=True)
    trees.emulate("arm64")
    prepare(wheel)
    with trees.mounted(TREE):
        good = "golden" not in options.only or run_suite(["tests/codecs/test_golden.py"])
        good = ("agent" not in options.only or run_agent(wheel)) and good
        good = ("suite" not in options.only or run_suite(options.files)) and good
    for what, why in {**LEFT_OUT, **NOT_INSTALLED}.items():
        print(f"left out: {what}: {why}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
