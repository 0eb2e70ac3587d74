"""Arena and accuracy of sparse updates: MobileNetV2 1.0 at 96x96, trained on MNIST's digits 0-4, tuned on 5-9.

    python benchmarks/sparse_update.py --data mnist:DIR [--pretrained FILE] [--seeds 0 1 2] [--json FILE]

The network is PyTorch's (Sandler et al. 2018, arXiv:1801.04381), exported twice: as it is trained, with batch
normalization, and after that with it folded into the convolutions, as devices get it. Both trainings are this
project's. Each way to tune has the same examples and steps; of the learning rates the one that is best on examples held
out counts, and the table has the accuracy on MNIST's test part. A seed draws the new last layer, the examples and their
order; all seeds begin with the same trained network. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

import edgefl
from edgefl import codecs
from edgefl.core.mask import Mask, unchanging
from edgefl.onnx.model import Model
from edgefl.onnx.sparse import sparse

SIZE, BATCH, CLASSES = 96, 8, 5
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def convolution(
    i: int, o: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, act: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(o),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if act else []))


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, i: int, o: int, stride: int, times: int) -> None:
        super().__init__()
        wide, self.adds = i * times, stride == 1 and i == o
        first = [convolution(i, wide, 1)] if times > 1 else []
        self.layers = nn.Sequential(
            *first, convolution(wide, wide, 3, stride, groups=wide), convolution(wide, o, 1, act=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


def mobilenet() -> nn.Sequential:
    layers: list[nn.Module] = [convolution(3, 32, 3, 2)]
    i = 32
    for times, o, count, stride in STAGES:
        for k in range(count):
            layers.append(Block(i, o, stride if k == 0 else 1, times))
            i = o
    layers += [convolution(320, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, CLASSES)]
    return nn.Sequential(*layers)


def exported(net: nn.Module, *, folded: bool) -> Model:
    buffer, mode = io.BytesIO(), torch.onnx.TrainingMode
    net.eval()
    torch.onnx.export(
        net, (torch.zeros(1, 3, SIZE, SIZE),), buffer, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}},
        training=mode.EVAL if folded else mode.PRESERVE, do_constant_folding=folded,
    )  # fmt: skip
    return edgefl.load(buffer.getvalue(), loss="cross_entropy")


def images(flat: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(np.asarray(flat, np.float32).reshape(-1, 1, 28, 28))
    wide = nn.functional.interpolate(x, size=SIZE, mode="bilinear", align_corners=False)
    return wide.repeat(1, 3, 1, 1).numpy()


def digits(spec: str, below: bool, train: int, test: int, seed: int | None = None) -> tuple[np.ndarray, ...]:
    """The first examples, or some that the seed draws; those to test on are always the same."""
    data = edgefl.data.load(spec)
    assert data.x_test is not None and data.y_test is not None
    parts = []
    for x, y, n in ((data.x_train, data.y_train, train), (data.x_test, data.y_test, test)):
        rows = np.flatnonzero((np.asarray(y) < CLASSES) == below)
        if seed is not None and n == train:
            rows = np.random.default_rng(seed).permutation(rows)
        rows = rows[:n]
        parts += [np.asarray(x)[rows], np.asarray(y)[rows].astype(np.int64) % CLASSES]
    return tuple(parts)


def read_into(net: nn.Module, graph: onnx.GraphProto) -> None:
    """The file's weights, node by node: the exporter stores equal ones once, behind an Identity."""
    fields = {"Conv": ("weight",), "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
              "Gemm": ("weight", "bias")}  # fmt: skip
    stored = {tensor.name: tensor for tensor in graph.initializer}
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    modules = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    nodes = [node for node in graph.node if node.op_type in fields]
    for module, node in zip(modules, nodes, strict=True):
        for field, name in zip(fields[node.op_type], node.input[1:], strict=True):
            array = numpy_helper.to_array(stored[same.get(name, name)])
            getattr(module, field).data.copy_(torch.from_numpy(array.copy()))


def pretrain(spec: str, n: int, file: Path | None) -> nn.Sequential:
    """Trained on 0-4."""
    torch.manual_seed(0)
    net = mobilenet()
    if file is not None and file.exists():
        proto = onnx.load(file)
    else:
        model = exported(net, folded=False)
        x, y, x_test, y_test = digits(spec, True, n, 1000)
        trainer, params = edgefl.Trainer(model.plan, batch=32), model.params.copy()
        for start in range(0, n, 640):
            part = slice(start, start + 640)
            lr = 0.05 if start < 0.8 * n else 0.01
            params = (
                params
                + trainer.fit(
                    params, images(x[part]), y[part], batch_size=32, lr=lr, momentum=0.9, weight_decay=4e-5, seed=start
                ).delta
            )
        print(f"digits 0-4: {trainer.evaluate(params, images(x_test), y_test).accuracy:.1%} on the test part")
        proto = onnx.load_from_string(model.to_bytes(params))
        if file is not None:
            onnx.save(proto, file)
    read_into(net, proto.graph)
    return net


def with_new_head(net: nn.Sequential, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    nn.init.normal_(net[-1].weight, std=0.01)
    nn.init.zeros_(net[-1].bias)
    return net


def update_bytes(model: Model, delta: np.ndarray) -> tuple[int, int]:
    """What a device sends of this delta: as float32, and by the usual codec."""
    mask = Mask(model.plan, base=unchanging(model.plan))
    return 4 * mask.num_shared, len(codecs.get("ecq").for_tensors(mask.tensors).encode(mask.shared(delta)))


def tuned(model: Model, parts: Sequence[np.ndarray], epochs: int, rates: Sequence[float], seed: int) -> dict[str, Any]:
    """The row of one way to tune."""
    x, y, x_held, y_held, x_test, y_test = parts
    found: list[tuple[float, float, float, np.ndarray]] = []
    trainer = edgefl.Trainer(model.plan, batch=BATCH)
    for lr in rates:
        started = time.process_time()
        try:
            params = (
                model.params + trainer.fit(model.params, x, y, epochs=epochs, batch_size=BATCH, lr=lr, seed=seed).delta
            )
        except edgefl.EdgeFLError as error:
            print(f"lr {lr}: {error}")
            continue
        spent = 1000 * (time.process_time() - started) / (epochs * -(-len(y) // BATCH))
        found.append((float(trainer.evaluate(params, x_held, y_held).accuracy or 0), lr, spent, params))
    _, lr, spent, params = max(found, key=lambda row: row[0])
    raw, coded = update_bytes(model, params - model.params)
    return {
        "trained": model.plan.num_trainable,
        "update_mb": raw / 1e6,
        "coded_kb": coded / 1e3,
        "arena_mb": edgefl.Trainer(model.plan, batch=BATCH).arena_bytes / 1e6,
        "lr": lr,
        "step_ms": spent,
        "accuracy": trainer.evaluate(params, x_test, y_test).accuracy,
    }


def ways_of(
    options: argparse.Namespace, net: nn.Module, x: np.ndarray, y: np.ndarray
) -> dict[str, Callable[[], Model]]:
    """By name, how a model is made that trains in this way; x and y are what the choices see."""
    whole, folded = exported(net, folded=False), exported(net, folded=True)
    names = [param.name for param in folded.plan.params if param.trainable]
    biases = [name for name in names if len(folded.plan.params[names.index(name)].shape) == 1]
    head = names[-2:]
    ways: dict[str, Callable[[], Model]] = {
        "full, batch normalization too": lambda: whole,
        "full, batch normalization folded": lambda: folded,
        "last layer": lambda: folded.compile(folded.source, head),
        "biases and last layer": lambda: folded.compile(folded.source, [*biases, *head]),
    }
    for mb in options.budgets:
        for kind, channels in (("weights", False), ("channels", True)):
            ways[f"{kind}, {mb:g} MB"] = lambda mb=mb, channels=channels: sparse(
                folded, int(mb * 1e6), batch=BATCH, x=x, y=y, channels=channels
            )
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="SPEC")
    parser.add_argument("--pretrained", type=Path, metavar="FILE", help="read the trained network, or write it")
    parser.add_argument("--pretrain-examples", type=int, default=6400)
    parser.add_argument("--examples", type=int, default=1600, help="of digits 5-9")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--rates", type=float, nargs="*", default=[0.03, 0.01], help="of learning")
    parser.add_argument("--only", default="", metavar="TEXT", help="the ways to tune whose names contain it")
    parser.add_argument("--budgets", type=float, nargs="*", default=[10.5, 12, 16], metavar="MB")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    net = pretrain(options.data, options.pretrain_examples, options.pretrained)
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for seed in options.seeds:
        n, wanted = options.examples, options.examples + 500
        flat, labels, flat_test, y_test = digits(options.data, False, wanted, options.test, seed)
        x = images(flat)
        parts = (x[:n], labels[:n], x[n:], labels[n:], images(flat_test), y_test)
        for name, make in ways_of(options, with_new_head(net, seed), x[:64], labels[:64]).items():
            if options.only not in name:
                continue
            row = tuned(make(), parts, options.epochs, options.rates, seed)
            rows.setdefault(name, {})[seed] = row
            print(
                f"{name:34} seed {seed}: {row['trained']:>10,} trained, arena {row['arena_mb']:6.1f} MB, update "
                f"{row['update_mb']:.2f} MB, {row['coded_kb']:.1f} kB coded, {row['step_ms']:6.1f} ms a step, "
                f"lr {row['lr']:g}: {row['accuracy']:.1%}",
                flush=True,
            )
    for name, found in rows.items():
        scores = [row["accuracy"] for row in found.values()]
        print(f"{name:34} {np.mean(scores):.1%} +- {np.std(scores):.1%} of {len(scores)}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
