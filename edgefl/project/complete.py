"""Completes a SPEC by what a table's cells say of its target, labels and blanks, as `edgefl data stats` does."""

from __future__ import annotations

from pathlib import Path

from ..data import parse
from ..data.options import COMMON
from ..data.ready import ready
from ..data.survey import TABLES, survey

KIND_OF_SUFFIX = {".csv": "csv", ".tsv": "csv", ".npz": "npz"}
ANY = "labels=*"  # until all devices' labels are known


def as_spec(text: str) -> str:
    """`text`, or the SPEC of the file whose name it is."""
    kind = KIND_OF_SUFFIX.get(Path(text.partition("?")[0]).suffix.lower(), "")
    return f"{kind}:{text}" if kind and ":" not in text.partition("?")[0] else text


def completed(spec: str, example: str) -> tuple[str, list[str]]:
    """`spec` with the options that it lacks, by one device's table, whose SPEC is `example`; and what was guessed."""
    kind, rest, given = parse(example)
    if kind not in TABLES or kind == "ring":
        return spec, []
    own = {name: value for name, value in given.items() if name not in COMMON}
    suggested = ready(kind, rest, survey(kind, rest, own))
    _, _, options = parse(suggested.spec)
    added = [
        ANY if name == "labels" else f"{name}={value.replace('&', '%26')}"
        for name, value in options.items()
        if name not in given
    ]
    notes = [note for note in suggested.notes if not note.startswith(("labels=", "the features"))]
    if not added:
        return spec, notes
    return f"{spec}{'&' if '?' in spec else '?'}{'&'.join(added)}", notes
