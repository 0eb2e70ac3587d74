"""Other threads of the aggregator see copies of the fleet, which are made only while somebody looks."""

from __future__ import annotations

import threading
from types import SimpleNamespace

from edgefl_broker.window import WANTED_S, Window


def machine():
    made: list[float] = []
    return made, SimpleNamespace(summary=lambda now: made.append(now) or now, rows=lambda: list(made))


def test_a_copy_is_made_when_one_is_wanted_at_most_once_a_second():
    made, behind = machine()
    window = Window(behind)
    for tenth in range(50):
        window.refresh(tenth / 10)
    assert not made and window.look(0.0) is None
    for tenth in range(50, 81):
        window.refresh(tenth / 10)
    assert len(made) == 4 and window.look(0.0).summary == made[-1]
    for second in range(9, 9 + 3 * int(WANTED_S)):
        window.refresh(float(second))
    assert len(made) <= 5 + 2 * WANTED_S and window.look(0.0) is None, "nobody looks any more"


def test_a_thread_that_asks_first_waits_for_the_copy():
    _, behind = machine()
    window, found = Window(behind), []
    thread = threading.Thread(target=lambda: found.append(window.look(10.0)))
    thread.start()
    while thread.is_alive():
        window.refresh(3.0)
        thread.join(0.01)
    assert found[0].summary == 3.0


def test_a_large_fleet_is_copied_less_often():
    made: list[float] = []
    behind = SimpleNamespace(summary=lambda now: made.append(now) or now, rows=lambda: [None] * 20_000)
    window = Window(behind)
    for second in range(60):
        window.look(0.0)
        window.refresh(float(second))
    assert len(made) == 12
