"""The laws that every codec and every strategy keeps, ours and plug-ins alike. Run them in your own tests.

    from edgefl.testing import check_codec, check_strategy

    def test_my_codec():
        check_codec(MyCodec(step=2.0))

    def test_my_strategy():
        check_strategy(lambda: MyStrategy())

Both raise BrokenLaw, an AssertionError that states the law. They take seconds, use fixed seeds and need no network.
"""

from .codec_laws import check_codec
from .law import BrokenLaw
from .strategy_laws import check_strategy

__all__ = ["BrokenLaw", "check_codec", "check_strategy"]
