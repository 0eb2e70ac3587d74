"""A daemon's environment as its systemd unit sets it: glibc's settings decide how much memory stays resident."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def unit_environment(unit: str) -> dict[str, str]:
    """What the unit at the path `unit` of the repository sets."""
    lines = (REPOSITORY / unit).read_text().splitlines()
    words = [word for line in lines if line.startswith("Environment=") for word in line[len("Environment=") :].split()]
    return dict(word.split("=", 1) for word in words)
