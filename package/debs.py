"""Debian packages of the agent, the aggregator and the helper, for amd64 and arm64, made on either: `make deb`.

Each package holds a venv of its own below /usr/lib: Debian's NumPy and paho-mqtt are older than what EdgeFL needs. A
venv belongs to one Python, so there is one package for Debian 12 and one for 13, as their version says. debhelper packs
what lies in package/debian; the wheels come from `make wheels`.
"""

from __future__ import annotations

import argparse
import email.utils
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import trees
import wheels

ROOT = wheels.ROOT
BUILD = ROOT / "build/debs"
DEBIAN = Path(__file__).resolve().parent / "debian"
RELEASES = {"bookworm": "12", "trixie": "13"}
_NAME, _MAIL = os.environ.get("DEBFULLNAME", "the EdgeFL authors"), os.environ.get("DEBEMAIL", "edgefl@localhost")
MAINTAINER = f"{_NAME} <{_MAIL}>"
# Of no use where nothing is compiled or tested
LEFT_OUT = re.compile(r"/tests?/|/include/|\.(pyi|pxd|pyx|a|h|c)$|/onnx/backend/test/|^/bin/|/__pycache__/")
F2PY = "/numpy/f2py/"  # of no use either, but SciPy, which accounts noise, imports all that NumPy names


class Package(NamedTuple):
    """A Debian package: its unit, and where things are on the machine."""

    name: str
    unit: str
    extras: str
    scripts: dict[str, str]  # of /usr/bin -> the module whose main it calls
    user: str
    config: str
    state: str
    toml: str


AGENT = Package(
    "edgefl-agent", "device_agent/edgefl-agent.service", "keys", {"edgefl-agent": "edgefl_agent.__main__"},
    "edgefl", "/etc/edgefl", "/var/lib/edgefl", "agent.toml",
)  # fmt: skip
AGGREGATOR = Package(
    "edgefl-aggregator", "broker/edgefl-aggregator.service", "aggregator,operator,dashboard,completion,privacy",
    {"edgefl-aggregator": "edgefl_broker.__main__", "edgefl": "edgefl.cli.main"},
    "edgefl-aggregator", "/etc/edgefl-aggregator", "/var/lib/edgefl-aggregator", "aggregator.toml",
)  # fmt: skip
HELPER = Package(
    "edgefl-helper", "broker/edgefl-helper.service", "keys,privacy", {"edgefl-helper": "edgefl_broker.helper.__main__"},
    "edgefl-helper", "/etc/edgefl-helper", "/var/lib/edgefl-helper", "helper.toml",
)  # fmt: skip
PACKAGES = (AGENT, AGGREGATOR, HELPER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", nargs="+", default=list(RELEASES), choices=list(RELEASES))
    parser.add_argument("--machine", nargs="+", default=list(wheels.MACHINES), choices=list(wheels.MACHINES))
    parser.add_argument(
        "--to", type=Path, default=ROOT / "dist", help="folder of the finished packages (default: dist)"
    )
    options = parser.parse_args()
    made = [deb for release in options.release for machine in options.machine for deb in build(release, machine)]
    options.to.mkdir(exist_ok=True)
    for deb in made:
        path = shutil.copy2(deb, options.to)
        size = int(trees.output("dpkg-deb", "--field", path, "Installed-Size")) * 1024 / 1e6
        print(f"{path}: {deb.stat().st_size / 1e6:.1f} MB, installed {size:.1f} MB")
    done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error", "--tag-display-limit", "5", *made])
    sys.exit(1 if done.returncode else 0)


def build(release: str, machine: str) -> list[Path]:
    """All packages for one release and machine."""
    python = next(python for python, suite in wheels.PYTHONS.items() if suite == release)
    work = BUILD / f"{release}-{machine}" / "edgefl"
    shutil.rmtree(work.parent, ignore_errors=True)
    shutil.copytree(DEBIAN, work / "debian")
    wheel = newest_wheel(python, machine)
    version = f"{wheel.name.split('-')[1]}-1+deb{RELEASES[release]}"
    write_debian(work / "debian", version, release, python)
    for package in PACKAGES:
        stage(package, wheel, python, machine, work / "stage" / package.name)
        fill_in(package, work / "debian", python)
    guard(machine, work / "stage" / AGGREGATOR.name / "usr/lib" / AGGREGATOR.name)
    command = ["dpkg-buildpackage", "--build=binary", "--unsigned-changes", "--no-check-builddeps"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": wheels.source_date(), "DEB_BUILD_OPTIONS": "nocheck"}
    with (work.parent / "log").open("w") as log:
        done = subprocess.run(
            [*command, f"--host-arch={wheels.MACHINES[machine]}"], cwd=work, env=environment, stdout=log, stderr=log
        )
    if done.returncode:
        sys.exit(f"dpkg-buildpackage failed: see {log.name}")
    return sorted(work.parent.glob("*.deb"))


def newest_wheel(python: str, machine: str) -> Path:
    found = list((ROOT / "dist").glob(f"*-cp{python.replace('.', '')}-*{machine}.whl"))
    if not found:
        sys.exit(f"no wheel for Python {python} on {machine} in dist: make wheels")
    return max(found, key=lambda path: path.stat().st_mtime)


def stage(package: Package, wheel: Path, python: str, machine: str, to: Path) -> None:
    """The package's files below `to`, as they will lie below /."""
    venv = to / "usr/lib" / package.name
    site = venv / f"lib/python{python}/site-packages"
    wheels.install(python, machine, site, [f"edgefl-toolkit[{package.extras}] @ file://{wheel}"])
    scipy = (site / "scipy").is_dir()
    for path in sorted(site.rglob("*"), reverse=True):
        inside = f"/{path.relative_to(site)}{'/' * path.is_dir()}"
        if LEFT_OUT.search(inside) or (inside.startswith(F2PY) and not scipy):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path.is_file():
            path.chmod(0o644)
    (venv / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n")
    (venv / "bin").mkdir()
    (venv / "bin/python3").symlink_to("../../../bin/python3")
    for script, module in package.scripts.items():
        path = venv / "bin" / script
        start = f"#!/usr/lib/{package.name}/bin/python3\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n"
        path.write_text(start)
        path.chmod(0o755)
        (to / "usr/bin").mkdir(parents=True, exist_ok=True)
        (to / "usr/bin" / script).symlink_to(f"../lib/{package.name}/bin/{script}")
    share = to / "usr/share" / package.name
    share.mkdir(parents=True)
    shutil.copy2((ROOT / package.unit).with_name(f"{package.toml}.sample"), share)
    for path in further_units(package):
        (share / path.name).write_text(unit_of(path))


def further_units(package: Package) -> list[Path]:
    """Units that an operator may copy from /usr/share, since few devices need them: those of the package's programs."""
    unit = ROOT / package.unit
    starts = [f"ExecStart=/opt/edgefl/bin/{script} " for script in package.scripts]
    others = (path for path in unit.parent.glob("*.service") if path != unit)
    return sorted(path for path in others if any(start in path.read_text() for start in starts))


def unit_of(path: Path) -> str:
    """A unit, without the line that says where to put it; it starts what a package installs."""
    return path.read_text().replace("/opt/edgefl/bin/", "/usr/bin/").partition("\n")[2]


def guard(machine: str, to: Path) -> None:
    """The plugin of mosquitto, for `machine`."""
    gcc = "gcc" if machine == wheels.OURS else f"{machine}-linux-gnu-gcc"
    header = BUILD / "mosquitto"
    if not header.exists():
        header.mkdir(parents=True)
        debs = trees.fetch("bookworm", "amd64", ["mosquitto-dev", "libmosquitto-dev"], needs=False)
        for deb in debs:
            subprocess.run(["dpkg-deb", "--extract", deb, header], check=True)
    options = ["CC=" + gcc, f"GUARD={to}/guard.so", f"GUARD_FLAGS={flags()} -isystem {header}/usr/include"]
    subprocess.run(["make", "--silent", "--always-make", "guard", *options], cwd=ROOT, check=True)


def flags() -> str:
    """How the Makefile compiles the guard."""
    found = re.search(r"^GUARD_FLAGS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    return found[1]


def write_debian(debian: Path, version: str, release: str, python: str) -> None:
    """What debhelper reads of all packages."""
    minor = int(python.partition(".")[2])
    depends = f"python3 (>= {python}~), python3 (<< 3.{minor + 1}~)"
    control = (debian / "control.in").read_text().replace("@MAINTAINER@", MAINTAINER).replace("@PYTHON@", depends)
    (debian / "control.in").unlink()
    (debian / "control").write_text(control)
    date = email.utils.formatdate(int(wheels.source_date()))
    (debian / "changelog").write_text(
        f"edgefl ({version}) {release}; urgency=medium\n\n"
        f"  * See CHANGELOG.md of this version.\n\n -- {MAINTAINER}  {date}\n"
    )
    (debian / "source").mkdir()
    (debian / "source/format").write_text("3.0 (quilt)\n")


def fill_in(package: Package, debian: Path, python: str) -> None:
    """What debhelper reads of one package."""
    words = {
        "@PACKAGE@": package.name, "@USER@": package.user, "@CONFIG@": package.config, "@STATE@": package.state,
        "@TOML@": package.toml,
    }  # fmt: skip
    for kind in ("postinst", "prerm", "postrm"):
        text = (debian / f"package.{kind}").read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        (debian / f"{package.name}.{kind}").write_text(text)
    (debian / f"{package.name}.service").write_text(unit_of(ROOT / package.unit))
    (debian / f"{package.name}.sysusers").write_text(f'u {package.user} - "{package.name}" {package.state}\n')
    (debian / f"{package.name}.install").write_text(f"stage/{package.name}/* /\n")
    (debian / f"{package.name}.copyright").write_text("".join(licences(package, debian.parent, python)))
    overrides = (debian / "edgefl-agent.lintian-overrides").read_text()
    (debian / f"{package.name}.lintian-overrides").write_text(overrides.replace("edgefl-agent:", f"{package.name}:"))


def licences(package: Package, work: Path, python: str) -> Iterator[str]:
    """The copyright file: ours, and that of each library, whose own texts are in its folder."""
    site = f"usr/lib/{package.name}/lib/python{python}/site-packages"
    text = "\n".join(f" {line.strip() or '.'}" for line in APACHE.splitlines())
    yield "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: EdgeFL\n"
    yield f"\nFiles: *\nCopyright: 2026 the EdgeFL authors\nLicense: Apache-2.0\n{text}\n"
    for path in sorted((work / "stage" / package.name / site).glob("*.dist-info")):
        about = Parser().parsestr((path / "METADATA").read_text(errors="replace"))
        named = about["License-Expression"] or (about["License"] or "").partition("\n")[0] or "as its classifiers say"
        if about["Name"] != "edgefl-toolkit":
            short = re.sub(r"[^A-Za-z0-9.+-]+", "-", about["Name"])
            yield f"\nFiles: {site}/{path.name.partition('-')[0]}*\n"
            yield f"Copyright: the authors of {about['Name']} {about['Version']}\n"
            yield f"License: {short}\n {named}; see {site}/{path.name}\n"


APACHE = """Licensed under the Apache License, Version 2.0.

On Debian systems the text of this licence is in /usr/share/common-licenses/Apache-2.0.
"""


if __name__ == "__main__":
    main()
