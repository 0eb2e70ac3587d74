"""The zoo's other nets: for tables and sets, shared and tied layers, several inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_nets import Lambda
from zoo_spec import Lambda2, Plus, Spec, Tokens


def deep_sets() -> nn.Module:
    """Zaheer et al. 2017: the sum over a set's members."""
    each = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
    return Lambda(lambda net, x: net.whole(net.each(x).sum(1)), each=each, whole=nn.Linear(12, 3))


def tied_autoencoder() -> nn.Module:
    """The decoder is the encoder's weight, transposed."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.bias = nn.Linear(10, 6), nn.Parameter(torch.randn(10))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(torch.tanh(self.encoder(x)), self.encoder.weight.t(), self.bias)

    return Net()


def shared_layer() -> nn.Module:
    """One layer three times."""

    def forward(net, x: Tensor) -> Tensor:
        x = net.first(x)
        for _ in range(3):
            x = torch.tanh(net.shared(x))
        return net.last(x)

    return Lambda(forward, first=nn.Linear(8, 10), shared=nn.Linear(10, 10), last=nn.Linear(10, 3))


def highway() -> nn.Module:
    """Srivastava et al. 2015."""

    def forward(net, x: Tensor) -> Tensor:
        x = net.first(x)
        gate = torch.sigmoid(net.gate(x))
        return net.last(gate * torch.relu(net.body(x)) + (1 - gate) * x)

    parts = {name: nn.Linear(10, 10) for name in ("gate", "body")}
    return Lambda(forward, first=nn.Linear(8, 10), last=nn.Linear(10, 3), **parts)


def tabular_resnet() -> nn.Module:
    """Gorishniy et al. 2021."""
    block = Plus(nn.BatchNorm1d(12), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 12))
    return nn.Sequential(nn.Linear(8, 12), block, nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))


def activations() -> nn.Module:
    """One after another, all that torch users reach for."""
    kinds = [
        nn.Mish,
        nn.SELU,
        nn.CELU,
        nn.Softsign,
        nn.Softplus,
        nn.ELU,
        nn.SiLU,
        nn.Hardtanh,
        nn.LogSigmoid,
        nn.Tanhshrink,
    ]
    layers: list[nn.Module] = []
    for kind in kinds:
        layers += [nn.Linear(8, 8), kind()]
    return nn.Sequential(*layers, nn.Linear(8, 3))


def siren() -> nn.Module:
    """Sitzmann et al. 2020: sines."""

    def forward(net, x: Tensor) -> Tensor:
        return net.last(torch.sin(net.second(torch.sin(net.first(x)))))

    return Lambda(forward, first=nn.Linear(2, 16), second=nn.Linear(16, 16), last=nn.Linear(16, 1))


def cosine_head() -> nn.Module:
    """Features of length one, times a learned temperature."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.classes = nn.Linear(8, 10), nn.Linear(10, 3, bias=False)
            self.scale = nn.Parameter(torch.tensor([5.0]))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.classes(F.normalize(self.body(x), dim=-1))

    return Net()


def mixture_of_experts() -> nn.Module:
    """A gate weighs three small nets."""

    def forward(net, x: Tensor) -> Tensor:
        gate = net.gate(x).softmax(-1)
        return sum(gate[:, k : k + 1] * expert(x) for k, expert in enumerate(net.experts))

    experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)) for _ in range(3))
    return Lambda(forward, gate=nn.Linear(8, 3), experts=experts)


def two_inputs() -> nn.Module:
    """An image and numbers beside it."""

    def forward(net, image: Tensor, numbers: Tensor) -> Tensor:
        return net.fc(torch.cat([net.conv(image).mean((2, 3)), torch.relu(net.dense(numbers))], 1))

    conv = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU())
    return Lambda2(forward, conv=conv, dense=nn.Linear(5, 8), fc=nn.Linear(14, 3))


def wide_and_deep() -> nn.Module:
    """Cheng et al. 2016: categories through an embedding, numbers beside them."""

    def forward(net, words: Tensor, numbers: Tensor) -> Tensor:
        return net.wide(numbers) + net.deep(torch.cat([net.embed(words).flatten(1), numbers], 1))

    deep = nn.Sequential(nn.Linear(4 * 3 + 5, 12), nn.ReLU(), nn.Linear(12, 3))
    return Lambda2(forward, embed=nn.Embedding(7, 3), wide=nn.Linear(5, 3), deep=deep)


def siamese() -> nn.Module:
    """One net sees both inputs."""

    def forward(net, left: Tensor, right: Tensor) -> Tensor:
        return net.fc(torch.abs(net.body(left) - net.body(right)))

    body = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 6))
    return Lambda2(forward, body=body, fc=nn.Linear(6, 3))


ROW = (8,)
NETS = {
    **{make.__name__: Spec(make, [ROW]) for make in (shared_layer, highway, tabular_resnet, mixture_of_experts)},
    "cosine_head": Spec(cosine_head, [ROW], train=["scale"]),
    "activations": Spec(activations, [ROW], lr=0.5),
    "deep_sets": Spec(deep_sets, [(6, 4)]),
    "tied_autoencoder": Spec(tied_autoencoder, [(10,)], classes=0, lr=0.5),
    "siren": Spec(siren, [(2,)], classes=0),
    "two_inputs": Spec(two_inputs, [(2, 6, 6), (5,)]),
    "wide_and_deep": Spec(wide_and_deep, [Tokens(4, 7), (5,)]),
    "siamese": Spec(siamese, [ROW, ROW]),
}
