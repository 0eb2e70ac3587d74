"""The next character: a GRU on what people write, one person a device.

Without an argument, twelve people write sentences of a small grammar, each with favourite words. With a folder of .txt
files each file is a person, such as a role of a play. The table of characters is fixed beforehand, so that no device
has to tell which ones it has.

    python examples/next_character.py
"""

import sys
from pathlib import Path

import numpy as np

import edgefl
from edgefl.data import Dataset
from edgefl.onnx.templates import Examples, template

CHARACTERS = "\n !',-.:;?abcdefghijklmnopqrstuvwxyz"  # all others are a blank
LENGTH, PEOPLE, SENTENCES = 40, 12, 90
WORDS = (
    "the old mill|a grey heron|her brother|the river",
    "waits for|has seen|turns from|sings to",
    "rain|the moon|us all|home",
)


def invented(person: int) -> str:
    """What this person writes."""
    rng = np.random.default_rng(person)
    columns = [words.split("|") for words in WORDS]
    likes = [rng.dirichlet(np.ones(len(column))) for column in columns]
    said = ([rng.choice(column, p=p) for column, p in zip(columns, likes, strict=True)] for _ in range(SENTENCES))
    return "".join(" ".join(words) + ".\n" for words in said)


def tokens(text: str) -> np.ndarray:
    """The numbers of its characters in CHARACTERS."""
    return np.array([max(CHARACTERS.find(letter), 1 if letter != "\n" else 0) for letter in text.lower()], np.int64)


def main() -> None:
    files = sorted(Path(sys.argv[1]).glob("*.txt")) if len(sys.argv) > 1 else []
    texts = [file.read_text(encoding="utf-8") for file in files] or [invented(person) for person in range(PEOPLE)]
    train, test, owner = [], [], []
    for person, text in enumerate(texts):
        cut = tokens(text)
        cut = cut[: (len(cut) - 1) // LENGTH * LENGTH + 1]
        pairs = list(zip(cut[:-1].reshape(-1, LENGTH), cut[1:].reshape(-1, LENGTH), strict=True))
        held = max(1, len(pairs) // 5)
        test += pairs[-held:]
        train += pairs[:-held]
        owner += [person] * (len(pairs) - held)
    (x, y), (x_test, y_test) = ([np.stack(side) for side in zip(*pairs, strict=True)] for pairs in (train, test))
    fleet = Dataset(x, y, x_test, y_test, device_train=np.array(owner))
    size = len(CHARACTERS)
    model = edgefl.load(template("gru", Examples((LENGTH,), size, tokens=size, steps=True)), y=y)
    history = edgefl.simulate(
        model, fleet, devices=len(texts), partition="natural", rounds=15, epochs=2, optimizer="adam", lr=0.01
    )
    guess = np.bincount(y.ravel()).argmax()
    print(f"{len(texts)} people; always guessing {CHARACTERS[guess]!r}: accuracy {(y_test == guess).mean():.3f}")
    first, last = history.rounds[0].accuracy, history.final.accuracy
    print(f"the model: accuracy {first:.3f} after one round, {last:.3f} after {len(history.rounds)}")


if __name__ == "__main__":
    main()
