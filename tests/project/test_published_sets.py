"""`edgefl new` with a published data set: its path is whole in every SPEC, and its labels are the reader's."""

from __future__ import annotations

import json

import numpy as np

from edgefl.data import READERS, load
from edgefl.data.cifar10 import LABELS
from edgefl.project.sample import absolute, read_sample


def test_a_set_that_has_names_for_its_labels(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    records = np.zeros((20, 3073), np.uint8)
    records[:, 0] = np.arange(20) % 10
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records.tofile(folder / f"{name}.bin")
    monkeypatch.chdir(tmp_path)
    sample = read_sample("cifar10:cifar-10-batches-bin", ["pi-1"])
    assert sample.labels == LABELS and sample.examples.outputs == 10 and sample.examples.shape == (3, 32, 32)
    assert absolute(sample.spec) == f"cifar10:{folder}"
    assert load(absolute(sample.spec)).labels == LABELS


def test_roles_of_a_play(tmp_path):
    path = tmp_path / "roles.jsonl"
    path.write_text(json.dumps({"play": "p", "role": "A", "speeches": ["abc " * 60, "def " * 60]}) + "\n")
    sample = read_sample(f"shakespeare:{path}", ["pi-1"])
    assert sample.examples.steps and sample.examples.tokens and sample.examples.shape == (80,)


def test_every_kind_that_names_a_path_gets_it_from_the_root():
    for kind in set(READERS) - {"digits", "python"}:
        assert absolute(f"{kind}:a/b?x=1").startswith(f"{kind}:/")
    assert absolute("digits") == "digits" and absolute("python:a:b") == "python:a:b"
