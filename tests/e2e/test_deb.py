"""What Debian packages and images are made from. Made, installed and purged they are by `make deb clean-package`."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "package"))
import debs
from clean_tree import steps

CONTAINERFILE = ROOT / "package/Containerfile"


@pytest.fixture
def debian(tmp_path):
    """The folder that debhelper reads, of all packages."""
    debs.shutil.copytree(debs.DEBIAN, tmp_path / "debian")
    debs.write_debian(tmp_path / "debian", "1.2.3-1+deb12", "bookworm", "3.11")
    for package in debs.PACKAGES:
        debs.fill_in(package, tmp_path / "debian", "3.11")
    return tmp_path / "debian"


@pytest.mark.parametrize("package", debs.PACKAGES, ids=lambda package: package.name)
def test_maintainer_scripts_are_whole_and_purge_all_that_they_make(debian, package):
    for kind in ("postinst", "prerm", "postrm"):
        script = debian / f"{package.name}.{kind}"
        subprocess.run(["sh", "-n", script], check=True)
        assert "@" not in script.read_text(), "nothing is left to be filled in"
    made = re.findall(r"install .* (/\S+)$", (debian / f"{package.name}.postinst").read_text(), re.MULTILINE)
    assert len(made) == 3
    (purged,) = re.findall(r"rm -rf (.*)$", (debian / f"{package.name}.postrm").read_text(), re.MULTILINE)
    assert all(path.startswith(tuple(purged.split())) for path in made)
    assert {path.strip("/").partition("/")[0] for path in purged.split()} == {"etc", "var"}


@pytest.mark.parametrize("in_use", [True, False])
def test_a_user_that_is_in_use_does_not_stop_a_purge_half_way(debian, tmp_path, in_use):
    (tools := tmp_path / "tools").mkdir()
    stubs = {"getent": 0, "rm": 0, "userdel": 8 if in_use else 0, "groupdel": 8 if in_use else 0}
    for name, code in stubs.items():
        (tools / name).write_text(f"#!/bin/sh\necho {name} $* >> {tmp_path}/ran\nexit {code}\n")
        (tools / name).chmod(0o755)
    script = (debian / "edgefl-agent.postrm").read_text().replace("#DEBHELPER#", f"echo done >> {tmp_path}/ran")
    done = subprocess.run(
        ["/bin/sh", "-c", script, "postrm", "purge"], env={"PATH": str(tools)}, capture_output=True, text=True
    )
    ran = (tmp_path / "ran").read_text().split("\n")
    assert (done.returncode, ran[0], ran[-2]) == (0, "rm -rf /etc/edgefl /var/lib/edgefl", "done")
    assert ("end its processes" in done.stderr) is in_use
    assert ("groupdel edgefl" in ran) is not in_use


def test_the_packages_share_no_user_and_no_folder():
    for field in ("name", "user", "config", "state"):
        assert len({getattr(package, field) for package in debs.PACKAGES}) == len(debs.PACKAGES)


def test_aggregator_and_helper_can_compute_epsilon():
    """Each by itself, in rounds with noise; nobody can add a library to what a package has installed."""
    for package in (debs.AGGREGATOR, debs.HELPER):
        assert "privacy" in package.extras.split(",")


@pytest.mark.parametrize("package", debs.PACKAGES, ids=lambda package: package.name)
def test_a_unit_starts_what_the_package_installs_and_hides_what_it_writes(debian, package):
    unit = (debian / f"{package.name}.service").read_text()
    (script, config) = re.findall(r"^ExecStart=/usr/bin/(\S+) --config (\S+)$", unit, re.MULTILINE)[0]
    assert script in package.scripts and config == f"{package.config}/{package.toml}"
    assert {f"User={package.user}", f"StateDirectory={package.state.removeprefix('/var/lib/')}"} <= set(
        unit.splitlines()
    )
    assert {"Type=notify", "WatchdogSec=300", "UMask=0077", "NoNewPrivileges=yes"} <= set(unit.splitlines())
    user = (debian / f"{package.name}.sysusers").read_text().split()
    assert user[:2] == ["u", package.user] and user[-1] == package.state


def test_the_agents_package_has_the_recorders_unit_to_copy():
    (path,) = debs.further_units(debs.AGENT)
    unit = debs.unit_of(path)
    assert path.name == "edgefl-recorder.service" and unit.startswith("[Unit]")
    assert "\nExecStart=/usr/bin/edgefl-agent record --config /etc/edgefl/agent.toml\n" in unit
    assert f"\nUser={debs.AGENT.user}\n" in unit and debs.further_units(debs.AGGREGATOR) == []


def test_every_override_says_why(debian):
    text = (debian / "edgefl-agent.lintian-overrides").read_text()
    assert text.startswith("#") and "\n\n" not in text
    assert not re.search(r"\s\*$", text, re.MULTILINE), "an override is of one tag"


@pytest.mark.parametrize("release, python", [("bookworm", "3.11"), ("trixie", "3.13")])
def test_a_package_belongs_to_the_python_that_its_venv_was_made_for(tmp_path, release, python):
    debs.shutil.copytree(debs.DEBIAN, tmp_path / "debian")
    debs.write_debian(tmp_path / "debian", "1.2.3-1", release, python)
    minor = int(python.partition(".")[2])
    needed = f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~)"
    assert (tmp_path / "debian/control").read_text().count(needed) == len(debs.PACKAGES)


def test_only_what_nothing_imports_is_left_out():
    gone = ["/numpy/tests/test_x.py", "/numpy/_core/include/", "/numpy/__init__.pyi", "/bin/edgefl", "/x/__pycache__/"]
    kept = [
        *("/edgefl/testing/__init__.py", "/numpy/testing/__init__.py", "/edgefl/_core.cpython-311-x86_64-linux-gnu.so"),
        *("/numpy.libs/libopenblas.so", "/edgefl_toolkit-0.1.0.dist-info/METADATA", "/msgspec/_core.so"),
    ]
    assert all(debs.LEFT_OUT.search(path) for path in gone)
    assert not any(debs.LEFT_OUT.search(path) for path in kept)


@pytest.mark.parametrize("package", debs.PACKAGES, ids=lambda package: package.name)
def test_an_image_runs_the_package_as_its_user(package):
    found = steps(CONTAINERFILE, package.name.removeprefix("edgefl-"))
    last = dict(found)
    assert last["USER"] == package.user and last["VOLUME"] == package.state
    assert last["ENTRYPOINT"] == f'["/usr/bin/{package.name}"]'
    assert last["CMD"] == f'["--config", "{package.config}/{package.toml}"]'
    assert any(verb == "COPY" and words.startswith(f"{package.name}_") for verb, words in found)
