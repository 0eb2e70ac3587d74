"""EFL_PROFILE_SMALL with all ops, as a module of Python: what the core's own tests want, it does too."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc, and Linux's names of functions"
)

# A file a kind of op; the whole folder passes too, but for the tests of threads, and takes minutes.
TRIED = ("dense", "conv", "pool", "norm", "recurrent", "pointwise", "losses", "reduce", "optimizers")


@pytest.fixture(scope="module")
def small_core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    module = folder / "_core.so"
    subprocess.run(
        [sys.executable, "-m", "cython", "-3", "--module-name", "edgefl._core", ROOT / "src/cython/core.pyx", "-I",
         ROOT / "src/cython", "-o", folder / "core.c"],
        check=True,
    )  # fmt: skip
    sources = [path for path in (ROOT / "src").rglob("*.c") if path.parent.name != "kernels"]
    kernels = [ROOT / "src/kernels/kernels.c", ROOT / "src/kernels/dispatch.c"]
    include = [f"-I{ROOT / 'src'}", f"-I{sysconfig.get_path('include')}"]
    subprocess.run(
        ["gcc", "-std=c11", "-O1", "-shared", "-fPIC", "-DEFL_PROFILE_SMALL", *include, folder / "core.c", *sources,
         *kernels, "-lm", "-o", module],
        check=True,
    )  # fmt: skip
    return module


@pytest.fixture
def environment(small_core, monkeypatch) -> dict[str, str]:
    """In which the plugin small_core puts that core in the place of the other."""
    monkeypatch.delenv("EDGEFL_ISA", raising=False)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])
    return os.environ | {"EDGEFL_SMALL_CORE": str(small_core), "PYTHONPATH": paths}


def test_it_passes_the_tests_of_the_core(environment):
    files = [ROOT / f"tests/core/test_{name}.py" for name in TRIED]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "small_core", "-q", "-x", *files],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


def test_it_is_the_small_core_that_was_tried(environment):
    program = "import small_core, edgefl._core as c; print(c.isa(), c.max_threads(), c.__file__)"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["scalar", "1", environment["EDGEFL_SMALL_CORE"]]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 256)]


def said(small_core: Path, text: str, *values: object) -> str:
    error = Error()
    assert ctypes.CDLL(str(small_core)).efl_fail(ctypes.byref(error), 3, text.encode(), *values) == error.code == 3
    return error.message.decode()


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        ("plain", (), "plain"),
        ("%d of %d", (ctypes.c_int(-7), ctypes.c_int(0)), "-7 of 0"),
        ("%lld!", (ctypes.c_longlong(-(2**63)),), "-9223372036854775808!"),
        ("%.3s|%s", (b"abcdef", b"xyz"), "abc|xyz"),
        ("%.9g", (ctypes.c_double(-2.5),), "-2.500000"),
        ("%.9g", (ctypes.c_double(12),), "12"),
        ("%.9g", (ctypes.c_double(0),), "0"),
        ("%.9g", (ctypes.c_double(0.001),), "0.001000"),
        ("%.9g", (ctypes.c_double(1e-7),), "1.000000e-07"),
        ("%.9g", (ctypes.c_double(-2.5e-9),), "-2.500000e-09"),
        ("%.9g", (ctypes.c_double(5e-324),), "4.940656e-324"),
        ("%.9g", (ctypes.c_double(float("nan")),), "nan"),
        ("%.9g", (ctypes.c_double(1e300),), "1e15 or more"),
        ("100%%", (), "100%"),
        ("x" * 300, (), "x" * 255),
    ],
)
def test_its_messages_need_no_printf(small_core, text, values, message):
    assert said(small_core, text, *values) == message
