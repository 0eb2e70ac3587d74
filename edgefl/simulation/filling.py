"""What a simulation makes of settings that say how a real federation is to run."""

from __future__ import annotations

from typing import TypeVar

from ..errors import UsageError
from ..protocol.envelope import MAX_PART_BYTES
from ..settings import RoundSettings, Settings
from ..settings.privacy import HELPER
from .options import ROUNDS

DAY_S = 86400.0
S = TypeVar("S", bound=Settings)


def fill(settings: S, devices: int) -> S:
    """What a simulation of so many devices knows beforehand: how many rounds, how many devices to expect, and that
    nothing is gained by waiting between rounds. UsageError if there are too few devices for any round."""
    rounds = settings.rounds
    if devices < rounds.min_reports:
        raise UsageError(
            f"{devices} device{'s' * (devices > 1)} can't make the {rounds.min_reports} reports that a round needs: "
            f"set min_reports to {devices} (--min-reports {devices}), or simulate {rounds.min_reports} devices"
        )
    return settings.replace(
        **{
            "rounds.rounds": rounds.rounds or ROUNDS,
            "rounds.expect": rounds.expect or devices,
            "rounds.interval_s": rounds.interval_s or 0.0,
            "privacy.helpers": settings.privacy.helpers or (HELPER if settings.privacy.masked else None),
        }
    )


def longest_s(rounds: RoundSettings) -> float:
    """Seconds that all rounds take if each runs into its deadline, and each day's window has room for one."""
    each_s = max(rounds.deadline_s, rounds.interval_s or 0.0) + (DAY_S if rounds.window else 0.0)
    return (rounds.rounds or 1) * each_s


def uncut(settings: S) -> S:
    """With parts as long as they may be, where the settings leave that open: on links where a message of any length
    passes at once, short parts cost time and nothing else."""
    return settings.replace(**{"codec.part_bytes": MAX_PART_BYTES}) if settings.codec.part_bytes == "auto" else settings
