"""PyTorch's ways to enlarge, pad, shuffle and repeat, as its exporters write them: one step of SGD is torch's own."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
from torch_export import MISSING, TORCH, export

import edgefl

pytestmark = TORCH
IMAGE, SERIES = (1, 8, 8), (6, 4)
LEGACY, BOTH = ["folded"], ["folded", "dynamo"]


def unet(up, channels: int):
    """A skip over a pool and what undoes it."""
    import torch
    from torch import nn

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.deep, self.up = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1), up
            self.out = nn.Conv2d(4 + channels, 2, 3, padding=1)

        def forward(self, x):
            kept = torch.relu(self.down(x))
            deep = torch.relu(self.deep(nn.functional.max_pool2d(kept, 2)))
            return self.out(torch.cat([kept, self.up(deep)], 1))

    return UNet()


def vit():
    import torch
    from torch import nn

    class ViT(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.token = nn.Conv2d(1, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
            self.place, self.keys, self.head = nn.Parameter(torch.randn(1, 5, 8)), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            rows = self.patch(x).flatten(2).transpose(1, 2)
            rows = torch.cat([self.token.expand(x.shape[0], -1, -1), rows], 1) + self.place
            return self.head((torch.softmax(self.keys(rows) @ rows.transpose(1, 2), -1) @ rows)[:, 0])

    return ViT()


def stateful(kind: str, **options):
    """A recurrent layer whose initial state is learnt."""
    import torch
    from torch import nn

    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = getattr(nn, kind)(4, 5, batch_first=True, **options)
            self.start = nn.Parameter(torch.randn(2 if options else 1, 1, 5))

        def forward(self, x):
            start = self.start.expand(-1, x.shape[0], -1).contiguous()
            return self.layer(x, (start, torch.zeros_like(start)) if kind == "LSTM" else start)[0]

    return Stateful()


def nets():
    from torch import nn

    def between(*layers, channels=4):
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, nn.Conv2d(channels, 2, 3))

    up = nn.Upsample
    return {
        "transposed": (lambda: unet(nn.ConvTranspose2d(8, 4, 2, 2), 4), IMAGE, BOTH),
        "nearest": (lambda: unet(up(scale_factor=2), 8), IMAGE, LEGACY),
        "bilinear": (lambda: unet(up(scale_factor=2, mode="bilinear"), 8), IMAGE, BOTH),
        "corners": (lambda: unet(up(scale_factor=2, mode="bilinear", align_corners=True), 8), IMAGE, LEGACY),
        "a size": (lambda: unet(up(size=(8, 8), mode="bilinear"), 8), IMAGE, LEGACY),
        "series": (
            lambda: nn.Sequential(nn.Conv1d(6, 4, 3), nn.ConvTranspose1d(4, 3, 4, 2, 1, output_padding=1)),
            SERIES,
            LEGACY,
        ),
        "pixel shuffle": (lambda: between(nn.PixelShuffle(2), channels=1), IMAGE, BOTH),
        "reflection": (lambda: between(nn.ReflectionPad2d((1, 2, 0, 3))), IMAGE, LEGACY),
        "edge": (lambda: between(nn.ReplicationPad2d(2)), IMAGE, LEGACY),
        "crop": (lambda: between(nn.ZeroPad2d((1, -1, 0, 2))), IMAGE, LEGACY),
        "circular": (lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), IMAGE, LEGACY),
        "dilated pool": (lambda: between(nn.MaxPool2d(2, dilation=2)), IMAGE, LEGACY),
        "pool of a ceiling": (lambda: between(nn.AvgPool2d(3, 2, 1, ceil_mode=True)), IMAGE, LEGACY),
        "class token": (vit, IMAGE, BOTH),
        "RNN": (lambda: stateful("RNN", bidirectional=True), SERIES, LEGACY),
        "GRU": (lambda: stateful("GRU", bidirectional=True), SERIES, BOTH),
        "LSTM": (lambda: stateful("LSTM"), SERIES, BOTH),
    }


CASES = [] if MISSING else [(name, how) for name, (_, _, hows) in nets().items() for how in hows]


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_step_is_that_of_torch(name, how, tmp_path):
    import torch

    torch.manual_seed(0)
    make, shape, _ = nets()[name]
    net = make()
    net.eval()
    model = edgefl.load(export(net, shape, how, tmp_path), loss="mse")
    assert model.plan.num_trainable == sum(param.numel() for param in net.parameters())
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, *shape)).astype(np.float32)
    made = net(torch.tensor(x))
    y = rng.normal(size=made.shape).astype(np.float32)
    ((made - torch.tensor(y)) ** 2).mean().backward()
    trainer = edgefl.Trainer(model.plan)
    np.testing.assert_allclose(trainer.predict(model.params, x), made.detach().numpy(), atol=1e-5)
    after = model.params + trainer.fit(model.params, x, y, batch_size=5, lr=0.1).delta
    moved = copy.deepcopy(net)
    with torch.no_grad():
        for param, source in zip(moved.parameters(), net.parameters(), strict=True):
            param -= 0.1 * source.grad
    saved = onnx.ModelProto.FromString(model.to_bytes(after))
    session = onnxruntime.InferenceSession(saved.SerializeToString(), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {session.get_inputs()[0].name: x})[:1]
    np.testing.assert_allclose(theirs, moved(torch.tensor(x)).detach().numpy(), atol=1e-5)
