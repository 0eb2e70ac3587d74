"""The lines that `edgefl` prints: one for each round of a simulation, and one for the whole run."""

from __future__ import annotations

from ..history_record import RoundRecord
from ..history_text import scores, traffic_text


def say(text: str) -> None:
    """Print a line on standard output, without buffering."""
    print(text, flush=True)


def line(record: RoundRecord) -> str:
    """One round in one line."""
    state = "  profile" if record.profile else ""
    state += "" if record.state == "committed" else f"  {record.state}"
    clip = "" if record.clip is None else f"  clip {record.clip:.4g}"
    told = f"{record.reported:>4} reported{scores(record, '  ')}  {traffic_text(record, '  ')}{clip}"
    return f"round {record.round:>4}  {told}{state}"
