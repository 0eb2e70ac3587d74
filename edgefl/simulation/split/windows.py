"""Windows: as many devices as wanted on data of any size, each with a window of its own; windows overlap.

No list of all devices' examples exists: a device's window is found from the seed and the device's number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from ...core.seeds import derived_seed


class Windows(Sequence[np.ndarray]):
    """`size` examples for each of `devices` devices: neighbours in `order` (n,), an order of all examples."""

    def __init__(self, order: np.ndarray, size: int, devices: int, seed: int) -> None:
        self._order, self._size, self._devices, self._seed = order, size, devices, seed

    def __len__(self) -> int:
        return self._devices

    @overload
    def __getitem__(self, device: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, device: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, device: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(device, slice):
            return [self[number] for number in range(*device.indices(self._devices))]
        if not 0 <= device < self._devices:
            raise IndexError(device)
        start = derived_seed(self._seed, "window", device) % (len(self._order) - self._size + 1)
        return self._order[start : start + self._size]
