"""Which ratios of `make bench-gate` count as fallen."""

from __future__ import annotations

from kept_ratios import Measured, fallen, keep, medians, read


def at(ratio: float, processor: str = "one", isa: str = "avx512") -> Measured:
    return Measured("abc", processor, isa, {"step mlp": ratio})


def test_a_fall_of_more_than_a_tenth_below_the_median_is_found():
    usual = medians([at(1.0), at(1.2), at(0.8)], "one", "avx512")
    assert usual == {"step mlp": 1.0}
    assert fallen({"step mlp": 0.89}, usual) == ["step mlp"]
    assert fallen({"step mlp": 0.91}, usual) == []


def test_only_the_last_ten_count():
    history = [at(9.0)] * 20 + [at(1.0)] * 10
    assert medians(history, "one", "avx512") == {"step mlp": 1.0}


def test_other_processors_and_instruction_sets_do_not_count():
    history = [at(9.0, processor="other"), at(9.0, isa="avx2"), at(1.0)]
    assert medians(history, "one", "avx512") == {"step mlp": 1.0}
    assert medians(history, "third", "avx512") == {}


def test_what_is_new_has_not_fallen_and_what_is_gone_has():
    assert fallen({"step new": 0.1}, {}) == []
    assert fallen({}, {"step mlp": 1.0}) == ["step mlp"]


def test_what_is_kept_is_read_again(tmp_path):
    path = tmp_path / "gate.jsonl"
    assert read(path) == []
    keep(path, at(1.0))
    keep(path, at(2.0))
    assert read(path) == [at(1.0), at(2.0)]
