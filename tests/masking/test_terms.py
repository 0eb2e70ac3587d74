"""Terms: H is of the bytes as they came, and terms under which anything could go wrong are refused."""

from __future__ import annotations

import hashlib
import json

import masked
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgefl.errors import ProtocolError
from edgefl.protocol.profile_terms import ProfileTerms
from edgefl.protocol.round import Frame, Round
from edgefl.protocol.terms import Noise, Terms, Votes


def test_the_digest_is_of_the_bytes_as_they_came():
    text = masked.terms().text
    spaced = text.replace(",", ", ", 1)
    assert Terms.read(spaced).digest == hashlib.sha256(b"edgefl terms 1\n" + spaced.encode()).digest()
    assert Terms.read(spaced).digest != Terms.read(text).digest


def test_every_field_changes_the_digest():
    own = masked.terms()
    changes = {
        "federation": "works", "run": "ff" * 8, "round": 4, "version": 3, "model_sha256": "cd" * 32,
        "manifest": "ee" * 8, "params": 101, "coordinates": 41, "seed": 6, "bits": 13, "reach": 99, "grid": 0.02,
        "clip": 0.9, "norm2": 20_001, "least": 3, "most": 11, "helpers": (masked.helper("south").party,),
        "transform": "hadamard", "whole": 3, "weights": 2, "examples": 2, "scores": True, "groups": 2,
        "votes": Votes(2, 5), "noise": Noise("independent", 1.0), "epsilon": 1.0, "delta": 1e-5,
        "profile": ProfileTerms(3),
    }  # fmt: skip
    assert set(changes) == set(Terms.__struct_fields__)
    made = {Terms(**{**fields_of(own), name: value}).digest for name, value in changes.items()}
    assert len(made | {own.digest}) == len(changes) + 1


def fields_of(own: Terms) -> dict:
    return {name: getattr(own, name) for name in own.__struct_fields__}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"least": 1}, "least"),
        ({"coordinates": 101}, "more coordinates than params"),
        ({"whole": 40}, "fewer coordinates than are sent whole, or none"),
        ({"whole": 101}, "fewer coordinates than are sent whole, or none"),
        ({"least": 9, "most": 8}, "above the most"),
        ({"groups": 7}, "more groups"),
        ({"bits": 11}, "a modulus too small"),
        ({"reach": 171}, "a modulus too small"),
        ({"most": 21}, "a modulus too small"),
        ({"weights": 171, "norm2": 40_000}, "a modulus too small"),
        ({"noise": Noise("independent", 150.0)}, "a modulus too small"),
        ({"weights": 150}, "a squared norm below"),
        ({"scores": True, "norm2": 12_000}, "a squared norm below"),
        ({"votes": Votes(1, 150)}, "a squared norm below"),
        ({"votes": Votes(1, 171), "norm2": 40_000}, "a modulus too small"),
        ({"votes": Votes(0, 5)}, "votes without a size, or a size without"),
        ({"votes": Votes(5, 0)}, "votes without a size, or a size without"),
        ({"votes": Votes(1, 5), "noise": Noise("banded", 1.0, band=4, separation=4, rounds=9)}, "banded noise, whose"),
        ({"grid": 1e-10}, "a grid too fine"),
        ({"helpers": (masked.helper().party,) * 2}, "two helpers of one name"),
        (
            {"helpers": (masked.helper().party, replace(masked.helper().party, name="south"))},
            "two helpers with one key",
        ),
        ({"helpers": (replace(masked.helper().party, box="?" * 44),)}, "a key that can't be"),
        ({"noise": Noise("independent")}, "without a sigma"),
        ({"noise": Noise("none", 1.0)}, "without a sigma"),
        ({"noise": Noise("independent", 1.0, band=4)}, "a band without"),
        ({"noise": Noise("banded", 1.0, separation=4, rounds=9)}, "without a band"),
        ({"noise": Noise("banded", 1.0, band=5, separation=4, rounds=9)}, "above the separation"),
        ({"noise": Noise("independent", 1.0), "weights": 2}, "weights whose sum"),
        ({"epsilon": 1.0}, "an epsilon without noise"),
        ({"bits": 33}, "bits"),
        ({"grid": 0.0}, "grid"),
        ({"helpers": ()}, "helpers"),
        ({"run": ""}, "run"),
    ],
)
def test_terms_that_cant_be_are_refused(changes, words):
    with pytest.raises(ProtocolError, match=words):
        masked.terms(**{"norm2": 20_000, **changes})


def test_a_field_that_is_not_known_is_refused():
    told = json.loads(masked.terms().text)
    with pytest.raises(ProtocolError, match="unknown field"):
        Terms.read(json.dumps({**told, "rotation": 2}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "{" * 3000,
        '{"federation": 1e999}',
        "\ud800".encode("utf-8", "replace").decode() * 10,
        "x" * 5000,
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ProtocolError):
        Terms.read(text)


@given(
    bits=st.integers(2, 32), reach=st.integers(1, 2**31), most=st.integers(2, 2**20), weights=st.integers(1, 2**20),
    scores=st.booleans(), sigma=st.sampled_from([0.0, 0.5, 40.0, 1e6]),
)  # fmt: skip
def test_honest_extremes_never_wrap(bits, reach, most, weights, scores, sigma):
    """Terms are refused exactly where devices at their limits, with the bound of the noise, could wrap."""
    if sigma:
        weights = 1
    noise = Noise("independent", sigma) if sigma else Noise()
    fields = fields_of(masked.terms()) | {
        "bits": bits, "reach": reach, "most": most, "weights": weights, "scores": scores, "norm2": 2**62,
        "noise": noise,
    }  # fmt: skip
    own = Terms(**fields)
    extremes = [reach, weights, 1] + [own.most_score] * scores
    fits = all(
        -(2 ** (bits - 1)) < s * most * each + s * own.noise_bound < 2 ** (bits - 1)
        for each in extremes
        for s in (1, -1)
    )
    if fits:
        own.check()
    else:
        with pytest.raises(ProtocolError, match="a modulus too small"):
            own.check()


def make_round(own: Terms, **changes) -> Round:
    fields = {
        "manifest": own.manifest, "state": "open", "round": own.round, "attempt": 1, "version": own.version,
        "model_sha256": own.model_sha256, "frames": [Frame(own.version, "ab" * 8, 100, 0)], "deadline_s": 60.0,
        "run": own.run, "requires": ["masked"], "terms": own.text,
    }  # fmt: skip
    return Round(**fields | changes)


def test_terms_are_of_one_round():
    own = masked.terms()
    own.check_round(make_round(own), "plant")
    own.check_round(make_round(own, attempt=7), "plant")  # which asks for the same work
    changes = [
        {"manifest": "ef" * 8}, {"round": 4}, {"version": 1}, {"model_sha256": "ee" * 32}, {"run": "ff" * 8},
        {"mode": "evaluate"}, {"requires": []},
    ]  # fmt: skip
    for changed in changes:
        with pytest.raises(ProtocolError, match="of another round or model"):
            own.check_round(make_round(own, **changed), "plant")
    with pytest.raises(ProtocolError, match="of another round or model"):
        own.check_round(make_round(own), "works")


def test_groups_are_fixed_by_terms_and_name():
    own = masked.terms(groups=3)
    groups = [own.group_of(f"dev-{i}") for i in range(300)]
    assert {groups.count(each) > 70 for each in range(3)} == {True}
    assert groups != [masked.terms(groups=3, seed=6).group_of(f"dev-{i}") for i in range(300)]


def test_weights():
    own = masked.terms(weights=4, examples=50)
    assert [own.weight_of(n) for n in (1, 50, 51, 200, 201, 10**6)] == [1, 1, 2, 4, 4, 4]
