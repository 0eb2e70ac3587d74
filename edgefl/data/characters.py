"""Characters as tokens: the alphabet of LEAF's Shakespeare (Caldas et al. 2018, arXiv:1812.01097), 80 characters.

A character that the alphabet lacks is read as a blank, so every text can be used and all devices have one table.
"""

from __future__ import annotations

import string

import numpy as np

ALPHABET = "\n !\"&'(),-.0123456789:;>?" + string.ascii_uppercase + "[]" + string.ascii_lowercase + "}"
LINE_END, BLANK = ALPHABET.index("\n"), ALPHABET.index(" ")
_CODES = np.full(256, BLANK, np.int64)  # token of each character below 256
_CODES[[ord(letter) for letter in ALPHABET]] = np.arange(len(ALPHABET))


def tokens(text: str) -> np.ndarray:
    """(characters,) int64: the place of each character in ALPHABET."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return np.where(points < len(_CODES), _CODES[np.minimum(points, len(_CODES) - 1)], BLANK)
