"""What a codec costs in accuracy and saves in bytes, on one federation.

python examples/compare_codecs.py
"""

import edgefl
from edgefl import data
from edgefl.onnx import zoo
from edgefl.onnx.load import load

CODECS = ("raw32", "ecq", "ecq-sparse")


def main() -> None:
    model, digits = load(zoo.mlp([64, 100, 10])), data.load("digits")
    print("codec      accuracy  kB up an update  smaller than float32")
    for codec in CODECS:
        history = edgefl.simulate(model, digits, devices=20, rounds=20, codec=codec, seed=0)
        final = history.final
        updates = sum(record.reported for record in history.rounds)
        smaller = final.float32_bytes / final.bytes_up
        print(f"{codec:<10} {final.accuracy:>8.3f}  {final.bytes_up / updates / 1000:>15.2f}  {smaller:>19.1f}x")


if __name__ == "__main__":
    main()
