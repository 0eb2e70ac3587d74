"""Agents whose tables are real ones: what was left out is counted to the operator, and no value leaves the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from brokers import eventually
from daemons import Federation, blobs
from edgefl_agent.data_watch import TELL_S, DataWatch
from edgefl_agent.source import Source

from edgefl import data
from edgefl.device.events import Noticed
from edgefl.profiles import Profile

NAMES = np.array(["fault", "ok", "worn"])
COLUMNS = "csv:{path}?features=a,b,c,d&target=state&missing=mean"


def table(path: Path, seed: int, classes: int = 3, broken: int = 0) -> None:
    """60 rows of text labels with some blanks, and broken ones behind them."""
    x, y = blobs(60, seed)
    y %= classes
    cells = [[*(f"{value:.3f}" for value in row), NAMES[label]] for row, label in zip(x, y, strict=True)]
    for row in range(0, 60, 9):
        cells[row][row % 4] = ""
    lines = ["a,b,c,d,state", *(",".join(row) for row in cells), *["Ann Canary,1,2,3,ok"] * broken]
    path.write_text("\n".join(lines) + "\n")


def test_a_federation_of_real_tables(
    embedded: object, federation: Callable[..., Federation], caplog, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO)
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    for number, (device, classes, broken) in enumerate([("pi-1", 3, 0), ("pi-2", 3, 4), ("pi-3", 2, 0)]):
        table(tmp_path / f"{device}.csv", number, classes, broken)
    labels = {"pi-1": "ok,worn,fault", "pi-2": "ok,worn,fault", "pi-3": "*"}
    for device, given in labels.items():
        fleet.agent(device, f"{COLUMNS.format(path=tmp_path / f'{device}.csv')}&labels={given}")
    aggregator = fleet.aggregator(rounds={"rounds": 3, "deadline_s": 8.0, "min_reports": 2, "expect": 3})
    statuses = aggregator.host.machine.presence.statuses
    eventually(lambda: len(statuses) == 3, 20)
    notice = "4 of 64 rows can't be understood and are left out"
    eventually(lambda: (statuses["pi-2"].code, statuses["pi-2"].reason) == ("data", notice), 20)
    assert statuses["pi-2"].state in ("ready", "training") and statuses["pi-2"].num_examples == 60
    assert statuses["pi-1"].reason == ""
    eventually(lambda: statuses["pi-3"].code == "data", 20)
    told = "its data can't be used: its labels are 2, and the model has 3 classes"
    eventually(lambda: statuses["pi-3"].reason == told, 20)
    assert aggregator.join()
    assert all(set(record.devices) == {"pi-1", "pi-2"} for record in aggregator.host.history.rounds)
    local = [line for line in caplog.messages if "Ann Canary" in line]
    assert len(local) == 1 and "line 62, column 'a'" in local[0], "the device's own log tells the place, once"
    assert "Ann" not in repr(statuses)


def test_counts_that_change_with_each_row_are_told_now_and_then(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.csv", ["a,y", *["1,2"] * 20]
    source = Source(f"csv:{path}?target=y")
    watch = DataWatch(source, None)  # type: ignore[arg-type]

    def read(*more: str) -> None:
        rows.extend(more)
        path.write_text("\n".join(rows) + "\n")
        source.read()

    read()
    assert watch.notice(0.0) is None
    read("x,2")
    assert watch.notice(1.0) == Noticed("1 of 21 rows can't be understood and are left out")
    read("x,2")
    assert watch.notice(2.0) is watch.notice(TELL_S) is None
    assert watch.notice(TELL_S + 1) == Noticed("2 of 22 rows can't be understood and are left out")
    rows[:] = rows[:21]
    read()
    assert watch.notice(TELL_S + 2) == Noticed("")


def test_means_of_the_federation_replace_those_of_the_device(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,y\n1,2\n,3\n3,4\n")
    source = Source(f"csv:{tmp_path}/a.csv?target=y&missing=mean")
    assert source.read().x_train.ravel().tolist() == [1, 2, 3]
    source.fill_with(np.array([10.0]))
    filled = source.read()
    assert filled.x_train.ravel().tolist() == [1, 10, 3]
    source.fill_with(np.array([10.0]))
    assert source.read() is filled


def test_blanks_count_in_no_profile_and_become_the_federations_means(
    embedded: object, federation: Callable[..., Federation], tmp_path: Path
) -> None:
    fleet = federation(embedded.url)  # type: ignore[attr-defined]
    agents = []
    for number in range(2):
        table(tmp_path / f"{number}.csv", number)
        spec = f"{COLUMNS.format(path=tmp_path / f'{number}.csv')}&labels=fault,ok,worn"
        agents.append(fleet.agent(f"pi-{number}", spec))
    aggregator = fleet.aggregator(
        rounds={"rounds": 3, "deadline_s": 20.0, "min_reports": 2, "expect": 2}, features={"standardize": "federated"}
    )
    assert aggregator.join(60)
    profile = Profile.read(fleet.folder / "aggregator")
    assert profile is not None and profile.examples == 120 and profile.version == 1
    cells = [
        data.load(f"{COLUMNS.format(path=tmp_path / f'{n}.csv')}&labels=*", test_fraction=0, gaps=True) for n in (0, 1)
    ]
    x = np.concatenate([part.x_train for part in cells])
    assert [column.count for column in profile.columns] == (~np.isnan(x)).sum(axis=0).tolist() and np.isnan(x).any()
    known = np.nanmean(x, axis=0)
    np.testing.assert_allclose([column.mean for column in profile.columns], known, atol=0.01)
    for number, agent in enumerate(agents):
        filled = agent.host._worker._source.read().x_train
        blank = np.isnan(cells[number].x_train)
        np.testing.assert_allclose(filled[blank], np.broadcast_to(known, blank.shape)[blank], atol=0.01)


def test_a_folder_is_read_again_when_a_file_comes(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,y\n1,2\n")
    source = Source(f"folder:{tmp_path}?target=y")
    first, stamp = source.read(), source.look()
    assert source.read() is first and not source.has_changed()
    (tmp_path / "2.csv").write_text("a,y\n3,4\n")
    assert source.look() != stamp and source.has_changed()
    assert source.read().y_train.tolist() == [2, 4]
