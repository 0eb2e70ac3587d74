"""A federation for tests of the board, that looks as a real one does after 60 rounds."""

from __future__ import annotations

import math
import random

from edgefl.board import views
from edgefl.board.rounds import Past
from edgefl.history_record import RoundRecord
from edgefl.protocol.fleet import DeviceRow, OpenRound, PastRound, Summary

NOW = 1_782_000_000
MISSING = "data.csv: column 'weight' is missing; the columns are mass, speed, label"


def rows(n: int = 42) -> list[DeviceRow]:
    rng = random.Random(1)
    out = []
    for i in range(1, n + 1):
        state, extra = ("training" if i % 9 == 4 else "ready"), {}
        if i == 7:
            state, extra = "trouble", {"code": "data", "reason": f"its data can't be used: {MISSING}"}
        if i == 12:
            extra = {"barred": "in quarantine: 3 signed updates of rounds 55 to 58 had NaN or infinity in them"}
        if i == 19:
            state, extra = "lost", {"missed": "no sign of life since round 51"}
        if i == 23:
            state, extra = "paused", {"code": "heat", "reason": "78 °C, its owner allows 75 °C"}
        if i == 31:
            extra = {"paused": "by the operator"}
        if i == 40:
            out.append(DeviceRow("pi-40", "absent"))
            continue
        out.append(
            DeviceRow(
                f"pi-{i:02}", state, since=NOW - 4000, seen=NOW - (9000 if state == "lost" else rng.randrange(40)),
                examples=rng.randrange(400, 4000), counted=60 - rng.randrange(3), times=rng.randrange(40, 60),
                bytes_up=rng.randrange(200_000, 500_000), bytes_down=2_000_000, agent="0.1.0", model=60,
                celsius=rng.randrange(44, 66), **extra,
            )
        )  # fmt: skip
    return out


def records(rounds: int = 60) -> list[RoundRecord]:
    rng, out, version = random.Random(2), [], 0
    names = [row.id for row in rows()]
    for r in range(1, rounds + 1):
        bad = r in (17, 41)
        version += not bad
        who = rng.sample(names, 0 if bad else rng.randrange(8, 11))
        n, loss = len(who), 2.2 * math.exp(-r / 12) + 0.07
        accuracy = 0.98 - 0.85 * math.exp(-r / 9) + rng.gauss(0, 0.004)
        held_out = {"device_accuracy": accuracy - 0.012 + rng.gauss(0, 0.004), "device_loss": loss + 0.04}
        own = {
            "personal": n,
            "own": n // 2,
            "personal_accuracy": min(0.99, accuracy + 0.01),
            "personal_loss": loss - 0.02,
        }
        scores = {"accuracy": accuracy, "loss": loss, "device_examples": 100, **held_out, **own}
        scores = {} if bad else scores
        out.append(
            RoundRecord(
                r, "abandoned" if bad else "committed", version, n, who, 1000 * n, None if bad else loss - 0.05,
                n * 8400 + rng.randrange(900), n * (31000 if r < 5 else 12500), 30 if bad else rng.uniform(4, 11),
                **scores, closed_at=NOW - (rounds - r) * 60 - 20,
                why="2 of 10 devices reported, and min_reports is 5: 8 were silent" if bad else "",
                missed={"pi-19": "no sign of life since round 51", "pi-07": "in trouble (data)"} if r > 51 else {},
            )
        )  # fmt: skip
    return out


def past() -> Past:
    made = Past()
    for record in records():
        made.add(record)
    return made


def summary() -> Summary:
    all_rows, last = rows(), past().rounds(limit=1).rounds[0]
    states: dict[str, int] = {}
    for row in all_rows:
        states[row.state] = states.get(row.state, 0) + 1
    troubled = [row for row in all_rows if views.tone(row) in ("bad", "gone")]
    newest = PastRound(
        60, last.state, last.version, last.reported, 12, 5.0, last.bytes_up, last.bytes_down, last.accuracy, last.loss
    )
    return Summary(
        "river-pumps", "0123456789abcdef", NOW, "open", 61, 58, 3, 42, 37, states, 1, 1,
        OpenRound(61, 58, "train", NOW - 4, NOW + 26, 6, 4, ["pi-04", "pi-13", "pi-22", "pi-35"], 2, 52_000),
        troubled=troubled, last=[newest], pages=1, edgefl="0.1.0",
    )  # fmt: skip


def board() -> dict[str, object]:
    made, all_rows = past(), rows()
    newest = made.newest
    assert newest is not None
    overview = views.overview(summary(), float(NOW), newest, connected=True)
    kept = [made.version(v) for v in range(58, 48, -1)]
    return {
        "overview": overview, "devices": views.devices(all_rows, limit=200), "rounds": made.rounds(),
        "curves": made.curves(), "versions": views.Versions(kept),
    }  # fmt: skip
