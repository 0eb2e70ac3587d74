"""Programs that are asked something: no shell, and neither their time nor their output is without bound."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, NamedTuple

from ..transports.settings import PASSWORD

MAX_BYTES = 4096  # of the output; what follows is read and dropped


class Answer(NamedTuple):
    """`code` is the exit code, None if the program could not be started or did not end in time; `line` is the
    first line of its output, or says why the program did not run to its end."""

    code: int | None
    line: str


def run(command: Sequence[str], timeout_s: float) -> Answer:
    """Run a program with nothing to read, and without the broker's password in its environment. It is killed, with
    all that it has started, after `timeout_s`."""
    import subprocess  # most agents ask no program, and then need not have it in memory

    environment = {name: value for name, value in os.environ.items() if name != PASSWORD}
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        return Answer(None, f"can't be started: {getattr(error, 'strerror', None) or error}")
    assert process.stdout is not None
    until = time.monotonic() + timeout_s
    try:
        with process.stdout as pipe:
            output = _read(pipe, until)
            code = process.wait(max(0.0, until - time.monotonic()))  # a closed pipe could end it, after its time
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return Answer(None, f"has not ended within {timeout_s:g} s")
    return Answer(code, _first_line(output))


def _read(pipe: IO[bytes], until: float) -> bytes:
    """The head of what comes until the pipe's end or the deadline."""
    import select

    head = b""
    while (left_s := until - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left_s)[0]:
            break
        chunk = os.read(pipe.fileno(), 65536)
        if not chunk:
            break
        head = (head + chunk)[:MAX_BYTES]
    return head


def _first_line(output: bytes) -> str:
    line = output.decode(errors="replace").strip().partition("\n")[0]
    return "".join(c if c.isprintable() else " " for c in line).strip()
