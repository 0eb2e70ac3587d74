"""Small nets of torch, of every kind that EdgeFL trains, for its exporters to write."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Lambda(nn.Module):
    """A net whose forward is a function of itself and x."""

    def __init__(self, forward, **parts: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 5))


def small_cnn() -> nn.Module:
    convs = [nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(32, 10))


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.b, self.norm_b = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm_b(self.b(torch.relu(self.norm_a(self.a(x))))) + self.short(x))


def resnet() -> nn.Module:
    def forward(net, x: Tensor) -> Tensor:
        x = net.blocks(torch.relu(net.norm(net.stem(x))))
        return net.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))

    blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2), Block(16, 32, 2))
    stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    return Lambda(forward, stem=stem, norm=nn.BatchNorm2d(8), blocks=blocks, fc=nn.Linear(32, 10))


def depthwise() -> nn.Module:
    layers: list[nn.Module] = [nn.ZeroPad2d((1, 1, 4, 5)), nn.Conv2d(1, 8, (10, 4), 2, bias=False), nn.BatchNorm2d(8)]
    layers += [nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d((13, 5))]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 12), nn.Softmax(-1))


def inverted_residual() -> nn.Module:
    """MobileNet's block with squeeze and excitation."""

    def forward(net, x: Tensor) -> Tensor:
        x = net.stem(x)
        y = net.block(x)
        return net.fc((x + y * net.gate(y)).mean([2, 3]))

    expand = [nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6()]
    depth = [nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24), nn.Hardswish()]
    block = nn.Sequential(*expand, *depth, nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid())
    return Lambda(forward, stem=nn.Conv2d(3, 8, 3, 2, 1), block=block, gate=gate, fc=nn.Linear(8, 5))


def autoencoder() -> nn.Module:
    sizes, layers = [40, 32, 8, 32], []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 40))


def char_lstm() -> nn.Module:
    """Two layers; the next character after the last."""
    lstm = nn.LSTM(8, 12, 2, batch_first=True)
    return Lambda(
        lambda net, x: net.fc(net.lstm(net.embed(x))[0][:, -1]),
        embed=nn.Embedding(10, 8),
        lstm=lstm,
        fc=nn.Linear(12, 10),
    )


def char_lstm_bidirectional() -> nn.Module:
    """Two layers both ways; a class for every character."""
    lstm = nn.LSTM(8, 12, 2, batch_first=True, bidirectional=True)
    return Lambda(
        lambda net, x: net.fc(net.lstm(net.embed(x))[0]), embed=nn.Embedding(10, 8), lstm=lstm, fc=nn.Linear(24, 6)
    )


def lstm_state() -> nn.Module:
    return Lambda(
        lambda net, x: net.fc(net.lstm(x)[1][0][-1]), lstm=nn.LSTM(5, 6, batch_first=True), fc=nn.Linear(6, 3)
    )


def gru() -> nn.Module:
    return Lambda(
        lambda net, x: net.fc(net.gru(x)[0][:, -1, :]),
        gru=nn.GRU(5, 6, batch_first=True, bidirectional=True),
        fc=nn.Linear(12, 3),
    )


def gru_time_first() -> nn.Module:
    return Lambda(
        lambda net, x: net.fc(net.gru(x.permute(2, 0, 1))[0].mean(0)), gru=nn.GRU(5, 6, 2), fc=nn.Linear(6, 3)
    )


def series() -> nn.Module:
    """One-dimensional convolutions over windows of a sensor."""
    layers: list[nn.Module] = [nn.Conv1d(9, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2)]
    layers += [nn.Conv1d(16, 32, 3, padding=1, groups=2), nn.LeakyReLU(0.1), nn.MaxPool1d(3, 2, 1, ceil_mode=True)]
    layers += [nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 6), nn.LogSoftmax(1)]
    return nn.Sequential(*layers)


class Attention(nn.Module):
    """An encoder block written by hand, with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(6, 16), nn.Parameter(torch.randn(1, 10, 16))
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.wide, self.narrow, self.fc = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.place
        samples, steps, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(samples, steps, 3, 4, 4).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / 2.0).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(samples, steps, width))
        return self.fc((x + self.narrow(F.gelu(self.wide(self.norm2(x))))).mean(1))


def attention() -> nn.Module:
    return Attention()


def product_attention() -> nn.Module:
    def forward(net, x: Tensor) -> Tensor:
        samples, steps, _ = x.shape
        q, k, v = (part(x).view(samples, steps, 4, 4).transpose(1, 2) for part in (net.q, net.k, net.v))
        return net.fc(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1))

    return Lambda(forward, q=nn.Linear(6, 16), k=nn.Linear(6, 16), v=nn.Linear(6, 16), fc=nn.Linear(112, 3))


def encoder_layer() -> nn.Module:
    """torch's own block: its attention puts samples and heads into one axis behind the steps."""
    block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu")
    return Lambda(
        lambda net, x: net.fc(net.block(net.embed(x))[:, 0]), embed=nn.Linear(6, 16), block=block, fc=nn.Linear(16, 4)
    )


def segmentation() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 4, 1))
