"""docs/acl-matrix.md says what is so: each cell is tried. `make acl-matrix` writes the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from acl_matrix import FILTERS, ROLES, TOPICS, Matrix, cells
from conftest import ROOT


def table() -> dict[str, dict[str, str]]:
    """The page's cells, by row and role."""
    rows = [
        line.strip("|").split("|") for line in (ROOT / "docs/acl-matrix.md").read_text().splitlines() if "| `" in line
    ]
    return {first.strip(" `"): dict(zip(ROLES, [cell.strip() for cell in rest], strict=True)) for first, *rest in rows}


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with Matrix() as matrix:
        yield matrix


@pytest.mark.parametrize("row", [*TOPICS, *FILTERS])
def test_the_page_says_what_mosquitto_does(matrix, row):
    assert dict(zip(ROLES, cells(matrix, row), strict=True)) == table()[row]


def test_a_packet_that_is_too_long_ends_the_connection(matrix):
    assert matrix.too_long_a_packet_ends("device")


def test_the_page_says_what_was_promised():
    page = table()
    assert set(page) == {*TOPICS, *FILTERS}

    def can(role: str) -> dict[str, str]:
        return {row: roles[role] for row, roles in page.items() if roles[role] != "–"}

    assert can("device") == {
        "manifest": "s", "round": "s", "model/0/0": "s", "d/{id}/inbox": "s", "d/{id}/status": "prwvs",
        "d/{id}/u/1/0": "pw",
    }  # fmt: skip
    assert set("".join(can("viewer").values())) == {"s"}
    assert can("helper") == {
        "manifest": "s", "round": "s", "model/0/0": "s", "helper/{id}/ask/+": "s", "helper/{id}/answer/0": "pw",
    }  # fmt: skip
    assert can("batch") == {"enrol/{id}/batch-0a/ask": "pw", "enrol/{id}/batch-0a/answer": "s"}
    assert can("revoked device") == {}
