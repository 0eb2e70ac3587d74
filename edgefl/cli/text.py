"""The lines that `edgefl` prints: one for each round of a simulation, and one for the whole run."""

from __future__ import annotations

from ..history import Final, RoundRecord, scores, times_smaller


def say(text: str) -> None:
    """Print a line on standard output, without buffering."""
    print(text, flush=True)


def size(count: int) -> str:
    """A number of bytes for people to read, in decimal units."""
    return f"{count / 1e6:.2f} MB" if count >= 100_000 else f"{count / 1e3:.2f} kB"


def line(record: RoundRecord) -> str:
    """One round in one line."""
    state = "" if record.state == "committed" else f"  {record.state}"
    return (
        f"round {record.round:>4}  {record.reported:>4} reported{scores(record, '  ')}  {_traffic(record, '  ')}{state}"
    )


def total(final: Final) -> str:
    """The whole run in one line."""
    evaluated = f", {final.evaluated} evaluated" if final.evaluated else ""
    return (
        f"{final.committed} of {final.rounds} rounds committed{evaluated}{scores(final, ', ')}, {_traffic(final, ', ')}"
    )


def _traffic(of: RoundRecord | Final, gap: str) -> str:
    up = f"{size(of.bytes_up)} up{times_smaller(of.float32_bytes, of.bytes_up)}"
    return f"{up}{gap}{size(of.bytes_down)} down{times_smaller(of.float32_bytes, of.bytes_down)}"
