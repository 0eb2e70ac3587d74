"""The temperature in a device's status: read now and then, in a thread, and never waited for."""

from __future__ import annotations

import threading

from brokers import eventually
from edgefl_agent.thermometer import LOOK_S, Thermometer


def test_it_is_read_once_a_minute():
    seen = iter([51.4, 47.6, None, 1e6])
    thermometer = Thermometer(lambda: next(seen))
    assert thermometer.celsius is None
    for minute, shown in enumerate((51, 48, None, None)):
        thermometer.look(minute * LOOK_S)
        thermometer._thread.join()
        thermometer.look(minute * LOOK_S + 1)
        assert thermometer.celsius == shown


def test_a_driver_that_hangs_takes_one_thread():
    go, began = threading.Event(), []
    thermometer = Thermometer(lambda: began.append(1) or go.wait(30) or 40.0)
    for minute in range(5):
        thermometer.look(minute * LOOK_S)
    assert len(began) == 1
    go.set()
    eventually(lambda: not thermometer._thread.is_alive())
    thermometer.look(9 * LOOK_S)
    assert len(began) == 2
