"""History in words: rounds, scores and bytes as logs, commands and the dashboard show them. No I/O."""

from __future__ import annotations

from typing import Protocol

from .plural import plural


class Told(Protocol):
    """What a round (history_record.RoundRecord) and a run (history.Final) have in common."""

    @property
    def accuracy(self) -> float | None: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def device_accuracy(self) -> float | None: ...
    @property
    def device_loss(self) -> float | None: ...
    @property
    def personal_accuracy(self) -> float | None: ...
    @property
    def personal_loss(self) -> float | None: ...
    @property
    def bytes_up(self) -> int: ...
    @property
    def bytes_down(self) -> int: ...
    @property
    def float32_bytes(self) -> int: ...


class Ended(Told, Protocol):
    """A run, with its rounds by what became of them."""

    @property
    def rounds(self) -> int: ...
    @property
    def committed(self) -> int: ...
    @property
    def evaluated(self) -> int: ...


def scores(of: Told, gap: str) -> str:
    """The accuracies and losses that are known, of the test set and of devices, each preceded by `gap`."""
    told = [
        ("accuracy", of.accuracy, ".4f"), ("loss", of.loss, ".4g"),
        ("device accuracy", of.device_accuracy, ".4f"), ("device loss", of.device_loss, ".4g"),
        ("personal accuracy", of.personal_accuracy, ".4f"), ("personal loss", of.personal_loss, ".4g"),
    ]  # fmt: skip
    return "".join(f"{gap}{what} {value:{form}}" for what, value, form in told if value is not None)


def named(why: dict[str, str], most: int = 12) -> str:
    """Devices with reasons in one line, such as "pi-03 (no update since round 12)", and how many more there are."""
    told = [f"{device} ({reason})" for device, reason in list(why.items())[:most]]
    more = len(why) - len(told)
    return ", ".join([*told, f"{more} more"] if more else told)


def times_smaller(float32_bytes: int, real: int) -> str:
    """ " (12x)": how many times fewer bytes were sent than float32 takes; "" if there is nothing to compare."""
    if not (real and float32_bytes):
        return ""
    ratio = float32_bytes / real
    return f" ({ratio:.2f}x)" if ratio < 10 else f" ({ratio:.0f}x)"


def size(count: int) -> str:
    """A number of bytes for people to read, in decimal units."""
    return f"{count / 1e6:.2f} MB" if count >= 100_000 else f"{count / 1e3:.2f} kB"


def total(final: Ended) -> str:
    """The whole run in one line."""
    evaluated = f", {final.evaluated} evaluated" if final.evaluated else ""
    told = f"{scores(final, ', ')}, {traffic_text(final, ', ')}"
    return f"{final.committed} of {plural(final.rounds, 'round')} committed{evaluated}{told}"


def traffic_text(of: Told, gap: str) -> str:
    """Bytes up and down, with `gap` in between."""
    up = f"{size(of.bytes_up)} up{times_smaller(of.float32_bytes, of.bytes_up)}"
    return f"{up}{gap}{size(of.bytes_down)} down{times_smaller(of.float32_bytes, of.bytes_down)}"
