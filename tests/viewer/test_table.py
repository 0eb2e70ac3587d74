"""`edgefl status` as an operator reads it, at 80 and 120 characters, and on a narrow phone."""

from __future__ import annotations

import msgspec
import pytest

from edgefl.protocol.fleet import (
    Adaptive,
    DeviceRow,
    FleetPage,
    OpenRound,
    PastRound,
    Spent,
    Summary,
    encode_page,
    encode_summary,
)
from edgefl.protocol.topics import Topics
from edgefl.protocol.trouble import CODES, REMEDIES
from edgefl.viewer.picture import Picture
from edgefl.viewer.remedy import problem, remedy
from edgefl.viewer.table import in_order, render
from edgefl.viewer.words import ago, amount, span

NOW = 1_700_000_000
TOPICS = Topics("pond")
ROWS = [
    DeviceRow("pi-01", "ready", since=NOW - 90000, seen=NOW - 4, examples=1437, counted=11, times=11,
              bytes_up=12_345_678, bytes_down=4_321_000, agent="0.2.0", model=10, celsius=47),
    DeviceRow("pi-02", "trouble", "data", "its data can't be used: row 13, column 'vibration': a text where a "
              "number is expected", since=NOW - 7300, seen=NOW - 7300, examples=0, agent="0.2.0"),
    DeviceRow("pi-03", "lost", since=NOW - 400, seen=NOW - 420, examples=900, counted=9, times=4, bytes_up=900,
              missed="no update since round 9", agent="0.1.0", model=8),
    DeviceRow("pi-04", "absent"),
    DeviceRow("pi-05", "paused", "hours", "outside 22:00-06:00", since=NOW - 60, seen=NOW - 60, examples=12),
    DeviceRow("pi-06", "ready", seen=NOW - 3, examples=50, barred="in quarantine since round 7: more examples than the "
              "device may claim"),
]  # fmt: skip
SUMMARY = Summary(
    "pond", "0" * 16, NOW - 3, "open", 12, 11, 1, 6, 2, {"absent": 1, "lost": 1, "paused": 1, "ready": 2, "trouble": 1},
    barred=1, open=OpenRound(12, 11, "train", NOW - 20, NOW + 40, 1, 2, ["pi-02", "pi-03"], 1, 2000),
    advice=["1 device is in quarantine or muted: find out why, then let it in with `edgefl release NAME`"],
    troubled=[ROWS[5], ROWS[1], ROWS[2], ROWS[3]],
    last=[PastRound(11, "committed", 11, 1, 3, 12.5, 2000, 900, 0.97125, 0.1234567, NOW - 25),
          PastRound(10, "abandoned", 10, 0, 3, 480.0, closed_at=NOW - 60,
                    why="0 of 2 reports (pi-03: lost 3 min ago)")],
    pages=1,
)  # fmt: skip


def picture(summary=SUMMARY, rows=ROWS, root=None) -> Picture:
    made = Picture("pond", TOPICS, root)
    made.hear(TOPICS.summary, encode_summary(summary))
    made.hear(TOPICS.fleet(0), encode_page(FleetPage(0, NOW - 10, list(rows))))
    assert made.complete
    return made


def text(width: int, made=None, now=NOW) -> str:
    made = made or picture()
    return "\n".join(render(made, now, width, in_order(made.devices, made.summary.troubled)))


AT_80 = """\
federation pond: round 12 is open, 1 of 3 counted, 40 s left; model version 11
  (3 s ago)
6 devices: 2 ready, 1 absent, 1 lost, 1 paused, 1 trouble; 1 barred
waits for pi-02, pi-03; asks 1 more, and does not wait for them
1 device is in quarantine or muted: find out why, then let it in with `edgefl
  release NAME`
"""


def test_80_characters_hold_what_matters_and_every_reason_with_its_remedy():
    shown = text(80)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith(AT_80)
    lines = shown.splitlines()
    table = lines[lines.index("") + 1 :]
    assert table[0].split()[:7] == ["DEVICE", "STATE", "SEEN", "ROUND", "EXAMPLES", "UP", "DOWN"]
    firsts = [line.split()[0] for line in table if line.startswith("pi-")]
    assert firsts == ["pi-06", "pi-02", "pi-03", "pi-04", "pi-01", "pi-05"]  # those that need an operator first
    joined = " ".join(shown.split())
    assert "row 13, column 'vibration'" in joined and f"-> {REMEDIES['data']}" in joined
    assert "edgefl release pi-06" in joined and "outside 22:00-06:00" in joined
    assert "0 of 2 reports (pi-03: lost 3 min ago)" in joined and "0.9712" in joined


def test_a_round_that_lacks_reports_says_why_it_stays_open():
    """Its devices have all reported, and fewer of them than min_reports."""
    short = msgspec.structs.replace(SUMMARY.open, counted=1, waiting=0, waits_for=[], skipped=0)
    shown = text(120, picture(msgspec.structs.replace(SUMMARY, open=short)))
    assert "1 of 1 counted" in shown and "it stays open until enough others do" in " ".join(shown.split())


def test_a_round_of_which_nobody_is_waited_for_has_no_reports():
    """All devices have refused it."""
    none = msgspec.structs.replace(SUMMARY.open, counted=0, waiting=0, waits_for=[], skipped=0)
    shown = text(120, picture(msgspec.structs.replace(SUMMARY, open=none)))
    assert "no device is at work on it" in shown and "have reported" not in shown


def test_what_the_next_round_waits_for_is_not_guessed():
    """It may wait for devices, its helpers or its operator: the advice says which."""
    waits = msgspec.structs.replace(SUMMARY, phase="waiting", open=None, opens_at=0)
    assert "round 12 waits: see below" in text(120, picture(waits))
    assert "when enough devices are there" in text(120, picture(msgspec.structs.replace(waits, advice=[])))


def test_what_privacy_was_spent_is_shown():
    spent = msgspec.structs.replace(SUMMARY, privacy=Spent(3.14159, 1e-5, 11, 8.0))
    assert "privacy: epsilon 3.14 of 8 spent after round 11 (delta 1e-05)" in text(120, picture(spent))
    unbounded = msgspec.structs.replace(SUMMARY, privacy=Spent(3.0, 1e-5, 11))
    assert "privacy: epsilon 3 spent after round 11 (delta 1e-05)" in text(120, picture(unbounded))
    assert "epsilon" not in text(120)


def test_a_clip_that_moves_is_shown():
    moving = msgspec.structs.replace(SUMMARY, adaptive=Adaptive(0.83214, 0.5, 0.62))
    shown = (
        f"clip: 0.8321 in round {SUMMARY.round} (62% of the last updates were no longer than theirs; 50% are aimed at)"
    )
    assert shown in text(120, picture(moving))
    first = msgspec.structs.replace(SUMMARY, adaptive=Adaptive(2.0, 0.5))
    assert f"clip: 2 in round {SUMMARY.round} (50% are aimed at)" in text(120, picture(first))
    assert "clip" not in text(120)


def test_120_characters_hold_all_columns():
    shown = text(120)
    assert max(map(len, shown.splitlines())) <= 120
    for word in ("SINCE", "TIMES", "AGENT", "MODEL", "TEMP", "12.3 MB", "47 °C", "0.2.0", "25 h"):
        assert word in shown


def test_rounds_tell_how_many_devices_keep_a_model_of_their_own_and_how_good_that_is():
    told = PastRound(12, "committed", 12, 8, 9, 12.5, 2000, 900, device_accuracy=0.8125, personal=8, own=5,
                     personal_accuracy=0.9375, personal_loss=0.25)  # fmt: skip
    shown = text(200, picture(msgspec.structs.replace(SUMMARY, last=[told])))
    assert "KEEP OWN" in shown and "5/8" in shown and "0.9375" in shown and "PERSONAL LOSS" in shown
    assert "KEEP OWN" not in text(200), "no device told of one"


@pytest.mark.parametrize("width", [1, 60, 73, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width):
    rows = [DeviceRow("d" * 64, "ready"), *ROWS]
    assert max(map(len, text(width, picture(rows=rows)).splitlines())) <= max(60, width)


def test_a_summary_that_is_old_is_flagged_and_one_that_is_the_last_is_not():
    assert "STALE" not in text(120, now=NOW + 150)
    old = text(120, now=NOW + 600)
    assert "STALE" in old and "10 min" in old and "edgefl-aggregator" in old
    for phase, words in (("done", "the federation has ended"), ("stopped", "the aggregator was stopped")):
        last = picture(msgspec.structs.replace(SUMMARY, phase=phase))
        assert "STALE" not in text(120, last, NOW + 9000) and words in text(120, last)


def test_every_code_has_a_meaning_and_what_an_operator_does_about_trouble_is_said():
    assert set(REMEDIES) <= set(CODES)
    owners = {"hours", "power", "metered", "busy"}  # nothing to be done: the owner wishes it
    passing = {"rests"}
    assert set(CODES) - set(REMEDIES) == owners | passing
    for code in CODES:
        row = DeviceRow("a", "trouble", code)
        assert problem(row) and (remedy(row) or code in owners | passing)
    assert problem(DeviceRow("a", "ready")) == remedy(DeviceRow("a", "ready")) == ""
    assert "edgefl resume a" in remedy(DeviceRow("a", "ready", paused="winter"))


def test_times_and_sizes_are_short():
    assert [span(s) for s in (0, 59, 119, 120, 10799, 10800, 259199, 259200)] == [
        "0 s", "59 s", "119 s", "2 min", "179 min", "3 h", "71 h", "3 d"
    ]  # fmt: skip
    assert ago(0, NOW) == "-" and ago(NOW + 5, NOW) == "0 s"
    assert [amount(n) for n in (0, 999, 1000, 12345, 999_499, 10**6, 1234 * 10**9)] == [
        "", "999 B", "1 kB", "12.3 kB", "999 kB", "1 MB", "1234 GB"
    ]  # fmt: skip


def test_what_anybody_has_written_on_an_open_broker_steers_no_terminal():
    rows = [DeviceRow("a", "rea\x07dy", reason="\x1b]0;x\x07\x9b", barred="\x1b[31m", agent="\x1b")]
    made = picture(msgspec.structs.replace(SUMMARY, federation="\x1b[2J", advice=["\x1b[2J\nfake"], phase="\x1b"), rows)
    assert all(line.isprintable() for line in render(made, NOW, 80, made.devices))
