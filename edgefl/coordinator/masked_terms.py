"""MaskedTerms: what the masked rounds of one federation fix, round by round. No I/O. Part of RoundCoordinator.

The terms follow from the settings, the round's number and its model alone. So an aggregator that starts again opens its
round under the same terms, and the updates that devices have made for it still count. (Where models go down with
rounding, a restart may make another model of the same params; then the terms differ too, and devices train again.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..core.seeds import derived_seed
from ..errors import ProtocolError, UsageError
from ..masking.propose import propose
from ..masking.update import bound
from ..protocol.manifest import Manifest
from ..protocol.terms import Noise, Party, Terms
from ..settings import PrivacySettings

SEEDS = 2**53
STEPS = 40  # halvings of what is left
NOWHERE: dict[str, Any] = {"round": 0, "version": 0, "model_sha256": "0" * 64, "manifest": "0" * 16}
Spent = Callable[[int], float]  # epsilon, once so many rounds are over


def _nothing(rounds: int) -> float:
    return 0.0


class MaskedTerms:
    """`most`: the most updates in a sum. `max_payload`: the longest masked update. `certificates`: what the root says
    of each helper, sealed, for the devices. `spent`: what epsilon is, for the settings' `delta`, once so many noisy
    rounds are over. UsageError if the settings make no terms."""

    def __init__(
        self, settings: PrivacySettings, manifest: Manifest, *, most: int, rounds: int, helpers: Sequence[Party],
        certificates: Sequence[str] = (), spent: Spent = _nothing,
    ) -> None:  # fmt: skip
        self.settings, self.most, self.helpers = settings, most, tuple(helpers)
        self.certificates = list(certificates)
        self._rounds, self._spent = rounds, spent
        self._federation, self._run, self._params = manifest.federation, manifest.run, manifest.update_size
        self._whole = sum(run.stop - run.start for run in manifest.update_codec.measured(self._params))
        self._noise, self._numbers = Noise(separation=settings.separation), self._proposed()
        if settings.noise != "none":
            self._fit_noise()
        try:
            (terms := self.terms(**NOWHERE)).check()
        except ProtocolError as error:
            raise UsageError(f"[privacy] can't be: {str(error).removesuffix(': refused')}: correct it") from None
        self.max_payload = bound(terms)

    def terms(self, *, round: int, version: int, model_sha256: str, manifest: str) -> Terms:
        """The terms of one round."""
        settings = self.settings
        noisy = self._noise.sigma > 0
        return Terms(
            federation=self._federation, run=self._run, round=round, version=version, model_sha256=model_sha256,
            manifest=manifest, seed=derived_seed(round, "masked", self._run) % SEEDS, least=settings.least,
            helpers=self.helpers, examples=settings.unit, groups=settings.groups, noise=self._noise,
            epsilon=self._spent(round) if noisy else 0.0, delta=settings.delta if noisy else 0.0, **self._numbers,
        )  # fmt: skip

    def _proposed(self, noise_bound: int = 0) -> dict[str, Any]:
        settings = self.settings
        return propose(
            self._params, settings.clip, self.most, whole=self._whole, weights=settings.weight, share=settings.share,
            bits=settings.bits, transform=settings.transform, scores=settings.scores, noise_bound=noise_bound,
        )  # fmt: skip

    def _fit_noise(self) -> None:
        """Numbers that leave room for the noise, which is as large as they are fine: step by step."""
        settings, bound = self.settings, 0
        for _ in range(STEPS):
            self._numbers = self._proposed(bound)
            sigma = settings.sigma * math.sqrt(self._numbers["norm2"])
            banded = settings.noise == "banded"
            self._noise = Noise(
                settings.noise, sigma, band=settings.band if banded else 0, separation=settings.separation,
                rounds=self._rounds if banded else 0,
            )  # fmt: skip
            wanted = self.terms(**NOWHERE).noise_bound
            if bound >= wanted:
                return
            bound = max(bound + 1, (bound + wanted) // 2)
