"""The zoo's nets for sequences: recurrent, convolutional, and transformers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_nets import Lambda
from zoo_spec import Spec, Tokens


def _chain(cell: nn.Module, out: int, take) -> nn.Module:
    return Lambda(lambda net, x: net.fc(take(net.cell(x))), cell=cell, fc=nn.Linear(out, 3))


def elman() -> nn.Module:
    return _chain(nn.RNN(5, 8, batch_first=True), 8, lambda made: made[0][:, -1])


def elman_relu_both_ways() -> nn.Module:
    return _chain(nn.RNN(5, 6, 2, nonlinearity="relu", bidirectional=True), 12, lambda made: made[0].mean(0))


def lstm_time_first() -> nn.Module:
    return _chain(nn.LSTM(5, 8), 8, lambda made: made[0][-1])


def lstm_stacked() -> nn.Module:
    return _chain(nn.LSTM(5, 8, 2, batch_first=True, bidirectional=True), 16, lambda made: made[0][:, -1])


def gru_last_state() -> nn.Module:
    return _chain(nn.GRU(5, 8, batch_first=True), 8, lambda made: made[1][-1])


def gru_learned_start() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.fc, self.start = (
                nn.GRU(5, 8, batch_first=True),
                nn.Linear(8, 3),
                nn.Parameter(torch.randn(1, 1, 8)),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.gru(x, self.start.expand(-1, x.shape[0], -1).contiguous())[0][:, -1])

    return Net()


def char_lstm() -> nn.Module:
    def forward(net, x: Tensor) -> Tensor:
        return net.fc(net.lstm(net.embed(x))[0])

    return Lambda(forward, embed=nn.Embedding(10, 6), lstm=nn.LSTM(6, 12, 2, batch_first=True), fc=nn.Linear(12, 10))


class Causal(nn.Module):
    """A dilated convolution that sees the past alone, Bai et al. 2018."""

    def __init__(self, c_in: int, c_out: int, dilation: int) -> None:
        super().__init__()
        self.ahead, self.conv = 2 * dilation, nn.Conv1d(c_in, c_out, 3, dilation=dilation)
        self.short = nn.Conv1d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(torch.relu(self.conv(F.pad(x, (self.ahead, 0)))) + self.short(x))


def tcn() -> nn.Module:
    blocks = nn.Sequential(Causal(4, 8, 1), Causal(8, 8, 2), Causal(8, 8, 4))
    return Lambda(lambda net, x: net.fc(net.blocks(x)[:, :, -1]), blocks=blocks, fc=nn.Linear(8, 3))


def wavenet() -> nn.Module:
    """Van den Oord et al. 2016: gated convolutions with skips."""

    def forward(net, x: Tensor) -> Tensor:
        x, skips = net.stem(x), 0
        for gate, filter_, out in zip(net.gates, net.filters, net.outs, strict=True):
            y = out(torch.tanh(filter_(x)) * torch.sigmoid(gate(x)))
            x, skips = x + y, skips + y
        return net.fc(torch.relu(skips).mean(2))

    def convs() -> nn.ModuleList:
        return nn.ModuleList(nn.Conv1d(8, 8, 3, padding=d, dilation=d) for d in (1, 2))

    outs = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(2))
    return Lambda(forward, stem=nn.Conv1d(4, 8, 1), gates=convs(), filters=convs(), outs=outs, fc=nn.Linear(8, 3))


def conv_lstm() -> nn.Module:
    """A convolution over time in front of an LSTM."""

    def forward(net, x: Tensor) -> Tensor:
        return net.fc(net.lstm(net.conv(x).transpose(1, 2))[0][:, -1])

    conv = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2))
    return Lambda(forward, conv=conv, lstm=nn.LSTM(8, 8, batch_first=True), fc=nn.Linear(8, 3))


def transformer_encoder() -> nn.Module:
    """torch's own, two layers, with sines for places."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True)
            self.embed, self.encoder, self.fc = nn.Linear(6, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)
            at, rate = torch.arange(9.0)[:, None], torch.exp(torch.arange(0, 16, 2) * (-math.log(100.0) / 16))
            self.register_buffer("places", torch.stack([torch.sin(at * rate), torch.cos(at * rate)], 2).flatten(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.encoder(self.embed(x) + self.places).mean(1))

    return Net()


def transformer_masked() -> nn.Module:
    """torch's own layer with a causal mask."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)

    def forward(net, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(9)
        return net.fc(net.layer(net.embed(x), src_mask=mask))

    return Lambda(forward, embed=nn.Linear(6, 16), layer=layer, fc=nn.Linear(16, 3))


class Block(nn.Module):
    """A decoder's block: causal attention by scaled_dot_product_attention or by hand, then a wide layer."""

    def __init__(self, width: int, heads: int, by_hand: bool, steps: int) -> None:
        super().__init__()
        self.heads, self.by_hand = heads, by_hand
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.register_buffer("mask", torch.tril(torch.ones(steps, steps)).view(1, 1, steps, steps))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.by_hand:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.shape[-1])
        steps = q.shape[-2]
        return scores.masked_fill(self.mask[:, :, :steps, :steps] == 0, float("-inf")).softmax(-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        samples, steps, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, 2)
        q, k, v = (part.view(samples, steps, self.heads, width // self.heads).transpose(1, 2) for part in (q, k, v))
        x = x + self.out(self.attend(q, k, v).transpose(1, 2).reshape(samples, steps, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """Radford et al. 2019, small. `tied`: the output layer is the embedding."""

    def __init__(self, by_hand: bool, tied: bool) -> None:
        super().__init__()
        self.embed, self.places = nn.Embedding(11, 16), nn.Embedding(8, 16)
        self.blocks = nn.Sequential(*(Block(16, 2, by_hand, 8) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.places(torch.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(x)))


class RootMeanSquare(nn.Module):
    """RMSNorm by hand, Zhang, Sennrich 2019."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def llama_mlp() -> nn.Module:
    """RMSNorm and a gated wide layer, as in LLaMA."""

    def forward(net, x: Tensor) -> Tensor:
        y = net.norm(net.embed(x))
        return net.fc((net.embed(x) + net.down(F.silu(net.gate(y)) * net.up(y))).mean(1))

    parts = {"gate": nn.Linear(12, 20, bias=False), "up": nn.Linear(12, 20, bias=False), "down": nn.Linear(20, 12)}
    return Lambda(forward, embed=nn.Linear(5, 12), norm=RootMeanSquare(12), fc=nn.Linear(12, 3), **parts)


def attention_pool() -> nn.Module:
    """A learned score for each step."""

    def forward(net, x: Tensor) -> Tensor:
        x = torch.tanh(net.embed(x))
        return net.fc((net.score(x).softmax(1) * x).sum(1))

    return Lambda(forward, embed=nn.Linear(5, 8), score=nn.Linear(8, 1), fc=nn.Linear(8, 3))


def multihead() -> nn.Module:
    attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(net, x: Tensor) -> Tensor:
        x = net.embed(x)
        return net.fc((x + net.attention(x, x, x, need_weights=False)[0]).mean(1))

    return Lambda(forward, embed=nn.Linear(5, 12), attention=attention, fc=nn.Linear(12, 3))


def text_cnn() -> nn.Module:
    """Kim 2014: convolutions of three widths over words, the largest of each."""

    def forward(net, x: Tensor) -> Tensor:
        x = net.embed(x).transpose(1, 2)
        return net.fc(torch.cat([torch.relu(conv(x)).amax(2) for conv in net.convs], 1))

    convs = nn.ModuleList(nn.Conv1d(6, 5, size) for size in (2, 3, 4))
    return Lambda(forward, embed=nn.Embedding(20, 6), convs=convs, fc=nn.Linear(15, 3))


STEPS = (9, 5)
NETS = {
    **{
        make.__name__: Spec(make, [STEPS])
        for make in (elman, lstm_stacked, gru_last_state, gru_learned_start, attention_pool)
    },
    "elman_relu_both_ways": Spec(lambda: TimeFirst(elman_relu_both_ways()), [STEPS]),
    "lstm_time_first": Spec(lambda: TimeFirst(lstm_time_first()), [STEPS]),
    "char_lstm": Spec(char_lstm, [Tokens(9, 10)], classes=10, lr=0.5),
    **{make.__name__: Spec(make, [(4, 12)]) for make in (tcn, wavenet, conv_lstm)},
    "transformer_encoder": Spec(transformer_encoder, [(9, 6)], freeze=["places"]),
    "transformer_masked": Spec(transformer_masked, [(9, 6)]),
    "gpt_mini": Spec(lambda: Gpt(by_hand=False, tied=False), [Tokens(8, 11)], classes=11),
    "gpt_by_hand": Spec(lambda: Gpt(by_hand=True, tied=False), [Tokens(8, 11)], classes=11),
    "gpt_tied": Spec(lambda: Gpt(by_hand=False, tied=True), [Tokens(8, 11)], classes=11),
    "llama_mlp": Spec(llama_mlp, [STEPS]),
    "multihead": Spec(multihead, [STEPS]),
    "text_cnn": Spec(text_cnn, [Tokens(9, 20)]),
}


class TimeFirst(nn.Module):
    """A net that wants its steps first."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.transpose(0, 1))
