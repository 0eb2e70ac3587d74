"""The same models in torch, eager, with the weights of the ONNX files of models.py. For benchmarks and tests alone."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn


class Dense(nn.Module):
    """Layers fc1, fc2, ... with ReLU between them; `norms` puts batch normalization before each ReLU."""

    def __init__(self, sizes: list[int], norms: bool = False) -> None:
        super().__init__()
        self.count = len(sizes) - 1
        for i in range(1, len(sizes)):
            setattr(self, f"fc{i}", nn.Linear(sizes[i - 1], sizes[i]))
            if norms and i < self.count:
                setattr(self, f"norm{i}", nn.BatchNorm1d(sizes[i]))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, self.count + 1):
            x = getattr(self, f"fc{i}")(x)
            if i < self.count:
                x = torch.relu(getattr(self, f"norm{i}", nn.Identity())(x))
        return x


class Logistic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(561, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


class McMahanCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 64, 5, padding=2)
        self.fc1, self.fc2 = nn.Linear(3136, 512), nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


class ResNet8(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        c_in = 16
        for i, c_out in enumerate((16, 32, 64), start=1):
            stride = 1 if c_in == c_out else 2
            setattr(self, f"conv{i}a", nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False))
            setattr(self, f"norm{i}a", nn.BatchNorm2d(c_out))
            setattr(self, f"conv{i}b", nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False))
            setattr(self, f"norm{i}b", nn.BatchNorm2d(c_out))
            if c_in != c_out:
                setattr(self, f"skip{i}", nn.Conv2d(c_in, c_out, 1, stride))
            c_in = c_out
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        for i in (1, 2, 3):
            part = {name: getattr(self, f"{name[:4]}{i}{name[4:]}") for name in ("conva", "norma", "convb", "normb")}
            y = part["normb"](part["convb"](torch.relu(part["norma"](part["conva"](x)))))
            x = torch.relu(y + getattr(self, f"skip{i}", nn.Identity())(x))
        return self.fc(x.mean((2, 3)))


class DsCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 64, (10, 4), 2, bias=False), nn.BatchNorm2d(64)
        for i in range(1, 5):
            setattr(self, f"depth{i}", nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False))
            setattr(self, f"depth_norm{i}", nn.BatchNorm2d(64))
            setattr(self, f"point{i}", nn.Conv2d(64, 64, 1, bias=False))
            setattr(self, f"point_norm{i}", nn.BatchNorm2d(64))
        self.fc = nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(nn.functional.pad(x, (1, 2, 4, 5)))))
        for i in range(1, 5):
            x = torch.relu(getattr(self, f"depth_norm{i}")(getattr(self, f"depth{i}")(x)))
            x = torch.relu(getattr(self, f"point_norm{i}")(getattr(self, f"point{i}")(x)))
        return self.fc(x.mean((2, 3)))


class CharLstm(nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 8)
        self.lstm = nn.LSTM(8, 256, 2, batch_first=True)
        self.fc = nn.Linear(256, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(self.embedding(x))[0][:, -1])


class SensorCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(9, 32, 5, padding=2), nn.Conv1d(32, 32, 3, padding=1)
        self.conv3, self.fc = nn.Conv1d(32, 64, 3, padding=1), nn.Linear(64, 6)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = torch.max_pool1d(torch.relu(conv(x)), 2)
        return self.fc(x.mean(2))


WIDE = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640]


def twin(name: str, onnx_bytes: bytes, vocabulary: int = 0) -> nn.Module:
    """The torch module called `name` in models.MODELS, in training mode, with the ONNX file's weights."""
    made = {
        "logistic": Logistic,
        "mlp": lambda: Dense([784, 200, 200, 10]),
        "mcmahan_cnn": McMahanCnn,
        "resnet8": ResNet8,
        "ds_cnn": DsCnn,
        "autoencoder": lambda: Dense(WIDE, norms=True),
        "char_lstm": lambda: CharLstm(vocabulary),
        "sensor_cnn": SensorCnn,
    }[name]()
    weights = {i.name: numpy_helper.to_array(i) for i in onnx.ModelProto.FromString(onnx_bytes).graph.initializer}
    own = made.state_dict()
    for key, tensor in torch_names(weights).items():
        own[key].copy_(torch.from_numpy(np.array(tensor)))
    return made.train()


def torch_names(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX initializers under torch's names and in its order of gates: ONNX LSTM has iofc, torch ifgo."""
    found: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        if not name.startswith("lstm."):
            if array.dtype == np.float32:
                found[name] = array
            continue
        kind, layer = name[5], name[6:]
        if kind == "B":
            found[f"lstm.bias_ih_l{layer}"], found[f"lstm.bias_hh_l{layer}"] = map(_gates, np.split(array[0], 2))
        else:
            found[f"lstm.weight_{'ih' if kind == 'W' else 'hh'}_l{layer}"] = _gates(array[0])
    return found


def _gates(iofc: np.ndarray) -> np.ndarray:
    i, o, f, c = np.split(iofc, 4)
    return np.concatenate([i, f, c, o])
