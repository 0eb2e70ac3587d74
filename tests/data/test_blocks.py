"""Several arrays as columns of one x or y, in npz files and in Python, in the order of the model's inputs."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.core.plan import UNSET, Head, Input, Node, Param, Plan
from edgefl.data import Dataset, fit_plan, load
from edgefl.errors import DataError, UsageError

N = 20
RNG = np.random.default_rng(0)
PICTURE, WORDS = RNG.normal(size=(N, 2, 3)), RNG.integers(0, 9, (N, 4))
KIND, AGE = RNG.integers(0, 3, N), RNG.normal(size=(N, 2))


def plan(inputs=("words", "picture"), losses=UNSET):
    shapes = {"words": [4], "picture": [2, 3]}
    declared = [Input(name, shapes[name], "int64" if name == "words" else "float32") for name in inputs]
    nodes, params = [Node("dense", [0], [0]), Node("dense", [1], [1])], [Param("w", [10, 3]), Param("v", [3, 5])]
    return Plan([10], nodes, params, "cross_entropy", 1, 2, inputs=declared, losses=losses)


def columns(*arrays):
    return np.concatenate([np.asarray(array).reshape(len(array), -1) for array in arrays], axis=1).astype(np.float32)


def test_npz_has_an_array_for_each_input(tmp_path):
    np.savez(tmp_path / "d.npz", **{"x.picture": PICTURE, "x.words": WORDS, "y.age": AGE, "y.kind": KIND})
    found = load(f"npz:{tmp_path / 'd.npz'}", test_fraction=0)
    assert found.x_train.shape == (N, 10) and [block.name for block in found.inputs] == ["picture", "words"]
    heads = [Head("kind", "cross_entropy", 1, 1.0, [3]), Head("age", "mse", 2, 1.0, [2])]
    fitted = fit_plan(found, plan(losses=heads))
    np.testing.assert_array_equal(fitted.x_train, columns(WORDS, PICTURE))
    np.testing.assert_array_equal(fitted.y_train, columns(KIND, AGE))
    assert fit_plan(fitted, plan(losses=heads)).x_train is not None, "once is enough"


def test_held_out_examples_are_ordered_too():
    found = Dataset({"picture": PICTURE, "words": WORDS}, KIND, {"words": WORDS[:3], "picture": PICTURE[:3]}, KIND[:3])
    fitted = fit_plan(found, plan())
    np.testing.assert_array_equal(fitted.x_test, columns(WORDS[:3], PICTURE[:3]))
    np.testing.assert_array_equal(fitted.x_train, columns(WORDS, PICTURE))


def test_rows_without_names_are_columns_in_the_order_of_the_inputs():
    x = columns(WORDS, PICTURE)
    assert fit_plan(Dataset(x, KIND), plan()).x_train.shape == (N, 10)


@pytest.mark.parametrize(
    ("x", "says"),
    [
        ({"picture": PICTURE, "word": WORDS}, "arrays picture, word, and the model takes words, picture"),
        ({"picture": PICTURE, "words": WORDS[:, :3]}, "x.words has 3 values an example, and the model takes 4"),
    ],
)
def test_names_and_widths_are_compared(x, says):
    with pytest.raises(DataError, match=says):
        fit_plan(Dataset(x, KIND), plan())


def test_lengths_are_compared():
    with pytest.raises(DataError, match="differ in length"):
        Dataset({"picture": PICTURE, "words": WORDS[:3]}, KIND)


def test_a_bad_row_is_left_out_of_all_arrays(tmp_path):
    picture = PICTURE.copy()
    picture[4, 0, 0] = np.inf
    np.savez(tmp_path / "d.npz", **{"x.picture": picture, "x.words": WORDS, "y": KIND})
    found = load(f"npz:{tmp_path / 'd.npz'}?bad=0.5", test_fraction=0)
    np.testing.assert_array_equal(fit_plan(found, plan()).x_train, np.delete(columns(WORDS, PICTURE), 4, axis=0))


def test_a_folder_of_npz_files_has_them_too(tmp_path):
    for name, rows in (("a", slice(0, 8)), ("b", slice(8, N))):
        parts = {"x.words": WORDS, "x.picture": PICTURE, "y": KIND}
        np.savez(tmp_path / f"{name}.npz", **{key: array[rows] for key, array in parts.items()})
    found = fit_plan(load(f"folder:{tmp_path}", test_fraction=0), plan())
    np.testing.assert_array_equal(found.x_train, columns(WORDS, PICTURE))
    np.testing.assert_array_equal(found.y_train, KIND)


def test_windows_of_several_arrays_are_refused_and_keep_the_names_of_targets(tmp_path):
    """Columns of two inputs would alternate in a window, and the targets be in the file's order."""
    rows = {"y.age": AGE, "y.kind": KIND}
    np.savez(tmp_path / "d.npz", **{"x.picture": PICTURE, "x.words": WORDS, **rows})
    with pytest.raises(UsageError, match=r"x\.picture, x\.words: save windows of each"):
        load(f"npz:{tmp_path / 'd.npz'}?window=4", test_fraction=0)
    np.savez(tmp_path / "one.npz", x=columns(WORDS)[:, :2], **rows)
    found = load(f"npz:{tmp_path / 'one.npz'}?window=5", test_fraction=0)
    heads = [Head("kind", "cross_entropy", 1, 1.0, [3]), Head("age", "mse", 2, 1.0, [2])]
    fitted = fit_plan(found, plan(inputs=(), losses=heads))
    np.testing.assert_array_equal(fitted.y_train, columns(KIND, AGE)[4::5])


def test_public():
    assert edgefl.data.fit_plan is fit_plan
