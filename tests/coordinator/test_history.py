"""Records and history: old ones are read, long ones are small, sums are right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgefl.errors import UsageError
from edgefl.history import History
from edgefl.history_files import read_records
from edgefl.history_record import RoundRecord
from edgefl.history_text import scores, times_smaller

OLD = (
    b'{"round":1,"state":"committed","version":1,"reported":2,"devices":["a","b"],"num_examples":8,"train_loss":0.5,'
    b'"bytes_up":900,"bytes_down":1000,"seconds":1.5,"accuracy":0.5,"loss":null}'
)


def record(round: int = 1, devices: int = 2) -> RoundRecord:
    traffic = {f"dev-{i:04d}": (1000 + i, 2000 + i) for i in range(devices)}
    up, down = map(sum, zip(*traffic.values(), strict=True))
    by_device = msgspec.Raw(msgspec.json.encode(traffic))
    return RoundRecord(
        round, "committed", round, devices, sorted(traffic), 8, 0.5, up, down, 1.5, float32_bytes=4000 * devices,
        by_device=by_device,
    )  # fmt: skip


def test_a_record_of_before_devices_were_told_apart_is_read():
    old = msgspec.json.decode(OLD, type=RoundRecord)
    assert (old.bytes_up, old.traffic, old.float32_bytes) == (900, {}, 0)
    assert History(np.zeros(1), [old]).final.float32_bytes == 0


def test_a_record_survives_its_file(tmp_path: Path):
    path = tmp_path / "history.jsonl"
    assert read_records(path) == []
    lines = [msgspec.json.encode(record(n)) + b"\n" for n in (1, 2)]
    path.write_bytes(b"".join(lines) + lines[0][:20])  # the third is being written
    read = read_records(path)
    assert read == [record(1), record(2)]
    assert read[1].traffic == {"dev-0000": (1000, 2000), "dev-0001": (1001, 2001)}


def test_json_is_a_line_for_each_round_and_adds_up():
    text = History(np.zeros(1), [record(1), record(2)]).to_json()
    told = json.loads(text)
    assert text.count(b"\n") == 5
    assert [r["traffic"]["dev-0001"] for r in told["rounds"]] == [[1001, 2001]] * 2
    assert told["final"]["bytes_up"] == 2 * 2001
    assert told["final"]["float32_bytes"] == 2 * 8000
    assert json.loads(History(np.zeros(1)).to_json())["rounds"] == []


def test_a_round_of_ten_thousand_devices_is_a_third_of_a_megabyte():
    large = record(devices=10_000)
    assert len(large.by_device) < 250_000
    assert len(msgspec.json.encode(large)) < 350_000


def test_scores_are_those_that_there_are():
    told = msgspec.structs.replace(record(), device_accuracy=0.5, device_loss=0.25, loss=1.0)
    assert scores(told, ", ") == ", loss 1, device accuracy 0.5000, device loss 0.25"
    assert scores(record(), ", ") == scores(History(np.zeros(1), [record()]).final, ", ") == ""


def test_the_ratio_is_to_float32():
    assert [times_smaller(4000, real) for real in (100, 4400)] == [" (40x)", " (0.91x)"]
    assert times_smaller(4000, 0) == times_smaller(0, 100) == ""


def run() -> History:
    """Two committed rounds, the second with accuracies, and one that was abandoned."""
    second = msgspec.structs.replace(record(2), accuracy=0.75, loss=0.5, device_examples=9, device_accuracy=0.5)
    third = msgspec.structs.replace(record(3), state="abandoned", reported=0)
    return History(np.zeros(1, np.float32), [record(1), second, third])


def test_repr_is_one_line_that_says_how_it_went():
    text = repr(run())
    assert text.startswith(
        "<History: 2 of 3 rounds committed, accuracy 0.7500, loss 0.5, device accuracy 0.5000, 6.00 kB"
    )
    assert text.endswith("down>") or text.endswith("x)>")
    assert "\n" not in text
    assert repr(History(np.zeros(1, np.float32))) == "<History: 0 of 0 rounds committed, 0.00 kB up, 0.00 kB down>"


def test_table_has_a_row_for_each_round_and_every_number():
    table = run().to_pandas()
    assert table.index.name == "round" and table.index.tolist() == [1, 2, 3]
    assert table.accuracy.dropna().tolist() == [0.75]
    assert table.bytes_up.sum() == run().final.bytes_up
    assert table.state.tolist() == ["committed", "committed", "abandoned"]
    assert {*RoundRecord.__struct_fields__} - {*table.columns} == {
        "round", "devices", "folded", "by_device", "cohort", "missed", "by_time", "by_loss", "budgets", "refused",
        "barred",
        "lowered", "by_influence", "helped",
    }  # fmt: skip
    assert len(History(np.zeros(1)).to_pandas()) == 0


def test_plot_draws_what_is_known_and_writes_a_file(tmp_path):
    figure = run().plot(tmp_path / "curve.png", "a run")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    left, right = figure.axes
    assert left.get_title() == "a run"
    assert [bar.get_height() for bar in left.patches] == [2, 2, 0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in right.lines}
    assert lines == {"test accuracy": [[2, 0.75]], "accuracy on devices": [[2, 0.5]]}
    assert not History(np.zeros(1)).plot().axes[1].lines
    own = [msgspec.structs.replace(record, personal_accuracy=0.9) for record in run().rounds[:1]]
    assert [line.get_label() for line in History(np.zeros(1), own).plot().axes[1].lines][-1] == "of their own models"


@pytest.mark.parametrize("path", [5, b"x", "a\0b", "no/such/curve.png", "curve.nope"])
def test_a_file_that_can_not_be_drawn_is_wrong_use(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"path is |can't draw "):
        run().plot(path)


@pytest.mark.parametrize("accuracy", ["x", None, True])
def test_an_accuracy_is_a_number(accuracy):
    with pytest.raises(UsageError, match=r"accuracy is .*: give a number"):
        run().rounds_to(accuracy)


@pytest.mark.parametrize(("module", "call", "says"), [
    ("pandas", History.to_pandas, "needs pandas: pip install pandas"),
    ("matplotlib.figure", History.plot, r"needs matplotlib: pip install edgefl-toolkit\[demo\]"),
])  # fmt: skip
def test_what_is_missing_is_named(monkeypatch, module, call, says):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=says):
        call(run())
