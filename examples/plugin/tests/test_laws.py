"""A plug-in's own tests: the laws, by the two lines that it takes."""

from edgefl_example.codec import TopK
from edgefl_example.strategy import median

from edgefl.testing import check_codec, check_strategy


def test_the_codec_keeps_the_laws() -> None:
    for fraction in (0.01, 0.2, 1.0):
        check_codec(TopK(fraction))


def test_the_strategy_keeps_the_laws() -> None:
    check_strategy(median)
