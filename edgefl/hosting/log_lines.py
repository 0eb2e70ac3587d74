"""Log lines on standard error: dated text for people, or one JSON object a line for a log collector."""

from __future__ import annotations

import logging
import sys
from datetime import datetime

import msgspec

from .repeats import count_repeats

FORMATS = ("text", "json")


class TextLines(logging.Formatter):
    """`2026-03-01T08:15:02.120+01:00 INFO    message`: ISO 8601 with the offset from UTC."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _date(record)


class JsonLines(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`, and `traceback` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _date(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


def log_to_stderr(level: str, form: str = "text") -> None:
    """Write messages of `level` and above to standard error. A process that logs elsewhere already is left alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    count_repeats(handler)
    logging.basicConfig(handlers=[handler], level=level.upper())


def print_error(message: str) -> None:
    """The message that a program ends with, in the form that its log has."""
    if any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        logging.getLogger("edgefl").error("%s", message)
    else:
        print(f"error: {message}", file=sys.stderr)


def _date(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
