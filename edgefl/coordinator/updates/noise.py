"""Noise: what a device may send, and the mute for one that sends more. No I/O. Part of Admission.

Each device has three budgets, which grow again with time and with every round that opens: messages, bytes, and refused
messages that no honest device sends. A device whose budget is spent is muted for ten minutes: nothing that comes from
its topics is looked at. That is kept in memory only, since nothing proves who has sent the messages.

Messages and bytes are in proportion to the longest update of the model, in its shortest parts, so that a device on a
slow link, whose parts come late or twice, never spends them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ...protocol.envelope import MIN_PART_BYTES

MUTE_S = 600.0
MESSAGES, BYTES, REFUSALS = 300, 2**20, 20  # each budget at least
REFILL_S = 60.0  # an empty budget is full again after this time, or after four rounds
ROUNDS = 4
FULL = 1 + 1e-9  # shares are added up in floating point
MOST = 10_000  # devices whose budgets are known; the one that was heard least recently is dropped first


@dataclass(slots=True)
class Budget:
    """What is spent, as shares of the three budgets."""

    at: float
    round: int
    messages: float = 0.0
    bytes: float = 0.0
    refusals: float = 0.0

    def recover(self, now: float, round: int) -> None:
        gained = (now - self.at) / REFILL_S + (round - self.round) / ROUNDS
        self.at, self.round = now, round
        if gained > 0:
            self.messages = max(0.0, self.messages - gained)
            self.bytes = max(0.0, self.bytes - gained)
            self.refusals = max(0.0, self.refusals - gained)


class Noise:
    """`longest`: the bytes of the longest update. `muted`: until when, and why, by device."""

    def __init__(self, longest: int) -> None:
        self.muted: dict[str, tuple[float, str]] = {}
        self._per_message = 1 / (MESSAGES + 4 * -(-longest // MIN_PART_BYTES))
        self._per_byte = 1 / (BYTES + 8 * longest)
        self._budgets: OrderedDict[str, Budget] = OrderedDict()
        self._crowded_out: list[str] = []  # of `muted`, by others

    def hear(self, device: str, size: int, now: float, round: int) -> str:
        """A message of `size` bytes has come; why its device is to be muted, or ""."""
        budget = self._budget(device, now, round)
        budget.messages += self._per_message
        budget.bytes += size * self._per_byte
        if budget.messages > FULL:
            return "too many messages"
        return "too many bytes" if budget.bytes > FULL else ""

    def refuse(self, device: str, now: float, round: int) -> str:
        """A message that no honest device sends was refused; why its device is to be muted, or ""."""
        budget = self._budget(device, now, round)
        budget.refusals += 1 / REFUSALS
        return "too many refused messages" if budget.refusals > FULL else ""

    def mute(self, device: str, why: str, now: float) -> None:
        """Nothing that comes from the device is looked at for a while."""
        if len(self.muted) >= MOST:
            self._crowded_out.append(next(iter(self.muted)))
            del self.muted[self._crowded_out[-1]]
        self.muted[device] = now + MUTE_S, why
        self._budgets.pop(device, None)

    def over(self, now: float) -> list[str]:
        """The devices whose mute has ended."""
        ended = [device for device, (until, _) in self.muted.items() if now >= until]
        for device in ended:
            del self.muted[device]
        crowded_out, self._crowded_out = self._crowded_out, []
        return crowded_out + ended

    def _budget(self, device: str, now: float, round: int) -> Budget:
        budget = self._budgets.get(device)
        if budget is None:
            if len(self._budgets) >= MOST:
                self._budgets.popitem(last=False)
            budget = self._budgets[device] = Budget(now, round)
        else:
            self._budgets.move_to_end(device)
            budget.recover(now, round)
        return budget
