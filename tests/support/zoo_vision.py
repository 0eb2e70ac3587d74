"""The zoo's image nets: the blocks of well-known nets, in sizes that a test can train."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_nets import Lambda
from zoo_spec import Plus, Spec, pooled


def conv_norm(c_in: int, c_out: int, size: int = 3, stride: int = 1, groups: int = 1, act: type = nn.ReLU) -> nn.Module:
    conv = nn.Conv2d(c_in, c_out, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), act())


class Squeeze(nn.Module):
    """Squeeze and excitation, Hu et al. 2018."""

    def __init__(self, channels: int, inner: int, act: type, gate: type) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), act(), nn.Conv2d(inner, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.body(x)


def inverted(c: int, wide: int, act: type, squeeze: nn.Module | None = None) -> nn.Module:
    inner = [squeeze] if squeeze is not None else []
    return Plus(
        conv_norm(c, wide, 1, act=act),
        conv_norm(wide, wide, 3, 1, wide, act),
        *inner,
        conv_norm(wide, c, 1, act=nn.Identity),
    )


def mobilenet_v2() -> nn.Module:
    """Sandler et al. 2018."""
    body = [conv_norm(3, 8, 3, 2, act=nn.ReLU6), inverted(8, 24, nn.ReLU6), conv_norm(8, 16, 3, 2, act=nn.ReLU6)]
    return nn.Sequential(*body, inverted(16, 32, nn.ReLU6), *pooled(16))


def mobilenet_v3() -> nn.Module:
    """Howard et al. 2019."""
    squeeze = Squeeze(24, 8, nn.ReLU, nn.Hardsigmoid)
    body = [conv_norm(3, 8, 3, 2, act=nn.Hardswish), inverted(8, 24, nn.Hardswish, squeeze)]
    return nn.Sequential(*body, conv_norm(8, 16, 1, act=nn.Hardswish), *pooled(16))


def efficientnet() -> nn.Module:
    """Tan, Le 2019."""
    squeeze = Squeeze(24, 4, nn.SiLU, nn.Sigmoid)
    body = [conv_norm(3, 8, 3, 2, act=nn.SiLU), inverted(8, 24, nn.SiLU, squeeze), conv_norm(8, 16, 1, act=nn.SiLU)]
    return nn.Sequential(*body, *pooled(16))


class Residual(nn.Module):
    """He et al. 2016."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(c_in, c_out, 3, stride), conv_norm(c_out, c_out, act=nn.Identity))
        self.short = nn.Identity() if c_in == c_out else conv_norm(c_in, c_out, 1, stride, act=nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def resnet18() -> nn.Module:
    """All eight blocks, narrow."""
    sizes = [(4, 4, 1), (4, 4, 1), (4, 8, 2), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
    stem = [conv_norm(3, 4, 7, 2), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *(Residual(*size) for size in sizes), *pooled(32))


def _u_net(up: nn.Module) -> nn.Module:
    def forward(net, x: Tensor) -> Tensor:
        fine = net.down(x)
        return net.head(torch.cat([fine, net.up(net.deep(net.pool(fine)))], 1))

    return Lambda(
        forward,
        down=conv_norm(2, 6),
        pool=nn.MaxPool2d(2),
        deep=conv_norm(6, 12),
        up=up,
        head=nn.Conv2d(6 + up.out, 3, 1),
    )


def u_net() -> nn.Module:
    """Ronneberger et al. 2015; a class for each pixel."""
    up = nn.ConvTranspose2d(12, 6, 2, 2)
    up.out = 6
    return _u_net(up)


def u_net_bilinear() -> nn.Module:
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    up.out = 12
    return _u_net(up)


def u_net_nearest() -> nn.Module:
    up = nn.Upsample(scale_factor=2, mode="nearest")
    up.out = 12
    return _u_net(up)


def conv_autoencoder() -> nn.Module:
    encoder = [nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()]
    decoder = [nn.ConvTranspose2d(8, 6, 3, 2, 1, 1), nn.ReLU(), nn.ConvTranspose2d(6, 1, 4, 2, 1), nn.Sigmoid()]
    return nn.Sequential(*encoder, *decoder)


def group_norm_net() -> nn.Module:
    body = [
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.GroupNorm(1, 12),
    ]
    return nn.Sequential(*body, nn.GELU(), *pooled(12))


def instance_norm_net() -> nn.Module:
    body = [
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.InstanceNorm2d(8, affine=True),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 8, 3, padding=1),
    ]
    return nn.Sequential(*body, nn.InstanceNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))


def convnext() -> nn.Module:
    """Liu et al. 2022: a large depthwise convolution, LayerNorm over channels, GELU, a learned scale."""

    class Block(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.depth, self.norm = nn.Conv2d(c, c, 5, padding=2, groups=c), nn.LayerNorm(c)
            self.wide, self.narrow = nn.Linear(c, 2 * c), nn.Linear(2 * c, c)
            self.scale = nn.Parameter(torch.rand(c) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.depth(x).permute(0, 2, 3, 1))
            return x + (self.scale * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)

    return nn.Sequential(nn.Conv2d(3, 8, 2, 2), Block(8), *pooled(8))


def squeezenet() -> nn.Module:
    """Iandola et al. 2016: fire modules."""

    def fire(net, x: Tensor) -> Tensor:
        x = torch.relu(net.small(x))
        return torch.cat([torch.relu(net.one(x)), torch.relu(net.three(x))], 1)

    block = Lambda(fire, small=nn.Conv2d(8, 4, 1), one=nn.Conv2d(4, 8, 1), three=nn.Conv2d(4, 8, 3, padding=1))
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), block, *pooled(16))


def densenet() -> nn.Module:
    """Huang et al. 2017."""

    def forward(net, x: Tensor) -> Tensor:
        x = net.stem(x)
        for part in net.parts:
            x = torch.cat([x, part(x)], 1)
        return net.head(x)

    parts = nn.ModuleList(
        nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4, 3, padding=1, bias=False)) for c in (6, 10, 14)
    )
    return Lambda(forward, stem=nn.Conv2d(3, 6, 3, 2, 1), parts=parts, head=nn.Sequential(*pooled(18)))


def shufflenet() -> nn.Module:
    """Zhang et al. 2018: convolutions in groups, channels shuffled between them."""

    def forward(net, x: Tensor) -> Tensor:
        x = net.first(net.stem(x))
        x = x.view(-1, 2, 6, 6, 6).transpose(1, 2).reshape(-1, 12, 6, 6)
        return net.head(net.second(x))

    stem, first, second = conv_norm(3, 12, 3, 2), conv_norm(12, 12, 1, groups=2), conv_norm(12, 12, 1, groups=2)
    return Lambda(forward, stem=stem, first=first, second=second, head=nn.Sequential(*pooled(12)))


def espcn() -> nn.Module:
    """Shi et al. 2016: channels become pixels."""
    return nn.Sequential(nn.Conv2d(1, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2))


def inception() -> nn.Module:
    """Szegedy et al. 2015: four branches side by side."""

    def forward(net, x: Tensor) -> Tensor:
        return torch.cat([net.one(x), net.three(x), net.five(x), net.pool(x)], 1)

    block = Lambda(
        forward,
        one=nn.Conv2d(6, 4, 1),
        three=nn.Sequential(nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1)),
        five=nn.Sequential(nn.Conv2d(6, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 5, padding=2)),
        pool=nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(6, 4, 1)),
    )
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), block, nn.ReLU(), *pooled(18))


def vgg() -> nn.Module:
    body = [conv_norm(3, 6), conv_norm(6, 6), nn.MaxPool2d(2), conv_norm(6, 12), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(12 * 9, 16), nn.ReLU(), nn.Linear(16, 3))


def mlp_mixer() -> nn.Module:
    """Tolstikhin et al. 2021: products along places, then along channels."""

    def forward(net, x: Tensor) -> Tensor:
        x = net.patches(x).flatten(2).transpose(1, 2)
        x = x + net.places(net.norm1(x).transpose(1, 2)).transpose(1, 2)
        return net.fc((x + net.channels(net.norm2(x))).mean(1))

    def mix(size: int) -> nn.Module:
        return nn.Sequential(nn.Linear(size, 16), nn.GELU(), nn.Linear(16, size))

    parts = {"norm1": nn.LayerNorm(8), "norm2": nn.LayerNorm(8), "places": mix(9), "channels": mix(8)}
    return Lambda(forward, patches=nn.Conv2d(3, 8, 4, 4), fc=nn.Linear(8, 3), **parts)


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021, with a class token and learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 10, 16))
        self.block = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True)
        self.norm, self.fc = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.fc(self.norm(self.block(x))[:, 0])


def dcgan_discriminator() -> nn.Module:
    """Radford et al. 2016."""
    body = [nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 12, 4, 2, 1, bias=False), nn.BatchNorm2d(12)]
    return nn.Sequential(*body, nn.LeakyReLU(0.2), nn.Conv2d(12, 3, 3), nn.Flatten())


def prelu_net() -> nn.Module:
    body = [nn.Conv2d(3, 6, 3, 2, 1), nn.PReLU(6), nn.Conv2d(6, 6, 3, padding=1), nn.PReLU()]
    return nn.Sequential(*body, *pooled(6))


IMAGE = (3, 12, 12)
NETS = {
    **{
        make.__name__: Spec(make, [IMAGE])
        for make in (
            mobilenet_v2, mobilenet_v3, efficientnet, group_norm_net, instance_norm_net, convnext, squeezenet, densenet,
            shufflenet, inception, vgg, mlp_mixer, dcgan_discriminator, prelu_net,
        )
    },
    "resnet18": Spec(resnet18, [(3, 32, 32)]),
    "u_net": Spec(u_net, [(2, 8, 8)]),
    "u_net_bilinear": Spec(u_net_bilinear, [(2, 8, 8)]),
    "u_net_nearest": Spec(u_net_nearest, [(2, 8, 8)]),
    "conv_autoencoder": Spec(conv_autoencoder, [(1, 8, 8)], classes=0, lr=0.5),
    "espcn": Spec(espcn, [(1, 6, 6)], classes=0, lr=0.5),
    "vit_tiny": Spec(VisionTransformer, [IMAGE]),
}  # fmt: skip
