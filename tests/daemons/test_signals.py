"""What commands do at SIGTERM, and that they leave the handlers of the process that called them as they were."""

from __future__ import annotations

import os
import signal

import pytest

from edgefl.hosting import daemon

NUMBERS = (signal.SIGTERM, signal.SIGINT)


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_daemon_is_told_to_stop_and_the_handlers_are_restored(number):
    before, stopped = handlers(), []
    with daemon.on_termination(lambda: stopped.append(number)):
        os.kill(os.getpid(), number)
    assert (stopped, handlers()) == ([number], before)


def test_a_command_unwinds_at_sigterm_and_the_handlers_are_restored():
    before = handlers()
    with pytest.raises(SystemExit) as ended, daemon.unwind_on_termination():
        os.kill(os.getpid(), signal.SIGTERM)
    assert (ended.value.code, handlers()) == (128 + signal.SIGTERM, before)


def test_the_handlers_are_restored_although_the_daemon_fails():
    before = handlers()
    with pytest.raises(ValueError, match="no disk"), daemon.on_termination(lambda: None):
        raise ValueError("no disk")
    assert handlers() == before
