"""edgefl.testing finds what it says it finds: each broken codec or strategy is caught by the law that it breaks."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from edgefl.codecs.raw32 import Raw32
from edgefl.errors import CodecError
from edgefl.strategies.combine.mean import Mean
from edgefl.strategies.composed import Composed
from edgefl.strategies.server.momentum import Momentum
from edgefl.strategies.server.step import Step
from edgefl.testing import BrokenLaw, check_codec, check_strategy


class Moody(Raw32):
    lossless, calls = False, 0

    def encode(self, delta, rms=None):
        self.calls += 1
        return super().encode(np.asarray(delta) * np.float32(1 + self.calls % 2), rms)


class Vandal(Raw32):
    def encode(self, delta, rms=None):
        payload = super().encode(delta, rms)
        if delta.flags.writeable:
            delta[...] = 7
        return payload


class Liar(Raw32):
    def bound(self, num_params):
        return 4 * num_params - 1


class Rounder(Raw32):
    def decode(self, payload, num_params):
        return super().decode(payload, num_params) * np.float32(1.5)


class Offset(Raw32):
    lossless = False

    def decode(self, payload, num_params):
        return super().decode(payload, num_params) + np.float32(1)


class Generous(Raw32):
    lossless = False

    def decode(self, payload, num_params):
        whole = bytes(payload)[: 4 * num_params].ljust(4 * num_params, b"\0")
        return super().decode(whole, num_params)


class Double(Raw32):
    def accumulate(self, payload, weight, accumulator):
        super().accumulate(payload, 2 * weight, accumulator)


class Sloppy(Raw32):
    """Adds before it checks."""

    def accumulate(self, payload, weight, accumulator):
        accumulator.acc[:1] += weight
        super().accumulate(payload, weight, accumulator)
        accumulator.acc[:1] -= weight


class Careless(Raw32):
    def encode(self, delta, rms=None):
        return np.ascontiguousarray(delta, "<f4").tobytes()


class Spendthrift(Raw32):
    def _check_budget(self, size):
        pass


CODECS = {
    Moody: "the same delta gives the same bytes",
    Vandal: "encode leaves its delta as it is",
    Liar: r"no payload is longer than bound\(\)",
    Rounder: "a lossless codec gives the very bits",
    Offset: "a delta of zeros decodes to zeros",
    Generous: "a payload that was cut short must be refused by decode",
    Double: "accumulate counts the update once",
    Sloppy: "leaves the accumulator's bits as they were",
    Careless: "must be refused",
    lambda: Spendthrift(max_bytes=100): "no payload is longer than max_bytes",
}


@pytest.mark.parametrize("make", CODECS)
def test_a_codec_that_breaks_a_law_is_caught(make) -> None:
    with pytest.raises(BrokenLaw, match=CODECS[make]):
        check_codec(make())


class Last(Mean):
    """The newest update wins."""

    def add(self, update):
        super().start(len(self.accumulator.acc))
        super().add(update)


class Hoarder(Mean):
    """Does not drop what was added to a round that never finished."""

    def start(self, num_params):
        if not hasattr(self, "accumulator"):
            super().start(num_params)

    def finish(self):
        mean = super().finish()
        del self.accumulator
        return mean


class Forgetful(Momentum):
    def restore(self, state):
        pass


class InPlace(Momentum):
    """Changes the array that it gave away."""

    def step(self, params, delta):
        before = self._velocity
        result = super().step(params, delta)
        if before is not None:
            before[:] = self._velocity
            self._velocity = before
        return result


class Eager(Mean):
    """Its state moves with each update, although the round may be abandoned."""

    seen = 0.0

    def add(self, update):
        super().add(update)
        self.seen += 1

    def state(self):
        return {"seen": np.array(self.seen)}

    def restore(self, state):
        self.seen = float(state["seen"]) if state else 0.0


class Believer(Mean):
    """Counts before it checks."""

    def add(self, update):
        self.accumulator.acc[0] += 2**38
        super().add(update)


class Swallower(Mean):
    def add(self, update):
        with suppress(CodecError):
            super().add(update)


class Wide(Step):
    def step(self, params, delta):
        return super().step(params.astype(np.float64), delta)


STRATEGIES = {
    Last: "the order of the updates changes no bit",
    Hoarder: "a round that was abandoned leaves nothing behind",
    Eager: "only finish changes the state",
    Believer: "an update that is refused changes no bit",
    Swallower: "must be refused with CodecError",
    Wide: "finish gives .* float32",
    Forgetful: "restore takes what state gave",
    InPlace: r"an array that state\(\) returned stays as it is",
}


@pytest.mark.parametrize("part", STRATEGIES)
def test_a_strategy_that_breaks_a_law_is_caught(part) -> None:
    def make():
        combine = part() if issubclass(part, Mean) else Mean()
        server = part(1.0) if issubclass(part, Step) else part(1.0, 0.5) if issubclass(part, Momentum) else Step(1.0)
        return Composed("broken", combine=combine, server=server)

    with pytest.raises(BrokenLaw, match=STRATEGIES[part]):
        check_strategy(make)
