"""SHA-256 is hashlib's, whoever computes it, and who that is depends on the length and on what is loaded."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from edgefl import digests

LENGTHS = [0, 1, 55, 56, 63, 64, 65, 1000, 70_000]


@pytest.mark.parametrize("openssl", [False, True])
def test_the_digest_is_that_of_hashlib(openssl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not openssl:
        monkeypatch.delitem(sys.modules, "_hashlib")
    for length in LENGTHS:
        blob = np.random.default_rng(length).bytes(length)
        assert digests.sha256(blob).hexdigest() == hashlib.sha256(blob).hexdigest()
        assert (
            digests.sha256(blob, memoryview(blob)[3:], b"more").digest()
            == hashlib.sha256(blob + blob[3:] + b"more").digest()
        )
        grows = digests.sha256(blob)
        grows.update(b"x")
        assert grows.digest() == hashlib.sha256(blob + b"x").digest()
    numbers = np.arange(12, dtype=np.float32)
    assert digests.sha256(numbers.data).digest() == hashlib.sha256(numbers.tobytes()).digest()


def test_openssl_is_loaded_for_what_is_large_alone() -> None:
    code = f"""
import sys
from edgefl.digests import sha256
sha256(bytes({digests.LARGE}))
print("_hashlib" in sys.modules)
sha256(bytes({digests.LARGE // 2}), bytes({digests.LARGE // 2}), b"x")
print("_hashlib" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_a_python_without_it_takes_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_without_openssl", None)
    monkeypatch.delitem(sys.modules, "_hashlib")
    assert digests.sha256(b"abc").hexdigest() == hashlib.sha256(b"abc").hexdigest()
