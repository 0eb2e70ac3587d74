"""Words: times, sizes and scores as an operator reads them. No I/O."""

from __future__ import annotations

_SPANS = ((86400.0, "d", 3), (3600.0, "h", 3), (60.0, "min", 2), (1.0, "s", 0))
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def span(seconds: float) -> str:
    """ "40 s", "5 min", "7 h", "12 d": rounded down, in the largest unit of which there are some."""
    for size, unit, least in _SPANS:
        if seconds >= least * size:
            return f"{max(0.0, seconds) // size:.0f} {unit}"
    return "0 s"


def ago(at: int, now: float) -> str:
    """How long ago that was; "-" if it is not known."""
    return span(max(0.0, now - at)) if at else "-"


def amount(count: int) -> str:
    """Bytes in three digits; "" for none."""
    for size, unit in _SIZES:
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:.0f} {unit}"
    return f"{count} B" if count else ""


def score(value: float | None, form: str = ".4f") -> str:
    """A number that may not be known."""
    return "" if value is None else format(value, form)
