"""Small nets of torch around one norm, activation or reduction each, with the shape of a sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch_nets import Lambda


def _image(*parts: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Conv2d(3, 8, 3), *parts, nn.Flatten(), nn.Linear(8 * 16, 4)), (3, 6, 6)


def _rows(*parts: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(6, 8), *parts, nn.Linear(8, 3)), (6,)


def _of_two(compute) -> tuple[nn.Module, tuple[int, ...]]:
    """`compute` of two layers of the input."""
    parts = {"a": nn.Linear(6, 8), "b": nn.Linear(6, 8), "c": nn.Linear(8, 3)}
    return Lambda(lambda net, x: net.c(compute(net.a(x), net.b(x))), **parts), (6,)


def group_norm():
    return _image(nn.GroupNorm(2, 8), nn.ReLU())


def instance_norm():
    return _image(nn.InstanceNorm2d(8, affine=True), nn.InstanceNorm2d(8), nn.ReLU())


def prelu():
    return _image(nn.PReLU(8), nn.PReLU())


def softplus():
    return _rows(nn.Softplus(), nn.Softplus(2, 10))


def mish():
    return _rows(nn.Mish(), nn.SELU(), nn.CELU(1.3), nn.Softsign(), nn.Tanhshrink(), nn.LogSigmoid())


def hard_shrink():
    return _rows(nn.Hardshrink(0.2), nn.Threshold(-0.1, 0.3))


def normalize():
    return _of_two(lambda a, b: F.normalize(a, dim=1) * b + a / (1 + a.norm(1, dim=1, keepdim=True)))


def extremes():
    def compute(a, b):
        large, small = (
            torch.maximum(a, b) - a.amax(1, keepdim=True),
            torch.minimum(a, b.sin()) * b.amin(1, keepdim=True),
        )
        return large + small - torch.logsumexp(b.cos(), 1, keepdim=True)

    return _of_two(compute)


def rms():
    return _of_two(lambda a, b: a * torch.rsqrt(a.pow(2).mean(-1, keepdim=True) + 1e-6) * b)
