"""Log lines on standard error: dated text for people, or one JSON object a line for a log collector."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import datetime

import msgspec

from .repeats import count_repeats

FORMATS = ("text", "json")
KNOWN = ("round", "device")  # what a line may be about


class TextLines(logging.Formatter):
    """`2026-03-01T08:15:02.120+01:00 INFO    message`: ISO 8601 with the offset from UTC."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _date(record)


class JsonLines(logging.Formatter):
    """One object a line: `time`, `level`, `logger`, `message`; where they are known, the `round` and the `device` that
    the line is about, what `always` has set, and a `traceback`."""

    def __init__(self) -> None:
        super().__init__()
        self.always: dict[str, str] = {}

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _date(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.always,
        }
        fields |= {name: value for name in KNOWN if (value := getattr(record, name, None))}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(fields).decode()
        except UnicodeEncodeError:  # half of a surrogate pair, as a file's name that is not UTF-8 has
            fields = {name: _whole(value) if isinstance(value, str) else value for name, value in fields.items()}
            return msgspec.json.encode(fields).decode()


def always(**fields: str) -> None:
    """From now on every line of a log in JSON has these fields, such as the federation."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonLines):
            handler.formatter.always |= fields


def log_to_stderr(level: str, form: str = "text") -> None:
    """Write messages of `level` and above to standard error. A process that logs elsewhere already is left alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    count_repeats(handler)
    logging.basicConfig(handlers=[handler], level=level.upper())
    if form == "json":
        _log_all_else()


def _log_all_else() -> None:
    """What Python would print by itself is logged: warnings, and errors that nobody has caught."""
    log = logging.getLogger("edgefl")
    logging.captureWarnings(True)

    def of_thread(error: threading.ExceptHookArgs) -> None:
        if error.exc_value is not None:
            log.critical("a thread has broken", exc_info=error.exc_value)

    sys.excepthook = lambda kind, error, trace: log.critical("the program has broken", exc_info=(kind, error, trace))
    threading.excepthook = of_thread


def print_error(message: str) -> None:
    """The message that a program ends with, in the form that its log has."""
    if any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers):
        logging.getLogger("edgefl").error("%s", message)
    else:
        print(f"error: {message}", file=sys.stderr)


def _whole(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _date(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
