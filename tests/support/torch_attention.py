"""Transformers of torch: every way in which an attention is told what it may not see."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_nets import Lambda

STEPS = 11


class Block(nn.Module):
    """A layer of a GPT. `mask` names how its attention hides what comes later."""

    def __init__(self, mask: str, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.mask, self.heads = mask, heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        later = torch.triu(torch.ones(STEPS, STEPS, dtype=torch.bool), 1)
        self.register_buffer("ones", torch.tril(torch.ones(STEPS, STEPS)).view(1, 1, STEPS, STEPS))
        self.register_buffer("later", later)
        self.register_buffer("added", torch.zeros(STEPS, STEPS).masked_fill(later, float("-inf")))

    def forward(self, x: Tensor) -> Tensor:
        samples, steps, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, 2)
        q, k, v = (part.view(samples, steps, self.heads, width // self.heads).transpose(1, 2) for part in parts)
        if self.mask.startswith("product"):
            how = {"product": {"is_causal": True}, "product_bool": {"attn_mask": ~self.later}}
            y = F.scaled_dot_product_attention(q, k, v, **how.get(self.mask, {"attn_mask": self.added}))
        else:
            y = self.hide(q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5, steps).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(samples, steps, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x)), approximate="tanh"))

    def hide(self, scores: Tensor, steps: int) -> Tensor:
        places = torch.arange(steps, device=scores.device)
        return {
            "fill": lambda: scores.masked_fill(self.ones[:, :, :steps, :steps] == 0, float("-inf")),
            "fill_lowest": lambda: scores.masked_fill(self.later, torch.finfo(scores.dtype).min),
            "add": lambda: scores + self.added[:steps, :steps],
            "add_large": lambda: scores + (1 - self.ones[:, :, :steps, :steps]) * -1e9,
            "where": lambda: torch.where(self.ones[:, :, :steps, :steps] > 0, scores, torch.tensor(-1e4)),
            "made": lambda: scores.masked_fill(torch.tril(torch.ones(steps, steps)) == 0, float("-inf")),
            "counted": lambda: scores.masked_fill(places[None, :] > places[:, None], float("-inf")),
            "window": lambda: scores.masked_fill((places[:, None] - places[None, :]).abs() > 2, float("-inf")),
        }[self.mask]()


def gpt(mask: str) -> nn.Module:
    """Tokens to logits of the next token, at every place."""

    def forward(net, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return net.head(net.norm(net.blocks(net.tokens(tokens) + net.places(places))))

    parts = {"tokens": nn.Embedding(10, 16), "places": nn.Embedding(STEPS, 16), "norm": nn.LayerNorm(16)}
    return Lambda(forward, **parts, blocks=nn.Sequential(Block(mask), Block(mask)), head=nn.Linear(16, 10))


def _attended(forward, block: nn.Module) -> nn.Module:
    return Lambda(forward, embed=nn.Linear(6, 16), block=block, fc=nn.Linear(16, 4))


def multihead() -> nn.Module:
    def forward(net, x: Tensor) -> Tensor:
        y, later = net.embed(x), nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return net.fc(net.block(y, y, y, attn_mask=later, need_weights=False, is_causal=True)[0])

    return _attended(forward, nn.MultiheadAttention(16, 4, batch_first=True))


def multihead_weights() -> nn.Module:
    def forward(net, x: Tensor) -> Tensor:
        y, later = net.embed(x), torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool), 1)
        return net.fc(net.block(y, y, y, attn_mask=later)[0])

    return _attended(forward, nn.MultiheadAttention(16, 4, batch_first=True))


def _layer(first: bool, **options) -> nn.Module:
    return nn.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=first, **options)


def encoder_causal() -> nn.Module:
    def forward(net, x: Tensor) -> Tensor:
        later = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return net.fc(net.block(net.embed(x), src_mask=later, is_causal=True))

    return _attended(forward, _layer(True))


def encoder() -> nn.Module:
    """Two layers, the time steps before the samples."""
    return _attended(
        lambda net, x: net.fc(net.block(net.embed(x).transpose(0, 1)).mean(0)), nn.TransformerEncoder(_layer(False), 2)
    )


def vit() -> nn.Module:
    """Nine patches of an image, learned positions, two layers."""

    def forward(net, x: Tensor) -> Tensor:
        return net.fc(net.norm(net.block(net.patch(x).flatten(2).transpose(1, 2) + net.places)).mean(1))

    layers = nn.TransformerEncoder(_layer(True, norm_first=True, activation="gelu"), 2, enable_nested_tensor=False)
    net = Lambda(forward, patch=nn.Conv2d(3, 16, 4, 4), block=layers, norm=nn.LayerNorm(16), fc=nn.Linear(16, 5))
    net.places = nn.Parameter(torch.randn(1, 9, 16) * 0.1)
    return net
