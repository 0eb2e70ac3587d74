"""A federation on one machine: fifty devices with unlike data, a fifth of them asked in each round.

python examples/simulate_fleet.py
"""

import edgefl


def main() -> None:
    history = edgefl.simulate(
        "mlp:64-32-10",  # or the path of an ONNX file
        "digits",
        devices=50,
        rounds=30,
        fraction=0.2,
        partition="dirichlet:0.5",  # each device holds some digits often and others hardly ever
        faults="dropout:0.05:1",  # one training in twenty loses power, for a second
        seed=0,
    )
    for record in history.rounds[::6]:
        print(f"round {record.round:>2}: {record.reported:>2} devices reported, accuracy {record.accuracy:.3f}")
    final = history.final
    print(
        f"in the end {final.accuracy:.3f}, after {final.bytes_up / 1e6:.2f} MB up, {final.bytes_down / 1e6:.2f} MB down"
    )


if __name__ == "__main__":
    main()
