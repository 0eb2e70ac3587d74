"""Published data sets, read from tiny files in exactly their format; and from the real ones where they are."""

from __future__ import annotations

import gzip
import json
import struct

import numpy as np
import pytest

from edgefl.data import load
from edgefl.data.characters import ALPHABET, tokens
from edgefl.errors import DataError, UsageError


def text_of(row) -> str:
    return "".join(ALPHABET[code] for code in row)


# Fashion-MNIST: the files of MNIST, by the same names


@pytest.fixture
def fashion(tmp_path):
    for part, n in (("train", 5), ("t10k", 2)):
        pixels = np.arange(n * 6, dtype=np.uint8)
        images = struct.pack(">4I", 0x803, n, 2, 3) + pixels.tobytes()
        labels = struct.pack(">2I", 0x801, n) + bytes(range(9, 9 - n, -1))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return tmp_path


def test_fashion_mnist_has_names_for_its_labels(fashion):
    data = load(f"fashion-mnist:{fashion}?shape=1x2x3")
    assert data.name == "fashion-mnist" and data.x_train.shape == (5, 1, 2, 3) and data.x_test.shape == (2, 1, 2, 3)
    assert [data.labels[label] for label in data.y_train[:2]] == ["ankle boot", "bag"]
    assert data.x_train[1, 0, 0, 0] == np.float32(6 / 255)
    with pytest.raises(UsageError, match="fashion-mnist data has no option 'natural'"):
        load(f"fashion-mnist:{fashion}?natural=writers")


# CIFAR-10: one byte of label, then 1024 of red, of green, of blue


def cifar_record(label: int, red: int, green: int, blue: int) -> bytes:
    return bytes([label]) + bytes([red]) * 1024 + bytes([green]) * 1024 + bytes([blue]) * 1024


@pytest.fixture
def cifar(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(cifar_record(number, 255, number, 0) * 2)
    (folder / "test_batch.bin").write_bytes(cifar_record(9, 0, 0, 51))
    return folder


def test_cifar10_in_the_order_of_its_files_and_channels(cifar):
    for where in (cifar, cifar.parent):
        data = load(f"cifar10:{where}")
        assert data.x_train.shape == (10, 3, 32, 32) and data.x_train.dtype == np.float32
        assert data.y_train.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5] and data.y_test.tolist() == [9]
        assert data.labels[9] == "truck"
        np.testing.assert_allclose(data.x_train[4, :, 7, 7], [1, 3 / 255, 0])
        np.testing.assert_allclose(data.x_test[0, :, 31, 0], [0, 0, 0.2], rtol=1e-6)


def test_cifar10_that_is_not_whole_or_not_binary_is_refused(cifar):
    batch = cifar / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin has 6145 bytes, no multiple of 3073: fetch it again"):
        load(f"cifar10:{cifar}")
    batch.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(DataError, match="record 0 has a label above 9"):
        load(f"cifar10:{cifar}")
    batch.rename(cifar / "data_batch_3")  # the name in the Python version
    with pytest.raises(DataError, match="the Python version is pickled and is not read"):
        load(f"cifar10:{cifar}")


# HAR: tables of numbers that blanks separate, one window a line


@pytest.fixture
def har(tmp_path):
    folder = tmp_path / "UCI HAR Dataset"
    names = [f"{kind}_{axis}" for kind in ("body_acc", "body_gyro", "total_acc") for axis in "xyz"]
    for part, subjects, labels in (("train", [1, 1, 3, 30], [5, 1, 6, 2]), ("test", [2, 2], [4, 3])):
        home = folder / part
        (home / "Inertial Signals").mkdir(parents=True)
        (home / f"subject_{part}.txt").write_text("".join(f"{subject}\n" for subject in subjects))
        (home / f"y_{part}.txt").write_text("".join(f"{label}\n" for label in labels))
        rows = [" ".join(f" {row + column / 1000: .7e}" for column in range(561)) for row in range(len(labels))]
        (home / f"X_{part}.txt").write_text("\n".join(rows) + "\n")
        for number, name in enumerate(names):
            rows = [
                " ".join(f"{number + row / 10 + step / 1e4: .7e}" for step in range(128)) for row in range(len(labels))
            ]
            (home / "Inertial Signals" / f"{name}_{part}.txt").write_text("\n".join(rows) + "\n")
    return folder


def test_har_by_subject(har):
    data = load(f"har:{har}")
    assert data.x_train.shape == (4, 561) and data.x_test.shape == (2, 561)
    assert data.y_train.tolist() == [4, 0, 5, 1] and data.labels[5] == "laying"
    assert data.device_train.tolist() == [1, 1, 3, 30]
    assert data.x_train[2, 560] == pytest.approx(2.56)
    assert load(f"har:{har.parent}").x_train.shape == (4, 561)


def test_har_signals_and_all_subjects(har):
    data = load(f"har:{har}?signals=1&subjects=all&test=0")
    assert data.x_train.shape == (6, 9, 128) and data.x_test is None
    assert data.device_train.tolist() == [1, 1, 3, 30, 2, 2]
    assert data.x_train[5, 8, 127] == pytest.approx(8 + 0.1 + 0.0127)  # total_acc_z of the test part's second window


def test_har_that_is_not_whole_is_refused(har):
    y = har / "train" / "y_train.txt"
    y.write_text("5\n1\n6\n")
    with pytest.raises(DataError, match="train has 4 windows, 3 labels and 4 subjects: fetch it again"):
        load(f"har:{har}")
    y.write_text("5\n1\n6\n7\n")
    with pytest.raises(DataError, match="a label that is not 1 to 6"):
        load(f"har:{har}")
    y.write_text("5\n1\nwalking\n2\n")
    with pytest.raises(DataError, match=r"can't read .*y_train\.txt"):
        load(f"har:{har}")
    y.unlink()
    with pytest.raises(DataError, match=r"no .*y_train.txt: give the folder 'UCI HAR Dataset'"):
        load(f"har:{har}")


# Shakespeare by role


def plays(tmp_path, *roles):
    path = tmp_path / "roles.jsonl.gz"
    lines = [json.dumps({"play": "p", "title": "P", "role": role, "speeches": speeches}) for role, speeches in roles]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_windows_of_a_role_cover_its_text_and_each_target_is_the_next_character(tmp_path):
    lines = [f"line {number:02} of the part" for number in range(10)]
    path = plays(tmp_path, ("A", ["\n".join(lines[:7]), "\n".join(lines[7:])]), ("ONE LINE", ["Ay."]))
    data = load(f"shakespeare:{path}?window=30")
    train, test = "\n".join(lines[:8]), "\n".join(lines[8:])
    windows = [(text_of(x), text_of(y)) for x, y in zip(data.x_train, data.y_train, strict=True)]
    assert all(y[:-1] == x[1:] for x, y in windows)
    starts = [train.index(x) for x, _ in windows]
    assert starts == [0, 30, 60, 90, 120, len(train) - 31]  # the last window ends where the text ends
    assert all(train[start : start + 31] == x + y[-1] for start, (x, y) in zip(starts, windows, strict=True))
    assert text_of(data.x_test[0]) + text_of(data.y_test[0])[-1] == test[:31]
    assert set(data.device_train) == {0}  # the other role has one line


def test_a_text_that_is_too_short_is_repeated_in_training_and_left_out_of_the_test(tmp_path):
    path = plays(tmp_path, ("A", ["Ay.", "No."]), ("B", ["Good morrow, sir", "What says my lord?"]))
    data = load(f"shakespeare:{path}?window=12")
    assert [text_of(row) for row in data.x_train] == ["Ay.\nAy.\nAy.\n", "Good morrow,", "d morrow, si"]
    assert {text_of(row) for row in data.x_test} == {"What says my", "says my lord"}
    assert data.device_train.tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="no role has more than 30 characters in its last lines"):
        load(f"shakespeare:{path}?window=30")


def test_targets_of_leaf_and_options(tmp_path):
    path = plays(tmp_path, ("A", ["abcdefgh", "xxxx"]), ("B", ["ijklmnop", "yyyy"]))
    data = load(f"shakespeare:{path}?window=3&step=1&targets=last&roles=1")
    assert [text_of(row) for row in data.x_train] == ["abc", "bcd", "cde", "def", "efg"]
    assert text_of(data.y_train) == "defgh" and data.y_train.ndim == 1
    with pytest.raises(UsageError, match="step=4 skips characters"):
        load(f"shakespeare:{path}?window=3&step=4")


def test_the_alphabet_is_fixed_and_other_characters_are_blanks():
    assert len(ALPHABET) == len(set(ALPHABET)) == 80
    assert text_of(tokens(ALPHABET)) == ALPHABET
    assert text_of(tokens("a$é😀\ud800b")) == "a    b"


@pytest.mark.parametrize("line", ['{"play": "p", "role": "A"}', "not JSON", '{"play": 1, "role": "A", "speeches": []}'])
def test_a_line_that_is_no_role_is_named(tmp_path, line):
    path = tmp_path / "roles.jsonl"
    path.write_text('{"play": "p", "role": "A", "speeches": ["a", "b"]}\n' + line + "\n")
    with pytest.raises(DataError, match=r"line 2 is not a role in JSON"):
        load(f"shakespeare:{path}")


def test_more_windows_than_memory_are_refused_before_they_are_made(shared):
    with pytest.raises(UsageError, match=r"windows of 80 every 1 characters take 2\.8 GB: raise step="):
        load(f"shakespeare:{shared}/data/shakespeare/roles.jsonl.gz?step=1")


def test_shakespeare_is_split_as_mcmahan_split_it(shared):
    data = load(f"shakespeare:{shared}/data/shakespeare/roles.jsonl.gz")
    assert len(np.unique(data.device_train)) == 1217
    assert data.x_train.shape[1:] == data.y_train.shape[1:] == (80,)
    assert 0.18 < len(data.x_test) / (len(data.x_train) + len(data.x_test)) < 0.23
    some = load(f"shakespeare:{shared}/data/shakespeare/roles.jsonl.gz?test_windows=100")
    assert len(some.x_test) == 100 and np.array_equal(some.x_test[1], data.x_test[len(data.x_test) // 100])
    assert np.array_equal(some.x_train, data.x_train)
    sizes = np.bincount(data.device_train)
    assert sizes.min() == 1 and sizes.max() > 400  # far from balanced


# LEAF


def leaf(path, **users):
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = [len(data["y"]) for data in users.values()]
    path.write_text(json.dumps({"users": list(users), "num_samples": counts, "user_data": users}))


def test_leaf_of_numbers(tmp_path):
    home = tmp_path / "femnist"
    leaf(home / "data/train/all_data_0_niid_0_keep_0_train_9.json", f3_1={"x": [[0.0, 1.0], [0.5, 0.25]], "y": [4, 61]})
    leaf(
        home / "data/train/all_data_1_niid_0_keep_0_train_9.json",
        f0_2={"x": [[1, 1]], "y": [0]},
        empty={"x": [], "y": []},
    )
    leaf(home / "data/test/all_data_0_niid_0_keep_0_test_9.json", f3_1={"x": [[1.0, 0.0]], "y": [3]})
    for where in (home, home / "data"):
        data = load(f"leaf:{where}")
        assert data.x_train.tolist() == [[0, 1], [0.5, 0.25], [1, 1]] and data.x_train.dtype == np.float32
        assert data.y_train.tolist() == [4, 61, 0] and data.device_train.tolist() == [0, 0, 1]
        assert data.x_test.tolist() == [[1, 0]]


def test_leaf_of_text(tmp_path):
    leaf(tmp_path / "s.json", hamlet={"x": ["to be", "o be,"], "y": [",", " "]}, ghost={"x": ["Mark "], "y": ["m"]})
    data = load(f"leaf:{tmp_path}/s.json?test=0")
    assert [text_of(row) for row in data.x_train] == ["to be", "o be,", "Mark "] and text_of(data.y_train) == ", m"
    assert data.x_train.dtype == data.y_train.dtype == np.int64
    assert data.device_train.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("users", "problem"),
    [
        ({"a": {"x": [["1", "post", "happy"]], "y": [1]}}, "words .* are not read"),
        ({"a": {"x": ["000001.jpg"], "y": [1]}}, "images .* are not read"),
        ({"a": {"x": [[1, 2], [3]], "y": [1, 0]}}, "not as many numbers"),
        ({"a": {"x": [[1, 2]], "y": [1, 0]}}, "1 x and 2 y"),
        ({"a": {"x": ["ab", "abc"], "y": ["c", "d"]}}, "texts of one length"),
        ({"a": {"x": [[1, 2]], "y": [1]}, "b": {"x": [[1, 2, 3]], "y": [1]}}, "examples have different shapes"),
        ({"a": {"x": [], "y": []}}, "no user has an example"),
        ({"a": {"y": [1]}}, "can't read s.json as JSON of LEAF"),
    ],
)
def test_leaf_that_cannot_be_read(tmp_path, users, problem):
    (tmp_path / "s.json").write_text(json.dumps({"users": list(users), "num_samples": [], "user_data": users}))
    with pytest.raises(DataError, match=problem):
        load(f"leaf:{tmp_path}/s.json")


def test_leaf_lists_a_user_without_data(tmp_path):
    (tmp_path / "s.json").write_text('{"users": ["a"], "user_data": {}}')
    with pytest.raises(DataError, match="has no user_data"):
        load(f"leaf:{tmp_path}/s.json")
