"""What every program of EdgeFL does around its work: signals, errors and exit codes."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from ..errors import EdgeFLError
from .log_lines import print_error


def on_termination(stop: Callable[[], None]) -> AbstractContextManager[None]:
    """Within the block, SIGTERM and SIGINT call `stop`. Main thread only."""

    def handle(number: int, frame: FrameType | None) -> None:
        logging.getLogger("edgefl").info("%s: stopping", signal.Signals(number).name)
        stop()

    return handling(handle, signal.SIGTERM, signal.SIGINT)


def unwind_on_termination() -> AbstractContextManager[None]:
    """Within the block, SIGTERM ends a command as Ctrl-C does: it stops what it has started. Main thread only."""

    def handle(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    return handling(handle, signal.SIGTERM)


@contextmanager
def handling(handler: Callable[[int, FrameType | None], None], *signals: signal.Signals) -> Iterator[None]:
    """Handle `signals`, and restore the former handlers afterwards: the caller's process may go on."""
    former = [(number, signal.signal(number, handler)) for number in signals]
    try:
        yield
    finally:
        for number, its_handler in former:
            signal.signal(number, its_handler)


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
        sys.stderr.close()  # the reader of our output has gone, as `head` does
        return 0
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print_error(f"{where}{error.strerror}: check the path, its permissions and the space left")
        return 1
