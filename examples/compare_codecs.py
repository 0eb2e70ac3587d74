"""Compare codecs on one federation: accuracy, and bytes up.

python examples/compare_codecs.py
"""

import edgefl

CODECS = ("raw32", "ecq", "ecq-sparse")


def main() -> None:
    print("codec      accuracy  kB up an update  smaller than float32")
    for codec in CODECS:
        history = edgefl.simulate("mlp:64-100-10", "digits", devices=20, rounds=20, codec=codec, downlink="raw32")
        final = history.final
        updates = sum(record.reported for record in history.rounds)
        smaller = final.float32_bytes / final.bytes_up
        print(f"{codec:<10} {final.accuracy:>8.3f}  {final.bytes_up / updates / 1000:>15.2f}  {smaller:>19.1f}x")


if __name__ == "__main__":
    main()
