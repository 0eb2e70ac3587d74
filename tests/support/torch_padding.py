"""Nets of torch over tokens of which 0 is padding: every way in which they keep it out of an attention or a mean."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_attention import STEPS
from torch_nets import Lambda

HEADS, WIDTH = 4, 16


def _scores(hide: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
    """One attention; `hide` says what becomes of its scores (N, H, T, T) by the tokens (N, T)."""

    def forward(net, tokens: Tensor) -> Tensor:
        x = net.tokens(tokens)
        samples, steps, _ = x.shape
        parts = net.qkv(x).split(WIDTH, 2)
        q, k, v = (part.view(samples, steps, HEADS, WIDTH // HEADS).transpose(1, 2) for part in parts)
        y = hide(q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5, tokens).softmax(-1) @ v
        return net.head(y.transpose(1, 2).reshape(samples, steps, WIDTH).mean(1))

    return forward


def _product(mask: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
    """An attention by torch's product; `mask` makes what it is told of the tokens (N, T)."""

    def forward(net, tokens: Tensor) -> Tensor:
        x = net.tokens(tokens)
        parts = net.qkv(x).view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*parts.unbind(0), attn_mask=mask(tokens))
        return net.head(y.transpose(1, 2).reshape(*x.shape).mean(1))

    return forward


def _later(tokens: Tensor) -> Tensor:
    return torch.triu(torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool), 1)


def _extended(tokens: Tensor) -> Tensor:
    """As BERT of Hugging Face: (N, 1, 1, T), 0 and the lowest number."""
    seen = (tokens != 0).long()[:, None, None, :].to(torch.float32)
    return (1.0 - seen) * torch.finfo(torch.float32).min


ATTENTIONS = {
    "fill": _scores(lambda s, t: s.masked_fill((t == 0)[:, None, None, :], float("-inf"))),
    "fill_lowest": _scores(lambda s, t: s.masked_fill(t.eq(0).unsqueeze(1).unsqueeze(2), -1e9)),
    "fill_expanded": _scores(lambda s, t: s.masked_fill((t == 0)[:, None, None, :].expand_as(s), float("-inf"))),
    "fill_either": _scores(lambda s, t: s.masked_fill((t == 0)[:, None, None, :] | _later(t), -1e9)),
    "fill_unless_both": _scores(lambda s, t: s.masked_fill(~((t > 0)[:, None, None, :] & ~_later(t)), -1e9)),
    "fill_pairs": _scores(lambda s, t: s.masked_fill(((t == 0)[:, None, :, None] | (t == 0)[:, None, None, :]), -1e9)),
    "where": _scores(lambda s, t: torch.where((t != 0)[:, None, None, :], s, torch.tensor(-1e4))),
    "add": _scores(lambda s, t: s + _extended(t)),
    "add_infinite": _scores(lambda s, t: s + torch.zeros(t.shape).masked_fill(t == 0, float("-inf"))[:, None, None, :]),
    "product": _product(lambda t: (t != 0)[:, None, None, :]),
    "product_added": _product(_extended),
    "product_both": _product(lambda t: (t != 0)[:, None, None, :] & ~_later(t)),
}


def attention(name: str) -> nn.Module:
    parts = {"qkv": nn.Linear(WIDTH, 3 * WIDTH), "head": nn.Linear(WIDTH, 5)}
    return Lambda(ATTENTIONS[name], tokens=nn.Embedding(10, WIDTH), **parts)


def _pooled(x: Tensor, tokens: Tensor) -> Tensor:
    seen = (tokens != 0).unsqueeze(-1)
    return (x * seen).sum(1) / seen.sum(1).clamp(min=1)


def encoder(causal: bool, first: bool = True) -> nn.Module:
    """nn.TransformerEncoder with src_key_padding_mask, and a mean over what is no padding."""

    def forward(net, tokens: Tensor) -> Tensor:
        x = net.tokens(tokens) + net.places
        later = nn.Transformer.generate_square_subsequent_mask(STEPS) if causal else None
        x = net.block(x if first else x.transpose(0, 1), mask=later, is_causal=causal, src_key_padding_mask=tokens == 0)
        return net.head(_pooled(x if first else x.transpose(0, 1), tokens))

    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, 0.0, batch_first=first)
    block = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    net = Lambda(forward, tokens=nn.Embedding(10, WIDTH, padding_idx=0), block=block, head=nn.Linear(WIDTH, 5))
    net.places = nn.Parameter(torch.randn(1, STEPS, WIDTH) * 0.1)
    return net


def multihead() -> nn.Module:
    def forward(net, tokens: Tensor) -> Tensor:
        x = net.tokens(tokens)
        return net.head(net.block(x, x, x, key_padding_mask=tokens.eq(0))[0].mean(1))

    block = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    return Lambda(forward, tokens=nn.Embedding(10, WIDTH), block=block, head=nn.Linear(WIDTH, 5))


def mean_float() -> nn.Module:
    def forward(net, tokens: Tensor) -> Tensor:
        seen = tokens.ne(0).float().unsqueeze(-1)
        return net.head((net.tokens(tokens) * seen).sum(1) / seen.sum(1).clamp(min=1e-9))

    return Lambda(forward, tokens=nn.Embedding(10, WIDTH), head=nn.Linear(WIDTH, 5))


def largest() -> nn.Module:
    """The maximum over what is no padding."""

    def forward(net, tokens: Tensor) -> Tensor:
        return net.head(net.tokens(tokens).masked_fill((tokens == 0).unsqueeze(-1), -1e4).amax(1))

    return Lambda(forward, tokens=nn.Embedding(10, WIDTH), head=nn.Linear(WIDTH, 5))


NETS = {
    "encoder": lambda: encoder(False),
    "encoder_causal": lambda: encoder(True),
    "encoder_steps_first": lambda: encoder(False, False),
    "largest": largest,
    "mean_float": mean_float,
    "multihead": multihead,
    **{name: lambda name=name: attention(name) for name in ATTENTIONS},
}
