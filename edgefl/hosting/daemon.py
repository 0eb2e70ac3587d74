"""What every program of EdgeFL does around its work: signals, errors and exit codes."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType

from ..errors import EdgeFLError
from .log_lines import print_error


def on_termination(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGTERM and SIGINT."""

    def handle(number: int, frame: FrameType | None) -> None:
        logging.getLogger("edgefl").info("%s: stopping", signal.Signals(number).name)
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def unwind_on_termination() -> None:
    """SIGTERM ends a command as Ctrl-C does: what it has started is stopped, not left behind. Main thread only."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def exit_code(command: Callable[[], int | None], debug: bool) -> int:
    """Run a command: 0 done, 1 failed, 2 wrong use. An error is one message; its traceback only with `debug`."""
    try:
        return command() or 0
    except EdgeFLError as error:
        if debug:
            raise
        print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone, as `head` does
        return 0
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print_error(f"{where}{error.strerror}: check the path, its permissions and the space left")
        return 1
