"""PyTorch nets that use a layer several times, tie weights, or hold equal ones in different layers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Repeated(nn.Module):
    """`body` several times, ReLU after each, then `head`."""

    def __init__(self, body: nn.Module, times: int, head: nn.Module) -> None:
        super().__init__()
        self.body, self.times, self.head = body, times, head

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = torch.relu(self.body(x))
        return self.head(x)


class Chained(nn.Module):
    """Each of `parts` once, ReLU between them."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts[:-1]:
            x = torch.relu(part(x))
        return self.parts[-1](x)


def _head(channels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels, 3))


def _shuffled(norm: nn.Module) -> nn.Module:
    """With numbers as training leaves them."""
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias, 0, 0.3)
    return norm


def linear_twice() -> nn.Module:
    return Repeated(nn.Linear(4, 4), 2, nn.Linear(4, 3))


def linear_thrice_with_fresh_bias() -> nn.Module:
    body = nn.Linear(4, 4)
    nn.init.constant_(body.bias, 0.1)
    return Repeated(body, 3, nn.Linear(4, 3))


def weight_assigned() -> nn.Module:
    """Two layers with one weight and biases of their own."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return Chained(first, second, nn.Linear(4, 3))


def conv_twice() -> nn.Module:
    return Repeated(nn.Conv2d(4, 4, 3, padding=1), 2, _head(4 * 36))


def depthwise_twice() -> nn.Module:
    return Repeated(nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), 2, _head(3 * 36))


class _Steps(nn.Module):
    """A recurrence written out: one pair of weights at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(3, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.tanh(self.inner(x[:, 0]))
        for step in range(1, 5):
            state = torch.tanh(self.inner(x[:, step]) + self.outer(state))
        return self.head(state)


def steps_by_hand() -> nn.Module:
    return _Steps()


class _Lookups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.table(x)).mean(1)) * self.table(x).mean(1))


def embedding_twice() -> nn.Module:
    return _Lookups()


def trained_batch_norm_twice() -> nn.Module:
    norm = _shuffled(nn.BatchNorm2d(4))
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return Repeated(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), norm), 2, _head(4 * 36))


def trained_layer_norm_twice() -> nn.Module:
    return Repeated(nn.Sequential(nn.Linear(4, 4), _shuffled(nn.LayerNorm(4))), 2, nn.Linear(4, 3))


def fresh_layer_norm_twice() -> nn.Module:
    return Repeated(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), 2, nn.Linear(4, 3))


def fresh_batch_norm_twice() -> nn.Module:
    return Repeated(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), 2, _head(4 * 36))


class _Sequences(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.layer(x)[0])[0][:, -1])


def lstm_twice() -> nn.Module:
    return _Sequences(nn.LSTM(4, 4, batch_first=True))


def gru_twice() -> nn.Module:
    return _Sequences(nn.GRU(4, 4, batch_first=True))


def fresh_layer_norms() -> nn.Module:
    return Chained(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))


def fresh_batch_norms() -> nn.Module:
    convs = [nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(4, 4, 3, bias=False)]
    return Chained(convs[0], nn.BatchNorm2d(4), convs[1], nn.BatchNorm2d(4), _head(4 * 16))


def fresh_biases() -> nn.Module:
    layers = [nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)]
    for layer in layers:
        nn.init.constant_(layer.bias, 0.1)
    return Chained(*layers, nn.Linear(4, 3))


def copied_layers() -> nn.Module:
    """Layers that begin equal and train apart, as those of nn.TransformerEncoder."""
    layer = nn.Linear(4, 4)
    return Chained(layer, copy.deepcopy(layer), nn.Linear(4, 3))


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.output = nn.Embedding(10, 4), nn.Linear(4, 10)
        self.output.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.table(x).mean(1)))


def embedding_tied_to_the_output() -> nn.Module:
    return _Tied()


def embedding_tied_without_bias() -> nn.Module:
    """The output layer of most language models."""
    net = _Tied()
    net.output.bias = None
    return net


def encoder_of_two_layers() -> nn.Module:
    """PyTorch's encoder begins with copies of one layer."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(3, 4), encoder, nn.Flatten(), nn.Linear(20, 2))


class _Mirrored(nn.Module):
    """An autoencoder whose decoder is its encoder's weight transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.encode(x)) @ self.encode.weight


def weight_straight_and_transposed() -> nn.Module:
    return _Mirrored()


class _Language(nn.Module):
    """A small language model: tokens and places, attention, a feed-forward layer, and the embedding read backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(10, 8), nn.Parameter(torch.randn(11, 8) * 0.1)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8), nn.LayerNorm(8)])
        self.mix, self.back = nn.Linear(8, 24, bias=False), nn.Linear(8, 8)
        self.widen, self.narrow = nn.Linear(8, 32), nn.Linear(32, 8)
        self.output = nn.Linear(8, 10, bias=False)
        self.output.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.places
        q, k, v = self.mix(self.norms[0](h)).split(8, -1)
        h = h + self.back(torch.softmax(q @ k.transpose(1, 2) * 0.35, -1) @ v)
        h = h + self.narrow(nn.functional.gelu(self.widen(self.norms[1](h))))
        return self.output(self.norms[2](h))


def language_model() -> nn.Module:
    return _Language()


class _Autoencoder(nn.Module):
    """Two layers there, and the same two transposed back."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(20, 12), nn.Linear(12, 3)
        self.widened, self.restored = nn.Parameter(torch.randn(12)), nn.Parameter(torch.randn(20))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(self.inner(torch.tanh(self.outer(x))))
        wide = torch.tanh(nn.functional.linear(code, self.inner.weight.t(), self.widened))
        return nn.functional.linear(wide, self.outer.weight.t(), self.restored)


def tied_autoencoder() -> nn.Module:
    return _Autoencoder()


class _OfImages(nn.Module):
    """A dense layer on flat images, and its weight transposed: the plan has an image's channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        image = torch.relu(self.conv(x)).flatten(1)
        return nn.functional.linear(torch.tanh(self.dense(image)), self.dense.weight.t())


def tied_behind_images() -> nn.Module:
    return _OfImages()


def weight_scripted() -> nn.Module:
    """The older exporter sees two tensors of one memory, and merges them behind an Identity."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight.data = first.weight.data
    return Chained(first, second, nn.Linear(4, 3))


def copied_module() -> nn.Module:
    """A target network, say, which begins as a copy and has another name."""
    net = Repeated(nn.Linear(4, 4), 1, nn.Linear(4, 3))
    net.head = nn.Sequential(copy.deepcopy(net.body), nn.Tanh(), net.head)
    return net
