"""npz:, python:, mnist: and digits, the readers of arrays."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys

import numpy as np
import pytest

from edgefl.data import load
from edgefl.errors import DataError, UsageError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    """IDX bytes of a uint8 array."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A folder of four tiny IDX files, two of them gzipped: 6 and 2 images of 2x3."""
    images = np.arange(48, dtype=np.uint8).reshape(8, 2, 3) * 5
    labels = np.arange(8, dtype=np.uint8)
    parts = (images[:6], labels[:6], images[6:], labels[6:])
    for name, part in zip(NAMES, parts, strict=True):
        packed = name.startswith("t10k")
        (tmp_path / (name + ".gz" * packed)).write_bytes(gzip.compress(idx(part)) if packed else idx(part))
    return tmp_path


def test_npz_keys(tmp_path):
    x, y = np.ones((6, 2, 2)), np.arange(6)
    file = tmp_path / "a.npz"
    np.savez_compressed(file, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2], device_train=y % 2, more=["a"])
    data = load(f"npz:{file}")
    assert data.x_train.shape == (6, 2, 2) and data.x_test.shape == (2, 2, 2)
    assert data.device_train.tolist() == [0, 1, 0, 1, 0, 1] and data.name == "a.npz"
    np.savez(file, x_train=x, y_train=y)
    assert load(f"npz:{file}", test_fraction=0).x_test is None


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x_train": np.ones((2, 1)), "labels": np.ones(2)}, "has no 'y_train' but labels, x_train"),
        ({}, "has no 'x' but nothing"),
        ({"x": np.array([[1], [None]], dtype=object), "y": np.ones(2)}, "Object arrays cannot be loaded"),
        ({"x": np.ones((2, 1)), "y": np.ones(3)}, "2 examples and y_train 3"),
        ({"x": np.ones((2, 1)), "y": np.ones(2), "x_test": np.ones((1, 1))}, "both x_test and y_test"),
    ],
)
def test_unusable_npz(tmp_path, arrays, problem):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=problem):
        load(f"npz:{tmp_path}/a.npz")


def test_npz_that_is_none(tmp_path):
    np.savez(tmp_path / "whole.npz", x=np.ones((500, 2)), y=np.ones(500))
    whole = (tmp_path / "whole.npz").read_bytes()
    damaged = whole[:200] + bytes(64) + whole[264:]
    np.save(tmp_path / "bare.npy", np.ones(3))
    for content in (b"", b"text", whole[:-50], damaged, (tmp_path / "bare.npy").read_bytes()):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"numpy\.savez"):
            load(f"npz:{tmp_path}/a.npz")


MODULE = """
import numpy as np
from edgefl.data import Dataset
from edgefl.errors import UsageError
x, y = np.ones((4, 2)), np.arange(4)
def dataset(): return Dataset(x, y, name="mine")
def two(): return x, y
def four(): return x, y, x[:1], y[:1]
def names(): return {"x_train": x, "y_train": y, "device_train": y}
def three(): return x, y, x
def nothing(): pass
def short(): return x, y[:3]
def broken(): return [][1]
def needs(argument): pass
def usage(): raise UsageError("my own words")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """MODULE as an importable file in the working directory, under a name of its own."""
    name = f"module_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("function", ["dataset", "two", "four", "names"])
def test_python_return_values(module, function):
    path = list(sys.path)
    data = load(f"python:{module}:{function}", test_fraction=0)
    assert data.x_train.shape == (4, 2) and data.y_train.tolist() == [0, 1, 2, 3]
    assert (data.x_test is not None) == (function == "four")
    assert (data.device_train is not None) == (function == "names")
    assert sys.path == path


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("three", "returned tuple: return a Dataset"),
        ("nothing", "returned NoneType"),
        ("short", "4 examples and y_train 3"),
        ("broken", "IndexError: list index out of range"),
        ("needs", "TypeError: .*argument"),
        ("absent", "AttributeError: .*absent"),
    ],
)
def test_python_failures_keep_their_cause(module, function, problem):
    with pytest.raises(DataError, match=problem):
        load(f"python:{module}:{function}")


def test_python_module_missing_and_typed_errors(module):
    with pytest.raises(DataError, match=r"ModuleNotFoundError: .*PYTHONPATH"):
        load("python:no_such_module:f")
    with pytest.raises(UsageError, match=r"^my own words$"):
        load(f"python:{module}:usage")


def test_idx_plain_and_gzipped(mnist):
    data = load(f"mnist:{mnist}")
    assert data.x_train.shape == (6, 6) and data.x_test.shape == (2, 6)
    assert data.x_train.dtype == np.float32 and data.x_train[0, 5] == np.float32(25 / 255)
    assert data.y_train.tolist() == [0, 1, 2, 3, 4, 5] and data.y_test.tolist() == [6, 7]
    assert load(f"mnist:{mnist}?shape=1x2x3").x_train.shape == (6, 1, 2, 3)


@pytest.mark.parametrize("shape", ["1x28x28", "6x", "-2x-3", "0", "axb"])
def test_idx_shape_must_hold_an_image(mnist, shape):
    with pytest.raises(UsageError, match=f"shape={shape} does not hold the 6 pixels"):
        load(f"mnist:{mnist}?shape={shape}")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08\x03\0\0\0\x06",
        idx(np.zeros((6, 6), np.uint8)),
        idx(np.zeros((6, 2, 3), np.uint8))[:-1],
        idx(np.zeros((6, 2, 3), np.uint8)) + b"x",
        struct.pack(">4I", 0x0803, *3 * [2**32 - 1]),
        idx(np.zeros((0, 2, 3), np.uint8)),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx_is_refused_by_name(mnist, content, packed):
    (mnist / NAMES[0]).unlink()
    (mnist / (NAMES[0] + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=f"{NAMES[0]}.*fetch it again"):
        load(f"mnist:{mnist}")


def test_truncated_gzip_missing_file_and_uneven_counts(mnist):
    path = mnist / f"{NAMES[2]}.gz"
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DataError, match=f"can't read .*{NAMES[2]}"):
        load(f"mnist:{mnist}")
    path.unlink()
    with pytest.raises(DataError, match=rf"no {NAMES[2]} or {NAMES[2]}\.gz in"):
        load(f"mnist:{mnist}")
    path.write_bytes(gzip.compress(idx(np.zeros((3, 2, 3), np.uint8))))
    with pytest.raises(DataError, match="x_test has 3 examples and y_test 2"):
        load(f"mnist:{mnist}")


def test_writer_ids(mnist):
    with pytest.raises(DataError, match=r"mnist_writer_ids\.npz"):
        load(f"mnist:{mnist}?natural=writers")
    np.savez(mnist / "mnist_writer_ids.npz", writers=np.arange(6))
    with pytest.raises(DataError, match="no 'train_writer'"):
        load(f"mnist:{mnist}?natural=writers")
    np.savez(mnist / "mnist_writer_ids.npz", train_writer=np.arange(5))
    with pytest.raises(DataError, match=r"shape \(6,\)"):
        load(f"mnist:{mnist}?natural=writers")
    np.savez(mnist / "mnist_writer_ids.npz", train_writer=np.arange(6, dtype=np.int16) % 3)
    assert load(f"mnist:{mnist}?natural=writers").device_train.tolist() == [0, 1, 2, 0, 1, 2]
    assert load(f"mnist:{mnist}").device_train is None


def test_the_real_mnist(shared):
    data = load(f"mnist:{shared}/data/mnist?natural=writers")
    assert data.x_train.shape == (60000, 784) and data.x_test.shape == (10000, 784)
    assert data.y_train[0] == 5 and data.y_test[0] == 7
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)
    assert len(np.unique(data.device_train)) == 539


def test_digits():
    pytest.importorskip("sklearn")
    data = load("digits", test_fraction=0)
    assert data.x_train.shape == (1797, 64) and data.x_train.max() == 1
    assert sorted(set(data.y_train.tolist())) == list(range(10))


def test_digits_are_those_of_scikit_learn_also_where_its_file_is_elsewhere(monkeypatch):
    x, y = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    whole = load("digits", test_fraction=0)
    assert np.array_equal(whole.x_train * 16, x) and np.array_equal(whole.y_train, y)
    monkeypatch.setattr("edgefl.data.digits.FILE", "elsewhere.csv.gz")
    again = load("digits", test_fraction=0)
    assert np.array_equal(again.x_train, whole.x_train) and np.array_equal(again.y_train, whole.y_train)
    assert (again.x_train.dtype, again.y_train.dtype) == (whole.x_train.dtype, whole.y_train.dtype)


def test_digits_without_scikit_learn(monkeypatch):
    for name in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=r"pip install edgefl-toolkit\[demo\]"):
        load("digits")


def test_a_reader_costs_only_its_own_imports():
    code = "import sys, edgefl.data; print(*{'csv', 'sqlite3', 'gzip', 'sklearn', 'pandas'} & set(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert (out.returncode, out.stdout.strip()) == (0, ""), out.stderr
