"""Table: a Picture as lines of text, that fit a terminal of any width from 60 characters on. No I/O."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..plural import plural
from ..protocol.fleet import DeviceRow, PastRound, Summary, plain
from .picture import Picture
from .remedy import needs_operator, problem, remedy
from .words import ago, amount, score, span

LEAST = 60  # characters
GAP = 2
NOBODY = "all that it waits for have reported: it stays open until enough others do, or until its time is up"
IDLE = "no device is at work on it: it stays open until enough are, or until its time is up"
OLD_S = 20.0  # pages follow the summary within a minute; from so many seconds on the table says how old it is
NAME = 28  # characters of a device's name; a longer one is cut in the middle


class Column(NamedTuple):
    """`text` is given a row and what time it is."""

    title: str
    text: Callable[[DeviceRow, float], str]
    right: bool = True


COLUMNS = (
    Column("DEVICE", lambda row, now: _cut(row.id), right=False),
    Column("STATE", lambda row, now: _state(row), right=False),
    Column("SEEN", lambda row, now: ago(row.seen, now)),
    Column("ROUND", lambda row, now: str(row.counted or "")),
    Column("EXAMPLES", lambda row, now: str(row.examples or "")),
    Column("UP", lambda row, now: amount(row.bytes_up)),
    Column("DOWN", lambda row, now: amount(row.bytes_down)),
    Column("SINCE", lambda row, now: ago(row.since, now)),
    Column("TIMES", lambda row, now: str(row.times or "")),
    Column("AGENT", lambda row, now: row.agent),
    Column("MODEL", lambda row, now: str(row.model) if row.times else ""),
    Column("TEMP", lambda row, now: "" if row.celsius is None else f"{row.celsius} °C"),
)


def render(picture: Picture, now: float, width: int, rows: Sequence[DeviceRow]) -> list[str]:
    """All lines; `rows` are the devices to show, in their order."""
    summary = picture.summary
    assert summary is not None
    width = max(LEAST, width)
    lines = [*_head(summary, now), *_warnings(picture, summary, now), *summary.advice]
    out = [line for text in lines for line in textwrap.wrap(text, width, subsequent_indent="  ") or [""]]
    if rows:
        old = now - picture.rows_at
        title = f"devices, as they were up to {span(old)} ago:" if picture.rows_at and old >= OLD_S else ""
        out += [title, *_devices(rows, now, width)]
    if summary.last:
        out += ["", *_rounds(summary.last, now, width)]
    return [plain(line) for line in out]  # on an open broker anybody may have written this


def in_order(rows: Sequence[DeviceRow], troubled: Sequence[DeviceRow]) -> list[DeviceRow]:
    """The devices that need an operator first, as the summary orders them; then all others by name."""
    place = {row.id: number for number, row in enumerate(troubled)}
    return sorted(rows, key=lambda row: (place.get(row.id, len(place)), not needs_operator(row), row.id))


def _head(summary: Summary, now: float) -> list[str]:
    age = f"{span(max(0.0, now - summary.at))} ago" if summary.at else "at an unknown time"
    first = f"federation {summary.federation}: {_phase(summary, now)}; model version {summary.version} ({age})"
    states = ", ".join(f"{count} {state}" for state, count in sorted(summary.states.items(), key=_commonest))
    counts = f"{plural(summary.total, 'device')}" + (f": {states}" if states else "")
    counts += f"; {summary.barred} barred" if summary.barred else ""
    counts += f"; {summary.paused} paused by the operator" if summary.paused else ""
    return [first, counts, *_spent(summary), *_clip(summary), *_waits(summary)]


def _spent(summary: Summary) -> list[str]:
    spent = summary.privacy
    if spent is None:
        return []
    of = "" if spent.budget is None else f" of {spent.budget:g}"
    return [f"privacy: epsilon {spent.epsilon:.3g}{of} spent after round {spent.round} (delta {spent.delta:g})"]


def _clip(summary: Summary) -> list[str]:
    moves = summary.adaptive
    if moves is None:
        return []
    told = "" if moves.within is None else f"{moves.within:.0%} of the last updates were no longer than theirs; "
    return [f"clip: {moves.clip:.4g} in round {summary.round} ({told}{moves.quantile:.0%} are aimed at)"]


def _commonest(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _phase(summary: Summary, now: float) -> str:
    open, number = summary.open, summary.round
    if open is not None and summary.phase == "open":
        asked = open.counted + open.waiting
        text = f"round {number} is open, {open.counted} of {asked} counted"
        return text + (f", {span(max(0.0, open.closes - now))} left" if open.closes else "")
    if summary.phase == "waiting":
        if summary.opens_at:
            return f"round {number} opens in {span(max(0.0, summary.opens_at - now))}"
        return f"round {number} " + ("waits: see below" if summary.advice else "opens when enough devices are there")
    words = {
        "unmasking": f"round {number} waits for its helpers",
        "evaluating": f"round {number} is being evaluated", "judging": f"canaries judge the model of round {number}",
        "done": "the federation has ended", "stopped": "the aggregator was stopped",
    }  # fmt: skip
    return words.get(summary.phase, f"round {number}, {summary.phase}")


def _waits(summary: Summary) -> list[str]:
    open = summary.open
    if open is None or summary.phase != "open":
        return []
    more = open.waiting - len(open.waits_for)
    names = ", ".join(open.waits_for) + (f" and {more} more" if more > 0 else "")
    text = f"waits for {names}" if names else NOBODY if open.counted else IDLE
    return [text + (f"; asks {open.skipped} more, and does not wait for them" if open.skipped else "")]


def _warnings(picture: Picture, summary: Summary, now: float) -> list[str]:
    out = []
    if picture.is_stale(now):
        out.append(
            f"STALE: the aggregator writes at least every {summary.every} s, and has not for "
            f"{span(now - summary.at)}: it is gone, or its connection is: systemctl status edgefl-aggregator"
        )
    if picture.sealed and not picture.verified:
        out.append("not verified: the federation signs this, and no [keys] dir with its root.pub is set")
    if picture.why_not:
        out.append(f"dropped: {picture.why_not}")
    return out


# Devices


def _devices(rows: Sequence[DeviceRow], now: float, width: int) -> list[str]:
    cells = [[column.text(row, now) for column in COLUMNS] for row in rows]
    used = [i for i, column in enumerate(COLUMNS) if i < 4 or any(line[i] for line in cells)]
    widths = {i: max(len(COLUMNS[i].title), *(len(line[i]) for line in cells)) for i in used}
    while sum(widths[i] + GAP for i in used) - GAP > width and len(used) > 4:
        used.pop()
    out = [_line([column.title for column in COLUMNS], used, widths)]
    for row, line in zip(rows, cells, strict=True):
        out.append(_line(line, used, widths))
        out += _remark(row, width)
    return out


def _line(cells: Sequence[str], used: Sequence[int], widths: dict[int, int]) -> str:
    out = [cells[i].rjust(widths[i]) if COLUMNS[i].right else cells[i].ljust(widths[i]) for i in used]
    return (" " * GAP).join(out).rstrip()


def _remark(row: DeviceRow, width: int) -> list[str]:
    """What is wrong with the device, and what to do, below its line."""
    told = [(problem(row), "    "), (remedy(row), "    -> ")]
    return [
        line
        for text, indent in told
        if text
        for line in textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=" " * len(indent))
    ]


def _state(row: DeviceRow) -> str:
    """The state with its code, where that says more."""
    if row.barred:
        return "barred"
    if row.paused:
        return "held"
    return f"{row.state} {row.code}" if row.code else row.state


def _cut(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 9]}…{name[-8:]}"


# Rounds


def _rounds(rounds: Sequence[PastRound], now: float, width: int) -> list[str]:
    titles = [
        "ROUND",
        "STATE",
        "REPORTED",
        "TOOK",
        "ACCURACY",
        "LOSS",
        "DEVICE ACCURACY",
        "DEVICE LOSS",
        "KEEP OWN",
        "PERSONAL ACCURACY",
        "PERSONAL LOSS",
        "UP",
        "DOWN",
        "ENDED",
    ]
    cells = [
        [
            str(past.round), past.state, f"{past.reported}/{past.asked}" if past.asked else str(past.reported),
            span(past.seconds) if past.seconds >= 10 else f"{past.seconds:.1f} s", score(past.accuracy),
            score(past.loss, ".4g"), score(past.device_accuracy), score(past.device_loss, ".4g"),
            f"{past.own}/{past.personal}" if past.personal else "", score(past.personal_accuracy),
            score(past.personal_loss, ".4g"),
            amount(past.bytes_up), amount(past.bytes_down), f"{ago(past.closed_at, now)} ago" if past.closed_at else "",
        ]
        for past in rounds
    ]  # fmt: skip
    used = [i for i in range(len(titles)) if any(line[i] for line in cells)]
    widths = [max(len(text) for text in column) for column in zip(titles, *cells, strict=True)]
    while sum(widths[i] + GAP for i in used) - GAP > width:
        used.pop()
    out = [(" " * GAP).join(titles[i].rjust(widths[i]) for i in used)]
    for past, line in zip(rounds, cells, strict=True):
        out.append((" " * GAP).join(line[i].rjust(widths[i]) for i in used).rstrip())
        if past.why:
            out += textwrap.wrap(past.why, width, initial_indent="    ", subsequent_indent="    ")
    return out
