"""Codecs from outside: found by entry point and by module:Class, refused by name and reason, never from a message."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from machines import make_manifest

from edgefl import codecs
from edgefl.codecs import Codec
from edgefl.errors import UsageError
from edgefl.testing import check_codec

from .conftest import Install, codec_source


def test_a_codec_is_found_by_its_entry_point_by_module_and_class_and_as_it_is(install: Install) -> None:
    install("loud-things", "loud_things", codec_source(), codecs={"loud": "loud_things:Loud"})
    by_name, by_place = codecs.get("loud", gain=2.0), codecs.get("loud_things:Loud", gain=2.0)
    assert type(by_name) is type(by_place) and by_name.wire_id == 200
    assert codecs.get(by_name) is by_name and codecs.get(type(by_name), gain=3).gain == 3
    check_codec(codecs.get("loud"))


def test_a_built_in_is_never_replaced_and_both_packages_are_named(install: Install) -> None:
    install("sly", "sly", codec_source("raw32"), codecs={"raw32": "sly:Loud"})
    with pytest.raises(UsageError, match="codec 'raw32' is in package 'sly' and in 'edgefl-toolkit'"):
        codecs.get("raw32")
    assert type(codecs.get("ecq")).__module__ == "edgefl.codecs.ecq"
    assert type(codecs.from_wire("raw32", {})).__module__ == "edgefl.codecs.raw32"


def test_two_packages_of_one_name_are_both_named(install: Install) -> None:
    install("loud-things", "loud_things", codec_source(), codecs={"loud": "loud_things:Loud"})
    install("noisy", "noisy", codec_source(wire_id=201), codecs={"loud": "noisy:Loud"})
    for ask in (codecs.get, lambda name: codecs.from_wire(name, {})):
        with pytest.raises(UsageError, match=r"codec 'loud' is in package '(noisy|loud-things)' and in '(?!\1)"):
            ask("loud")
    assert codecs.get("ecq").name == "ecq"


BROKEN = {
    "raise RuntimeError('no GPU')": "of package 'broken' can't be imported: RuntimeError: no GPU",
    "x = 1": "of package 'broken' can't be imported: AttributeError: module 'broken' has no attribute 'Loud'",
    "Loud = 5": "of package 'broken' is int: it must be a class",
    "class Loud: name, wire_id = 'loud', 200": "lacks accumulate, bound, decode, encode: a Codec must have",
    "from edgefl.codecs import Codec\nclass Loud(Codec):\n  name, wire_id = 'loud', 200\n  def bound(self, n): ...":
        "of package 'broken' lacks accumulate, decode, encode",
    codec_source(name="quiet"): "calls itself 'quiet': its entry point must have the same name",
    codec_source(name="loud", wire_id=127): "has the wire id 127: 128 to 255 are free for outsiders",
    codec_source(name="loud", wire_id=256): "has the wire id 256: 128 to 255 are free for outsiders",
    codec_source(name="loud", wire_id=1.5): "has the wire id 1.5",
    codec_source(name="loud").replace('name = "loud"', "name = 3"): "has the name 3",
}  # fmt: skip


@pytest.mark.parametrize("source", BROKEN)
def test_a_broken_codec_is_named_with_package_and_reason_when_it_is_asked_for(install: Install, source: str) -> None:
    install("broken", "broken", source, codecs={"loud": "broken:Loud"})
    install("fine", "fine", codec_source("soft", 130, "Soft"), codecs={"soft": "fine:Soft"})
    with pytest.raises(UsageError, match=r"codec 'loud'.*package 'broken'") as error:
        codecs.get("loud")
    assert BROKEN[source] in str(error.value)
    assert codecs.get("soft").wire_id == 130  # nobody else minds
    assert codecs.get("ecq").name == "ecq"


def test_a_wire_id_that_another_plug_in_has_is_refused_with_both(install: Install) -> None:
    install("one", "one", codec_source("first", 140, "First"), codecs={"first": "one:First"})
    install("two", "two", codec_source("second", 140, "Second"), codecs={"second": "two:Second"})
    with pytest.raises(UsageError, match="'first' of package 'one' has the wire_id 140, which package 'two' has too"):
        codecs.get("first")


def test_a_misspelt_name_gets_the_nearest_of_all_and_wrong_types_say_what_is_wanted(install: Install) -> None:
    install("loud-things", "loud_things", codec_source(), codecs={"loud": "loud_things:Loud"})
    with pytest.raises(UsageError, match="unknown codec 'luod': did you mean 'loud'"):
        codecs.get("luod")
    with pytest.raises(UsageError, match="codec 'nowhere:Loud' can't be imported: ModuleNotFoundError"):
        codecs.get("nowhere:Loud")
    with pytest.raises(UsageError, match=r"codec 'loud' of package .* has no option 'gian': did you mean 'gain'"):
        codecs.get("loud", gian=1)
    with pytest.raises(UsageError, match="can't be made with"):
        codecs.get("loud", gain="much")
    for wrong in (5, None, ["ecq"]):
        with pytest.raises(UsageError, match="give a name, 'module:Class', a class or an object"):
            codecs.get(wrong)
    with pytest.raises(UsageError, match="has its options already: leave out step"):
        codecs.get(codecs.get("ecq"), step=2.0)


def test_i14_a_message_never_names_a_module(install: Install) -> None:
    """An operator may write module:Class. A manifest with it would make every device import what it says."""
    install("loud-things", "loud_things", codec_source())
    for name in ("loud_things:Loud", "loud", "os:system", "edgefl.codecs.ecq:Ecq"):
        for manifest in (make_manifest(codec=name), make_manifest(downlink=name)):
            with pytest.raises(UsageError, match="unknown codec"):
                manifest.check_codecs()
    assert "loud_things" not in sys.modules
    assert codecs.offer("loud_things:Loud") == "loud"  # as a device's own configuration lists it
    assert make_manifest(codec="loud", codec_options={"gain": 2.0}).update_codec.gain == 2.0
    assert make_manifest(downlink="loud").model_codecs[1].name == "loud"
    with pytest.raises(UsageError, match="unknown codec 'loud_things:Loud'"):
        make_manifest(codec="loud_things:Loud").check_codecs()


def test_what_is_installed_needs_no_list(install: Install) -> None:
    install("loud-things", "loud_things", codec_source(), codecs={"loud": "loud_things:Loud"})
    assert make_manifest(codec="loud").update_codec.name == "loud"
    assert codecs.offer("loud") == codecs.offer("loud_things:Loud") == "loud" and codecs._offered == {}
    assert codecs.offer("ecq") == codecs.offer(codecs.get("ecq")) == "ecq" and codecs._offered == {}


def test_what_is_offered_takes_nobodys_place(install: Install) -> None:
    install("loud-things", "loud_things", codec_source(), codecs={"loud": "loud_things:Loud"})
    install("x", "other", codec_source("loud", 150) + codec_source("ecq", 151, "Ecq") + codec_source("f16", 152, "F16"))
    for place, reason in (
        ("other:Loud", "has the name 'loud'"),
        ("other:Ecq", "a codec of edgefl"),
        ("other:F16", "a codec of"),
    ):
        with pytest.raises(UsageError, match=reason):
            codecs.offer(place)


def test_a_class_that_a_notebook_defines_again_takes_its_own_place() -> None:
    def cell(gain: float) -> type[Codec]:
        class Mine(codecs.get("raw32").__class__):  # type: ignore[misc]
            name, wire_id = "mine", 222

            def encode(self, delta: np.ndarray, rms: float | None = None) -> bytes:
                return super().encode(delta * np.float32(gain), rms)

        return Mine

    try:
        for gain in (1.0, 2.0):
            assert codecs.offer(cell(gain)()) == "mine"
            made = codecs.from_wire("mine", {})
            assert made.decode(made.encode(np.float32([1])), 1).tolist() == [gain]
    finally:
        codecs._offered.clear()
