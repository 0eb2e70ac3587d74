"""A small GPT is tuned by a fleet: all its weights, or adapters beside them.

    python benchmarks/adapters.py --data shakespeare:roles.jsonl.gz [--start START.onnx] [--pretrain STEPS]
                                  [--cases NAME ...] [--rounds N] [--lr LR] [--adapters-lr LR] [--json FILE]

Four causal blocks of width 128 over 128 characters. It is trained on the text of most roles, in lower case and without
punctuation; --start keeps the result for the next run. Then the six roles with the most text are devices, and tune it
to text as it is written. All take part in each round, with Adam, and the default codecs. The loss is of the text that
follows.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "lib"))

import edgefl
from edgefl.data.characters import ALPHABET, BLANK
from edgefl.data.dataset import Dataset

STEPS, DEVICES, WINDOWS, TEST_WINDOWS, BATCH = 128, 6, 24, 12, 8
CASES: dict[str, dict[str, Any] | None] = {
    "all weights": None,
    "A and B, rank 8": {"rank": 8, "trained": "AB"},
    "A and B, rank 4": {"rank": 4, "trained": "AB"},
    "B, rank 8": {"rank": 8},
    "B, rank 4": {"rank": 4},
}


def gpt() -> bytes:
    """The untrained net, as PyTorch's older exporter writes it."""
    import torch
    import torch.nn.functional as F
    from large_models import Block
    from torch import Tensor, nn

    class Causal(Block):
        def forward(self, x: Tensor) -> Tensor:
            samples, steps, width = x.shape
            parts = self.qkv(self.norm1(x)).view(samples, steps, 3, self.heads, width // self.heads)
            y = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4), is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(samples, steps, width))
            return x + self.narrow(F.gelu(self.wide(self.norm2(x))))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(len(ALPHABET), 128)
            self.places = nn.Parameter(torch.randn(1, STEPS, 128) * 0.02)
            self.blocks = nn.Sequential(*(Causal(128, 4) for _ in range(4)))
            self.norm, self.fc = nn.LayerNorm(128), nn.Linear(128, len(ALPHABET))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.norm(self.blocks(self.embed(x) + self.places)))

    torch.manual_seed(0)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Gpt().eval(), (torch.zeros((2, STEPS), dtype=torch.int64),), buffer, dynamo=False, opset_version=17,
            do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE, input_names=["input"],
            output_names=["output"], dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
        )  # fmt: skip
    return buffer.getvalue()


def plain() -> np.ndarray:
    """The token of each character in lower case; that of a blank for what is no letter."""
    return np.array([ALPHABET.index(c.lower()) if c.isalpha() else BLANK for c in ALPHABET])


def parts(spec: str) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """The devices' data; and x, y (n, STEPS) that the model is trained on before."""
    data = edgefl.data.load(f"{spec}?window={STEPS}")
    assert data.device_train is not None
    long = np.argsort(np.bincount(data.device_train))[::-1][:DEVICES]
    mine = np.stack([np.flatnonzero(data.device_train == device)[: WINDOWS + TEST_WINDOWS] for device in long])
    where, tests, lower = mine[:, :WINDOWS].ravel(), mine[:, WINDOWS:].ravel(), plain()
    others = ~np.isin(data.device_train, long)
    tuned = Dataset(
        data.x_train[where], data.y_train[where], data.x_train[tests], data.y_train[tests],
        device_train=np.repeat(np.arange(DEVICES), WINDOWS),
    )  # fmt: skip
    return tuned, lower[data.x_train[others]], lower[data.y_train[others]]


def started(options: argparse.Namespace, x: np.ndarray, y: np.ndarray) -> bytes:
    """The file that the fleet begins with."""
    if options.start is not None and options.start.exists():
        return bytes(options.start.read_bytes())
    model, rng = edgefl.load(gpt()), np.random.default_rng(0)
    chosen = rng.permutation(len(x))[: options.pretrain * BATCH]
    trainer = edgefl.Trainer(model.plan, batch=BATCH)
    result = trainer.fit(
        model.params, x[chosen], y[chosen], epochs=1, batch_size=BATCH, lr=1e-3, optimizer="adam", clip_norm=1.0
    )
    print(f"trained before: {result.steps} steps, mean loss {result.loss:.3f}")
    file = model.to_bytes(model.params + result.delta)
    if options.start is not None:
        options.start.write_bytes(file)
    return file


def tune(name: str, file: bytes, data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    adapters = CASES[name]
    model = edgefl.load(file, adapters=adapters)
    began = time.perf_counter()
    lr = options.lr if adapters is None else options.adapters_lr
    history = edgefl.simulate(
        model, data, devices=DEVICES, rounds=options.rounds, partition="natural", epochs=1, batch_size=BATCH, lr=lr,
        optimizer="adam", workers=1,
    )  # fmt: skip
    rounds = history.rounds
    later = [record.bytes_down / record.reported for record in rounds[1:]]
    return {
        "trained": model.plan.num_trainable,
        "up": round(float(np.mean([record.bytes_up / record.reported for record in rounds]))),
        "first": round(rounds[0].bytes_down / rounds[0].reported),
        "later": round(float(np.mean(later))),
        "accuracy": rounds[-1].accuracy,
        "loss": rounds[-1].loss,
        "arena": edgefl.Trainer(model.plan, batch=BATCH).arena_bytes,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="SPEC", help="shakespeare:FILE")
    parser.add_argument(
        "--start", type=Path, metavar="FILE", help="the model to begin with; it is made if it is missing"
    )
    parser.add_argument("--pretrain", type=int, default=400, metavar="STEPS")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help="; ".join(CASES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--adapters-lr", type=float, default=1e-2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is None:
        print("not run: give --data shakespeare:FILE")
        return
    data, x, y = parts(options.data)
    file = started(options, x, y)
    model = edgefl.load(file)
    before = edgefl.Trainer(model.plan, batch=BATCH).evaluate(model.params, data.x_test, data.y_test)
    print(f"{model.plan.num_params:,} params; before: accuracy {before.accuracy:.4f}, loss {before.loss:.3f}")
    print("| trained | params | kB up | kB down, first | kB down, later | accuracy | loss | arena MB | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    found = {}
    for name in options.cases:
        of = found[name] = tune(name, file, data, options)
        sizes = f"{of['up'] / 1e3:.1f} | {of['first'] / 1e3:.0f} | {of['later'] / 1e3:.1f}"
        scores = f"{of['accuracy']:.4f} | {of['loss']:.3f} | {of['arena'] / 1e6:.1f} | {of['seconds']}"
        print(f"| {name} | {of['trained']:,} | {sizes} | {scores} |", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
