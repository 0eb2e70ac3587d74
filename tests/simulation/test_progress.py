"""The bar below a simulation's lines."""

from __future__ import annotations

from edgefl.cli.progress import Eta, Progress, told


def test_the_time_left_is_the_median_of_recent_rounds_for_each_that_is_left():
    eta = Eta(10, now=0.0)
    assert (eta.seconds(5.0), told(eta, 5.0)) == (None, "0 of 10 rounds")
    for now in (10.0, 20.0, 90.0):  # one of them was slow
        eta.round_over(now)
    assert eta.seconds(90.0) == 70.0
    assert eta.seconds(94.0) == 66.0
    assert eta.seconds(500.0) == 60.0  # the round under way may end any moment
    assert told(eta, 90.0) == "3 of 10 rounds, 70 s left"


def test_rounds_of_a_replay_say_nothing_of_the_time():
    eta = Eta(4, now=0.0)
    eta.round_over(0.1, was_computed=False)
    assert eta.seconds(0.1) is None
    eta.round_over(8.1)
    assert eta.seconds(8.1) == 16.0


def test_at_the_end_nothing_is_left():
    eta = Eta(1, now=0.0)
    eta.round_over(2.0)
    assert (eta.seconds(100.0), told(eta, 100.0)) == (0.0, "1 of 1 round, 0 s left")


def test_without_a_terminal_nothing_is_shown(capsys):
    with Progress(3) as progress:
        progress.round_over()
    assert capsys.readouterr() == ("", "")
