"""Our own codecs keep the laws that edgefl.testing asks of every codec."""

from __future__ import annotations

import pytest

from edgefl import codecs
from edgefl.testing import check_codec

OPTIONS = [{}, {"max_bytes": 900}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", sorted(codecs.CODECS))
def test_our_codecs_keep_the_laws(name: str, options: dict[str, int]) -> None:
    check_codec(codecs.get(name, **options))


@pytest.mark.parametrize("name", ["ecq", "ecq-sparse"])
def test_they_keep_them_with_a_step(name: str) -> None:
    check_codec(codecs.get(name, step=2.0))
