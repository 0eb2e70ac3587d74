"""What the aggregator keeps on the broker for those who watch: JSON, typed and bounded. No I/O.

    summary          retained   Summary: the open round, counts, and the devices that need an operator most
    fleet/{page}     retained   FleetPage: a row for each device, at most PAGE_DEVICES of them

A device is not allowed to read either, and nothing that a device does depends on them. Where keys are on both are
sealed like all that the aggregator publishes, and the summary has the signer's certificate.

A message that is too long is shortened until it fits: its texts first, then the devices in trouble. Texts come from
devices too, so they hold no character that would steer a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from ..errors import ProtocolError

SUMMARY_LIMIT = 8 * 1024
PAGE_LIMIT = 32 * 1024
PAGE_DEVICES = 80
MAX_PAGES = 1024  # more devices are counted, and have no row
MAX_TROUBLED, MAX_WAITS, MAX_PAST, MAX_ADVICE = 20, 20, 5, 8
EVERY_S = 60  # the summary comes at least so often while its aggregator lives
TEXT = 160  # characters of a reason
_LENGTHS = (TEXT, 80, 40, 20, 0)  # tried in turn
_ADVICE = 4  # times as long is a line of advice, whose end says what to do
_SEAL = 1024  # of SUMMARY_LIMIT, for the second line with its certificate; a page has room for its signature anyway

ABSENT = "absent"  # the state of a device that is enrolled, and was never heard
Word = Annotated[str, Meta(max_length=16)]  # of ASCII letters, digits, '.', '+', '_' and '-': see `word`
MOST = 2**53  # every reader of JSON knows a number up to this exactly
Number = Annotated[int, Meta(ge=0, le=MOST)]
Celsius = Annotated[int, Meta(ge=-100, le=300)]
DEVICE_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"  # it stands in the commands that viewers are advised to give
_NO_WORD = re.compile(r"[^A-Za-z0-9.+_-]")
T = TypeVar("T", bound=msgspec.Struct)


class DeviceRow(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A device as the aggregator knows it. `state`, `code` and `reason` are its own (messages.Status), or "absent".

    `since` is when that state began, and `seen` when its last message came: seconds after the start of 1970, UTC; 0:
    not known. `counted` is the last round in which it counted, of `times` altogether. `bytes_up` and `bytes_down` are
    the sums of the rounds that the aggregator remembers. `agent` is the version of its software, `model` the newest
    model that it has trained from. `missed` says why it did not count in the last round that asked it. `barred`: it is
    in quarantine or muted, and why. `paused`: an operator has paused it, and why; its owner's pause is a state.
    """

    id: Annotated[str, Meta(pattern=DEVICE_ID)]
    state: Word
    code: Word = ""
    reason: str = ""
    since: Number = 0
    seen: Number = 0
    examples: Number = 0
    counted: Number = 0
    times: Number = 0
    bytes_up: Number = 0
    bytes_down: Number = 0
    agent: Word = ""
    model: Number = 0
    celsius: Celsius | None = None
    missed: str = ""
    barred: str = ""
    paused: str = ""


class OpenRound(msgspec.Struct, frozen=True, omit_defaults=True):
    """The round that is open. `opened` and `closes` are seconds after the start of 1970; 0: not known. `waits_for`
    names devices that it still waits for, `waiting` counts all of them; it asks `skipped` more, and does not wait for
    those.
    """

    round: Number
    version: Number
    mode: str
    opened: Number = 0
    closes: Number = 0
    counted: Number = 0
    waiting: Number = 0
    waits_for: list[str] = []
    skipped: Number = 0
    bytes_up: Number = 0


class PastRound(msgspec.Struct, frozen=True, omit_defaults=True):
    """A round that is over, as its record has it (history_record.RoundRecord). `asked`: devices; 0: not known.
    `accuracy` is of the aggregator's test set, `device_accuracy` of what the devices hold out. `personal` devices told
    of a model of their own, of which `own` keep it; `personal_accuracy` and `personal_loss` are of what they keep.
    Where room is short, only the newest round has these four."""

    round: Number
    state: str
    version: Number
    reported: Number = 0
    asked: Number = 0
    seconds: float = 0.0
    bytes_up: Number = 0
    bytes_down: Number = 0
    accuracy: float | None = None
    loss: float | None = None
    closed_at: Number = 0
    why: str = ""
    device_accuracy: float | None = None
    device_loss: float | None = None
    personal: Number = 0
    own: Number = 0
    personal_accuracy: float | None = None
    personal_loss: float | None = None

    def cut(self, length: int, newest: bool) -> PastRound:
        """The round with a `why` of at most so many characters."""
        told = {} if newest or length else {"personal": 0, "own": 0, "personal_accuracy": None, "personal_loss": None}
        return msgspec.structs.replace(self, why=clip(self.why, length), **told)


class Spent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The privacy that noise has cost: `epsilon` at `delta`, after `round`. `budget`: where the federation ends."""

    epsilon: Annotated[float, Meta(ge=0)]
    delta: Annotated[float, Meta(ge=0, lt=1)]
    round: Number = 0
    budget: Annotated[float, Meta(ge=0)] | None = None


class Adaptive(msgspec.Struct, frozen=True, omit_defaults=True):
    """A clip that moves: `clip` of the open round, or of the next. `within`: the share of updates that were no longer
    than theirs in the newest round that tells it, and `quantile` the share that is aimed at."""

    clip: Annotated[float, Meta(ge=0)]
    quantile: Annotated[float, Meta(ge=0, le=1)]
    within: Annotated[float, Meta(ge=0, le=1)] | None = None


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """The federation at the moment `at`, by the aggregator's clock, which may be wrong; 0: not known.

    `phase` is "waiting", "open", "unmasking", "evaluating", "judging", "done" or "stopped". `round` is the open round,
    or the next.
    `total` counts the devices that have a row or should have one, `present` those that can be asked, `states` all by
    state; `barred` and `paused` count those in quarantine or muted, and those that an operator has paused.
    `opens_at`: when the next round may open; 0: it waits for devices, or is open. `advice` says what the operator can
    do that concerns no single device. `troubled` are the rows of the devices that need an operator, worst first. `last`
    are the newest rounds, newest first. `privacy` is there if rounds have noise, and `adaptive` if
    their clip moves. `pages`: fleet/0 to
    fleet/{pages - 1} are in use. `edgefl`: the aggregator's version. `every`: a summary that is older by much more than
    so many seconds is of an aggregator that is gone.
    """

    federation: str
    run: str
    at: Number
    phase: str
    round: Number
    version: Number
    attempt: Number = 0
    total: Number = 0
    present: Number = 0
    states: dict[str, Number] = {}
    barred: Number = 0
    paused: Number = 0
    open: OpenRound | None = None
    opens_at: Number = 0
    advice: list[str] = []
    troubled: list[DeviceRow] = []
    last: list[PastRound] = []
    pages: Number = 0
    edgefl: str = ""
    every: Number = EVERY_S
    privacy: Spent | None = None
    adaptive: Adaptive | None = None


class FleetPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows of some devices, by name. `at` is when the page was written. A page may be empty: its devices are gone."""

    page: Number
    at: Number
    devices: list[DeviceRow] = []


def encode_summary(summary: Summary) -> bytes:
    """The message, within SUMMARY_LIMIT once it is sealed."""

    def cut(length: int) -> Summary:
        return msgspec.structs.replace(
            summary,
            advice=[clip(text, max(_ADVICE * length, 40)) for text in summary.advice[:MAX_ADVICE]],
            troubled=[clip_row(row, length) for row in summary.troubled[:MAX_TROUBLED]],
            last=[past.cut(length, place == 0) for place, past in enumerate(summary.last[:MAX_PAST])],
        )

    found = _fit(cut, SUMMARY_LIMIT - _SEAL)
    while found is None and summary.troubled:
        summary = msgspec.structs.replace(summary, troubled=summary.troubled[: len(summary.troubled) // 2])
        found = _fit(cut, SUMMARY_LIMIT - _SEAL)
    return found or msgspec.json.encode(msgspec.structs.replace(cut(0), open=None, advice=[], last=[]))


def encode_page(page: FleetPage) -> bytes:
    """The message, within PAGE_LIMIT once it is sealed, of at most PAGE_DEVICES rows."""

    def cut(length: int) -> FleetPage:
        return FleetPage(page.page, page.at, [clip_row(row, length) for row in page.devices])

    found = _fit(cut, PAGE_LIMIT - _SEAL)
    if found is None:
        raise ValueError(f"{len(page.devices)} rows do not fit into a page")
    return found


def _fit(cut: Callable[[int], msgspec.Struct], limit: int) -> bytes | None:
    """The message with the longest texts that fit, of `_LENGTHS`; None if none do."""
    for length in _LENGTHS:
        raw = msgspec.json.encode(cut(length))
        if len(raw) <= limit:
            return raw
    return None


def clip_row(row: DeviceRow, length: int) -> DeviceRow:
    """The row with no text longer than `length` characters."""
    told = (row.reason, row.missed, row.barred, row.paused)
    if all(len(text) <= length for text in told):
        return row
    reason, missed, barred, paused = (clip(text, length) for text in told)
    return msgspec.structs.replace(row, reason=reason, missed=missed, barred=barred, paused=paused)


def clip(text: str, length: int) -> str:
    """At most so many characters of the text, which end with "…" if it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…" if length else ""


def plain(text: str) -> str:
    """What a device says, without characters that would break a line, or steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def word(text: str) -> str:
    """What a device says where a short word belongs; JSON writes each character of it as one byte."""
    return _NO_WORD.sub("?", text)[:16]


def decode_summary(payload: bytes) -> Summary:
    """The summary in a message without its seal; ProtocolError."""
    return _decode(Summary, payload, SUMMARY_LIMIT)


def decode_page(payload: bytes) -> FleetPage:
    """The page in a message without its seal; ProtocolError."""
    page = _decode(FleetPage, payload, PAGE_LIMIT)
    if not 0 <= page.page < MAX_PAGES or len(page.devices) > PAGE_DEVICES:
        raise ProtocolError("a page of the fleet that can't be: dropped", "malformed")
    return page


def _decode(kind: type[T], payload: bytes, limit: int) -> T:
    if len(payload) > limit:
        raise ProtocolError(f"{kind.__name__} of {len(payload)} bytes, at most {limit}: dropped", "malformed")
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{kind.__name__} can't be read ({str(error)[:200]!r}): dropped", "malformed") from None


for _kind in (Summary, FleetPage):  # described at import: a second thread must not use a type while msgspec does that
    msgspec.json.Decoder(_kind)
