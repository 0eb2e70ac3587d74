"""Two rounds over slow links, from a cold start: the quickest rows of `make slow-links`, and a small slow one.

The links are kept slow by proxies, which need no rights.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from slow_links import run


@pytest.mark.parametrize(
    ("kbit_s", "codec", "num_bytes"), [(256.0, "ecq", 100_000), (256.0, "raw32", 100_000), (9.6, "raw32", 20_000)]
)
def test_i07_rounds_on_a_slow_link_take_little_more_than_their_bytes_do(
    tmp_path: Path, kbit_s: float, codec: str, num_bytes: int
) -> None:
    row, records = run(tmp_path / "run", kbit_s, codec, num_bytes, rounds=2)
    assert row.in_time and row.in_bytes, row
    assert row.connections == 1
    assert [(record.state, record.reported) for record in records] == [("committed", 2)] * 2
