"""What is distributed: an sdist with all sources, the wheel made from it, and the files that go to machines by hand."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

import edgefl

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = {"edgefl": "edgefl", "edgefl_agent": "device_agent/edgefl_agent", "edgefl_broker": "broker/edgefl_broker"}
SCRIPTS = {
    "edgefl": "edgefl.cli.main:main",
    "edgefl-agent": "edgefl_agent.__main__:main",
    "edgefl-aggregator": "edgefl_broker.__main__:main",
    "edgefl-helper": "edgefl_broker.helper.__main__:main",
}
NOT_SOURCE = (".*", "build", "dist", "__pycache__", "*.so", "*.egg-info", "edgefl-run")
MAX_CORE_BYTES = 1_000_000


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of a clean copy of the sources, and the wheel that was built from the sdist alone."""
    pytest.importorskip("build", reason="pip install build")
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def sdist(dist: Path) -> set[str]:
    """Paths in the sdist, below its one folder."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


def information(wheel: zipfile.ZipFile, file: str) -> str:
    """A file of the wheel's .dist-info."""
    (name,) = (name for name in wheel.namelist() if name.endswith(f".dist-info/{file}"))
    return wheel.read(name).decode()


def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(information(wheel, "METADATA"))


def sources(*patterns: str) -> set[str]:
    paths = (path for pattern in patterns for path in ROOT.glob(pattern))
    return {str(path.relative_to(ROOT)) for path in paths if path.is_file() and "__pycache__" not in path.parts}


def test_the_sdist_has_every_source_and_nothing_made_from_one(sdist):
    wanted = sources(
        "src/**/*", "tests/**/*.py", "tests/sanitize/*", "device_agent/**/*", "broker/**/*", "edgefl/**/*.py"
    )
    wanted |= {
        "edgefl/py.typed",
        "edgefl/_core.pyi",
        "Makefile",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "setup.py",
    }
    assert not wanted - sdist
    assert not [name for name in sdist if re.search(r"\.so$|\.pyc$|(^|/)build/|_core\.c$", name)]


def test_the_wheel_has_three_names_and_every_module(wheel):
    names = wheel.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    for package, folder in PACKAGES.items():
        inside = {str(path.relative_to(ROOT / folder)) for path in (ROOT / folder).rglob("*.py")}
        assert {n.partition("/")[2] for n in names if n.startswith(f"{package}/") and n.endswith(".py")} == inside
    rest = {n for n in names if ".dist-info/" not in n and not n.endswith((".py", ".so"))}
    rest -= {"edgefl/simulation/devices/profiles.toml"}  # boards and links
    page = {f"edgefl/board/assets/{name}" for name in ("page.html", "board.css", "board.js")}
    assert rest == {"edgefl/py.typed", "edgefl/_core.pyi"} | page, "types for those who install it, and the dashboard"


def test_the_wheel_has_one_small_extension(wheel):
    (core,) = (item for item in wheel.infolist() if item.filename.endswith(".so"))
    assert core.filename.startswith("edgefl/_core.")
    assert core.file_size <= MAX_CORE_BYTES


def test_commands_licence_version_and_what_a_device_needs(wheel):
    scripts = configparser.ConfigParser()
    scripts.read_string(information(wheel, "entry_points.txt"))
    assert dict(scripts["console_scripts"]) == SCRIPTS
    about = metadata(wheel)
    assert (about["Name"], about["License-Expression"]) == ("edgefl-toolkit", "Apache-2.0")
    assert about["Version"] == edgefl.__version__
    needed = [line for line in about.get_all("Requires-Dist") if "extra ==" not in line]
    assert {re.split(r"[<>=;\s]", line)[0] for line in needed} == {"numpy", "paho-mqtt", "msgspec", "tomli"}
    assert "Apache License" in information(wheel, "licenses/LICENSE")


def test_what_the_wheel_installs_runs(wheel, tmp_path):
    target = tmp_path / "target"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target]
    subprocess.run([*install, wheel.filename], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def output(*command: object) -> str:
        return subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        ).stdout

    where = output(sys.executable, "-c", "import edgefl._core; print(edgefl._core.__file__)")
    assert Path(where.strip()).is_relative_to(target), "the installed one, not the checkout"
    for script in SCRIPTS:
        assert output(target / "bin" / script, "--version") == f"edgefl {edgefl.__version__}\n"
    assert "num_params" in output(target / "bin" / "edgefl", "inspect", "mlp:4-2", "--json")


def test_the_environments_that_build_offline_have_what_the_build_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for extra in ("dev", "bench"):
        assert set(project["build-system"]["requires"]) <= set(project["project"]["optional-dependencies"][extra])


UNITS = ["device_agent/edgefl-agent.service", "broker/edgefl-aggregator.service"]


@pytest.mark.parametrize("unit", [*UNITS, "device_agent/edgefl-recorder.service", "broker/edgefl-helper.service"])
def test_i22_a_crash_under_a_unit_leaves_no_core_file(unit):
    assert "LimitCORE=0" in (ROOT / unit).read_text().splitlines()


def test_the_helpers_unit_starts_what_its_bundle_brings():
    text, page = (ROOT / "broker/edgefl-helper.service").read_text(), (ROOT / "docs/helper.md").read_text()
    (command, folder) = re.findall(r"^ExecStart=/opt/edgefl/bin/(\S+) --config (\S+)/helper.toml$", text, re.MULTILINE)[
        0
    ]
    assert command in SCRIPTS and f"tar -xf helper-north.tar -C {folder}\n" in page
    sample = tomllib.loads((ROOT / "broker/helper.toml.sample").read_text())
    (state,) = re.findall(r"^StateDirectory=(\S+)$", text, re.MULTILINE)
    assert sample["state_dir"] == f"/var/lib/{state}", "the only folder that the unit lets it write to"


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_starts_a_command_with_the_configuration_that_its_readme_installs(unit):
    text, readme = (ROOT / unit).read_text(), (ROOT / unit).with_name("README.md").read_text()
    (command, config) = re.findall(r"^ExecStart=/opt/edgefl/bin/(\S+) --config (\S+)$", text, re.MULTILINE)[0]
    assert command in SCRIPTS
    assert re.search(
        rf"^install .* {unit.partition('/')[0]}/{Path(config).name}\.sample {config}$", readme, re.MULTILINE
    )
    sample = tomllib.loads((ROOT / unit).with_name(f"{Path(config).name}.sample").read_text())
    (state,) = re.findall(r"^StateDirectory=(\S+)$", text, re.MULTILINE)
    assert sample["state_dir"] == f"/var/lib/{state}", "the only folder that the unit lets it write to"
