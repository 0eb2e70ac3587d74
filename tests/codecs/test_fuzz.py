"""The corpus that fuzzing left (tests/fuzz/codecs.py): every input counts rightly or leaves no trace."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location

from conftest import ROOT

SPEC = spec_from_file_location("fuzz_codecs", ROOT / "tests" / "fuzz" / "codecs.py")
assert SPEC is not None and SPEC.loader is not None
FUZZ = module_from_spec(SPEC)
SPEC.loader.exec_module(FUZZ)


def test_the_corpus_is_harmless():
    targets = {}
    ends = set()
    for name, size, payload in FUZZ.kept():
        target = targets.setdefault((name, size), FUZZ.Target(name, size))
        ends.add(target.run(payload))
    assert len(ends) > 20  # it is a corpus of ways to end
