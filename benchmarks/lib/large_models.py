"""Models at the upper end of what a small computer trains, in torch; its older exporter writes the files.

`LARGE` maps a name to its net, batch and kind of data, as models.MODELS does for the small ones.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from models import VOCABULARY, Spec
from torch import Tensor, nn


class Residual(nn.Module):
    """He et al. 2016."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        skip = (nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        self.short = nn.Identity() if c_in == c_out else nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.short(x))


def resnet18() -> nn.Module:
    """For images of 32 x 32: a first convolution of 3 x 3, and no pool behind it. 11.2 million params."""
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    sizes = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2)]
    blocks = [Residual(*size) for size in (*sizes, (512, 512, 1))]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class Inverted(nn.Module):
    """Sandler et al. 2018."""

    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = c_in * expand
        parts: list[nn.Module] = []
        if expand > 1:
            parts += [nn.Conv2d(c_in, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        parts += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        self.body = nn.Sequential(*parts, nn.Conv2d(wide, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
        self.shortcut = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


def mobilenet_v2() -> nn.Module:
    """Width 1.0: 2.2 million params, and ten classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    c_in = 32
    for expand, c_out, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for at in range(count):
            layers.append(Inverted(c_in, c_out, stride if at == 0 else 1, expand))
            c_in = c_out
    layers += [nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10))


class Encoder(nn.Module):
    """Four blocks of width 128 with four heads over 128 characters, learned places, no mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(VOCABULARY, 128), nn.Parameter(torch.randn(1, 128, 128) * 0.02)
        self.blocks = nn.Sequential(*(Block(128, 4) for _ in range(4)))
        self.norm, self.fc = nn.LayerNorm(128), nn.Linear(128, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.blocks(self.embed(x) + self.places)).mean(1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, steps, width = x.shape
        parts = self.qkv(self.norm1(x)).view(samples, steps, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(samples, steps, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class WideLstm(nn.Module):
    """Two layers of 512 units over 80 characters; the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(VOCABULARY, 64), nn.LSTM(64, 512, 2, batch_first=True)
        self.fc = nn.Linear(512, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(self.embed(x))[0][:, -1])


@dataclass(frozen=True)
class Large(Spec):
    """A Spec whose file is exported from `net`."""

    net: Callable[[], nn.Module] = nn.Identity
    shape: tuple[int, ...] = ()

    def twin(self) -> nn.Module:
        torch.manual_seed(0)
        return self.net().train()

    def file(self) -> bytes:
        x = torch.zeros((2, *self.shape), dtype=torch.int64) if self.tokens else torch.zeros((2, *self.shape))
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self.twin().eval(), (x,), buffer, dynamo=False, opset_version=17, do_constant_folding=False,
                training=torch.onnx.TrainingMode.PRESERVE, input_names=["input"], output_names=["output"],
                dynamic_axes={"input": {0: "N"}, "output": {0: "N"}},
            )  # fmt: skip
        return buffer.getvalue()


def _large(net: Callable[[], nn.Module], shape: tuple[int, ...], batch: int, tokens: int | None = None) -> Large:
    made = Large(bytes, batch, VOCABULARY if tokens else 10, tokens, net, shape)
    return Large(made.file, batch, made.classes, tokens, net, shape)


LARGE = {
    "resnet18": _large(resnet18, (3, 32, 32), 32),
    "transformer": _large(Encoder, (128,), 8, VOCABULARY),
    "wide_lstm": _large(WideLstm, (80,), 10, VOCABULARY),
    "mobilenet_v2": _large(mobilenet_v2, (3, 96, 96), 8),
}
