"""`edgefl report`: a run as one file."""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from board_fixture import records
from edgefl_broker.store import AggregatorStore

from edgefl.board.report import MOST_DEVICES, Devices, report
from edgefl.cli.main import main
from edgefl.history_files import HistoryFiles
from edgefl.history_record import RoundRecord


def written(folder: Path) -> Path:
    folder.mkdir()
    files = HistoryFiles(folder)
    for record in records():
        files.append(record)
    return folder


def data_of(page: Path) -> dict:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_report_has_what_the_records_have(tmp_path: Path, capsys):
    file = tmp_path / "report.html"
    assert main(["report", str(written(tmp_path / "river-pumps")), str(file)]) == 0
    assert "report.html" in capsys.readouterr().out
    seen, all_records = data_of(file), records()
    assert seen["overview"]["summary"]["federation"] == "river-pumps"
    assert seen["overview"]["accuracy"] == all_records[-1].accuracy
    assert "58 of 60 rounds were committed" in seen["overview"]["made_from"]
    assert seen["curves"]["round"] == list(range(1, 61))
    devices = {device["id"]: device for device in seen["devices"]["devices"]}
    assert set(devices) == {name for record in all_records for name in record.devices + list(record.missed)}
    last = all_records[-1]
    assert all(devices[name]["counted"] == 60 for name in last.devices)
    assert devices["pi-19"]["problem"] == "no sign of life since round 51"
    assert not seen["overview"].get("live") and not seen["overview"].get("actions")


def test_a_report_says_what_the_best_model_took():
    rounds = [msgspec.structs.replace(r, elapsed_s=60.0 * r.round, joules=(1.0, 2.0)) for r in records()]
    best = max(rounds, key=lambda record: (record.has_new_model, record.accuracy or 0.0))
    found = report("pumps", rounds, None, 0.0)
    assert f"{best.accuracy:.4f}, came with round {best.round}, after " in found["overview"].made_from
    assert f"{best.round:.3g} to {2 * best.round:.3g} J" in found["overview"].made_from
    assert found["curves"].joules_high == [2.0] * 60


def test_a_report_of_an_aggregator_has_its_federations_name(tmp_path: Path):
    folder = written(tmp_path / "edgefl-aggregator")
    with closing(AggregatorStore(folder)) as store:
        store.resume("plan", np.zeros(3, np.float32))
        store.write("federation", "river-pumps")
    assert main(["report", str(folder), str(tmp_path / "r.html")]) == 0
    assert data_of(tmp_path / "r.html")["overview"]["summary"]["federation"] == "river-pumps"


def test_a_report_of_a_simulation(tmp_path: Path):
    run = ["simulate", "--model", "mlp:64-16-10", "--data", "digits", "--devices", "6", "--rounds", "3"]
    assert main([*run, "--out", str(tmp_path / "run")]) == 0
    assert main(["report", str(tmp_path / "run"), str(tmp_path / "r.html")]) == 0
    seen = data_of(tmp_path / "r.html")
    assert [v["version"] for v in seen["versions"]["versions"]] == [3, 2, 1]
    assert "codec" in seen["overview"]["made_from"].lower()


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_without_a_run_is_said(tmp_path: Path, capsys, name: str):
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / name), str(tmp_path / "r.html")]) == 2
    assert "has no history.jsonl" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capsys):
    assert main(["report", str(written(tmp_path / "run")), str(tmp_path / "no" / "r.html")]) == 2
    assert "can't write" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as somebody else")
def test_root_reads_a_folder_as_its_owner(tmp_path: Path, capsys):
    """The folder's user may have put a link there to a file that it may not read."""
    folder = written(tmp_path / "run")
    secret = tmp_path / "secret"
    secret.write_bytes(msgspec.json.encode(records()[0]) + b"\n")
    secret.chmod(0o600)
    (folder / "history.jsonl").unlink()
    (folder / "history.jsonl").symlink_to(secret)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path.stat().st_mode & 0o005 != 0o005 and path.is_relative_to("/tmp"):
            path.chmod(path.stat().st_mode | 0o005)
    os.chown(folder, 65534, 65534)
    assert main(["report", str(folder), str(tmp_path / "r.html")]) != 0
    assert not (tmp_path / "r.html").exists()


def test_a_report_of_a_huge_fleet_is_bounded():
    devices = Devices()
    fleet = [f"d{i:06}" for i in range(2 * MOST_DEVICES)]
    devices.add(RoundRecord(1, "committed", 1, len(fleet), fleet, 10, 0.1, 10, 10, 1.0))
    assert len(devices.page().devices) == MOST_DEVICES
    many = [RoundRecord(1, "committed", 1, len(fleet), fleet, 10, 0.1, 10, 10, 1.0)]
    assert f"Only the first {MOST_DEVICES} devices" in report("f", many, None, 0.0)["overview"].made_from
    assert "Only" not in report("f", records(), None, 0.0)["overview"].made_from
    assert len(msgspec.json.encode(report("f", records(), None, 0.0))) < 100_000
