"""A run belongs to its data: where the arrays have changed, it is run again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl.cli.main import main
from edgefl.data import Dataset
from edgefl.data.digest import sha256

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(60, 6)).astype(np.float32), RNG.integers(0, 3, 60)


def write(path: Path, y: np.ndarray) -> None:
    np.savez(path, x_train=X[:40], y_train=y[:40], x_test=X[40:], y_test=y[40:])


@pytest.mark.parametrize("part", ["data", "test data"])
def test_changed_data_are_run_anew_and_the_same_data_are_not(part, tmp_path, capsys):
    write(tmp_path / "data.npz", Y)
    write(tmp_path / "test.npz", Y)
    (tmp_path / "few.toml").write_text(
        f'model = "mlp:6-3"\ndata = "npz:{tmp_path / "data.npz"}"\nfleet = {{ devices = 4 }}\n'
        "rounds = { rounds = 1 }\ncompare = { seeds = 1 }\n"
        f'evaluate = {{ test_data = "npz:{tmp_path / "test.npz"}" }}\n'
    )
    words = ["compare", str(tmp_path / "few.toml"), "--out", str(tmp_path / "out"), "--no-figures", "--jobs", "1"]

    def runs() -> tuple[int, int]:
        """How many were run, and how many there are."""
        assert main(words) == 0
        ran = capsys.readouterr().out.startswith("1 run,")
        return int(ran), len(list((tmp_path / "out" / "runs").glob("*.json")))

    assert runs() == (1, 1)
    changed = tmp_path / ("data.npz" if part == "data" else "test.npz")
    write(changed, (Y + 1) % 3)
    assert runs() == (1, 2)
    write(changed, Y)
    assert runs() == (0, 2)


def test_the_hash_is_of_every_array_its_type_and_its_shape():
    whole = {"x_train": X, "y_train": Y, "x_test": X[:5], "y_test": Y[:5], "device_train": Y}
    hashes = [sha256(Dataset(**whole))]
    for name in ("x_train", "y_train", "x_test", "y_test", "device_train"):
        changed = whole[name].copy()
        changed[-1] = 1 - changed[-1]
        hashes.append(sha256(Dataset(**whole | {name: changed})))
    hashes.append(sha256(Dataset(**whole | {"device_train": None})))
    hashes.append(sha256(Dataset(**whole | {"x_train": X.reshape(60, 2, 3), "x_test": X[:5].reshape(5, 2, 3)})))
    assert len(set(hashes)) == 8
    assert sha256(Dataset(**whole, name="other")) == hashes[0]
    assert sha256(Dataset(**whole | {"x_train": np.asfortranarray(X)})) == hashes[0]
