"""When a connection is given up, and what a link's rate is taken for: pure, on numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edgefl.transports.liveness import Liveness
from edgefl.transports.traffic import SLOWEST, Counts, Gauge, Meter

KEEPALIVE = 60.0


def run(liveness: Liveness, counts_at, until: float, step: float = 5.0) -> tuple[list[float], float | None]:
    """When the broker was asked, and when the connection was given up."""
    asked, now = [], 0.0
    while now <= until:
        verdict = liveness.judge(counts_at(now), now)
        if verdict == "dead":
            return asked, now
        if verdict == "ask":
            asked.append(now)
        now += step
    return asked, None


def test_a_silent_broker_is_asked_in_time_and_given_up_after_a_keep_alive_and_a_half():
    asked, dead = run(Liveness(KEEPALIVE, 0.0), lambda now: Counts(), 1e6)
    assert (asked, dead) == ([45.0], 90.0)


def test_a_frozen_brokers_kernel_that_takes_our_question_is_no_sign_of_life():
    """The two bytes of a PINGREQ, and small messages that the machine sends, are acknowledged at once."""
    frozen_at = 100.0
    asked, dead = run(
        Liveness(KEEPALIVE, 0.0),
        lambda now: Counts(min(now, frozen_at), int(now) // 20, 0),
        1e6,
    )
    assert dead == frozen_at + 1.5 * KEEPALIVE
    assert frozen_at < asked[-1] <= dead - 0.5 * KEEPALIVE


@pytest.mark.parametrize("bytes_a_second", [1, 100, 1e6])
def test_a_link_that_flows_is_never_cut_in_whichever_direction(bytes_a_second):
    down = run(Liveness(KEEPALIVE, 0.0), lambda now: Counts(int(now * bytes_a_second), 0, 0), 5000.0)
    up = run(Liveness(KEEPALIVE, 0.0), lambda now: Counts(0, int(now * bytes_a_second), 1), 5000.0)
    assert down[1] is None and up[1] is None


def test_what_waits_and_does_not_drain_is_no_sign_of_life():
    _, dead = run(Liveness(KEEPALIVE, 0.0), lambda now: Counts(0, 7, 65536), 1e6)
    assert dead == 1.5 * KEEPALIVE


def test_the_broker_hears_from_us_once_a_keep_alive_although_it_is_sending():
    """Brokers give up a client that sends nothing for a keep-alive and a half."""
    asked, dead = run(Liveness(KEEPALIVE, 0.0), lambda now: Counts(int(now), 0, 0), 600.0)
    assert dead is None
    assert asked[0] <= KEEPALIVE and max(b - a for a, b in pairwise(asked)) <= KEEPALIVE


def test_an_idle_link_is_asked_once_in_three_quarters_of_a_keep_alive():
    answered = [0]
    liveness, asked, now = Liveness(KEEPALIVE, 0.0), 0, 0.0
    while now < 3600:
        now += 5.0
        if liveness.judge(Counts(answered[0], 2 * asked, 0), now) == "ask":
            asked += 1
            answered[0] += 2
    assert 3600 / 60 <= asked <= 3600 / 45


def test_a_full_link_is_measured_and_an_idle_one_only_bounded():
    meter = Meter()
    for _ in range(4):
        meter.measure(1200, 1.0, full=True)
    assert meter.measured == pytest.approx(1200)
    idle = Meter()
    idle.measure(100, 5.0, full=False)
    assert (idle.measured, idle.least) == (0.0, 20.0)


def test_a_link_that_becomes_faster_is_not_taken_for_slow_for_ever():
    meter = Meter()
    for _ in range(4):
        meter.measure(1200, 1.0, full=True)
    meter.measure(10**6, 1.0, full=False)
    assert meter.measured == 0.0 and meter.least == 1e6


def test_a_meter_follows_a_link_that_becomes_slower():
    meter = Meter()
    for _ in range(10):
        meter.measure(10**6, 1.0, full=True)
    for _ in range(60):
        meter.measure(1200, 1.0, full=True)
    assert meter.measured == pytest.approx(1200, rel=0.1)


def test_a_cold_link_is_taken_for_the_slowest_and_the_way_up_for_what_came_down():
    gauge = Gauge(KEEPALIVE)
    assert gauge.flow is None
    gauge.begin(0.0)
    assert (gauge.flow.rate_in, gauge.flow.rate_out) == (SLOWEST, SLOWEST)
    gauge.look(Counts(100_000, 50, 0), 10, 1.0)
    gauge.look(Counts(200_000, 100, 0), 10, 2.0)
    gauge.look(Counts(300_000, 150, 0), 10, 3.0)
    assert gauge.flow.rate_in == gauge.flow.rate_out == pytest.approx(100_000)


def test_counts_go_on_over_connections_and_an_idle_link_says_nothing_new():
    gauge = Gauge(KEEPALIVE)
    gauge.begin(0.0)
    gauge.look(Counts(100, 50, 20), 10, 1.0)
    gauge.begin(2.0)
    gauge.look(Counts(11, 7, 0), 0, 3.0)
    told = gauge.flow
    assert (told.received, told.acknowledged, told.pending, told.arriving) == (111, 57, 0, 0)
    gauge.look(Counts(11, 7, 0), 0, 4.0)
    assert gauge.flow is told
