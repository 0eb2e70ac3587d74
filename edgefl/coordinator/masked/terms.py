"""MaskedTerms: what the masked rounds of one federation fix, round by round. No I/O. Part of RoundCoordinator.

The terms follow from the settings, the round's number, its model and, where the clip is adaptive, from the votes of
the rounds before: what these have made of the clip is durable with each commit. So an aggregator that starts again
opens its round under the same terms, and the updates that devices have made for it still count. (Where models go down
with rounding, a restart may make another model of the same params; then the terms differ too, and devices train again.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from ...core.seeds import derived_seed
from ...errors import ProtocolError, UsageError
from ...history_record import RoundRecord
from ...masking.propose import propose
from ...masking.update import bound
from ...privacy import MOST_EPSILON, accountant
from ...privacy.accountant import Mechanism
from ...privacy.clipping import ClipState
from ...privacy.ledger import ROUNDING, Ledger, SaveLedger
from ...protocol.fleet import Adaptive, Spent
from ...protocol.manifest import Manifest
from ...protocol.terms import Noise, Party, Terms
from ...settings import FeatureSettings, Mode, PrivacySettings
from ..profile.numbers import ProfileNumbers

SEEDS = 2**53
NOWHERE: dict[str, Any] = {"round": 0, "version": 0, "model_sha256": "0" * 64, "manifest": "0" * 16}


class MaskedTerms:
    """`most`: the most updates in a sum, and `fleet` in one of profiles. `certificates`: what the root says of each
    helper, sealed, for the devices. `ledger`: what the federation has spent, at the settings' `delta`; noise is
    added by no rounds without one. `moved`: where rounds before have left an adaptive clip. `clip`: that of the next
    round. UsageError if the settings make no terms."""

    def __init__(
        self, settings: PrivacySettings, manifest: Manifest, *, most: int, rounds: int, helpers: Sequence[Party],
        certificates: Sequence[str] = (), ledger: Ledger | None = None, fleet: int = 0,
        features: FeatureSettings | None = None, moved: ClipState | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.most, self.helpers = settings, most, tuple(helpers)
        self.profiles = ProfileNumbers(settings, features or FeatureSettings(), manifest.plan, max(most, fleet))
        self.certificates = list(certificates)
        self._clipping, self.clip = settings.clipping, settings.clip
        self._within: float | None = None
        self._recalls = moved is None  # before the first commit; or an earlier version has made the last one
        if moved is not None and self._clipping.quantile is not None:
            self.clip, self._within = self._clipping.after(moved.clip, None), moved.within
        self._rounds, self.ledger = rounds, ledger
        self._known: tuple[Ledger | None, int, Mode, float] = (None, 0, "train", 0.0)
        self._federation, self._run, self._params = manifest.federation, manifest.run, manifest.update_size
        self._whole = sum(run.stop - run.start for run in manifest.update_codec.measured(self._params))
        self._noise, self._numbers = Noise(separation=settings.separation), self._proposed()
        self.mechanism: Mechanism | None = None
        if settings.noise != "none":
            self._fit_noise()
            self.mechanism = Mechanism.of(self._noise, self._numbers["norm2"])
            accountant.epsilon(self.mechanism.rho(1), settings.delta)  # or UsageError, if it can't be computed here
        self._longest = bound(self._checked("train"))
        if self.profiles.mechanism is not None:
            self._checked("profile")

    def max_payload(self, mode: Mode) -> int:
        """The longest masked update of a round of this mode."""
        return self._longest if mode == "train" else bound(self.terms(**NOWHERE, mode="profile"))

    def _mechanism(self, mode: Mode) -> Mechanism | None:
        return self.mechanism if mode == "train" else self.profiles.mechanism

    def adopt(self, helpers: Sequence[Party], certificates: Sequence[str]) -> None:
        """Other keys of the helpers, for the terms of rounds to come."""
        self.helpers, self.certificates = tuple(helpers), list(certificates)

    def _checked(self, mode: Mode) -> Terms:
        """Terms that can be, at both ends of what the clip may become; UsageError."""
        clips = [self._scaled(clip) for clip in self._clipping.bounds] if mode == "train" else [self.profiles.numbers]
        try:
            for numbers in clips:
                terms = Terms.read(self._made(mode, numbers, **NOWHERE).text)
        except ProtocolError as error:
            raise UsageError(f"[privacy] can't be: {str(error).removesuffix(': refused')}: correct it") from None
        return terms

    def learn(self, record: RoundRecord) -> None:
        """A round is over: the clip of the next follows from its record alone."""
        if self._clipping.quantile is not None and record.clip is not None:
            self.clip = self._clipping.after(record.clip, record.within)
            self._within = self._within if record.within is None else record.within

    def recall(self, record: RoundRecord) -> None:
        """A round of before the start. Where no commit has stored the clip, the records are all that is known of it."""
        if self._recalls:
            self.learn(record)

    @property
    def moved(self) -> ClipState | None:
        """What is to be durable of the clip; None where it is fixed."""
        return None if self._clipping.quantile is None else ClipState(self.clip, self._within)

    def terms(self, *, round: int, version: int, model_sha256: str, manifest: str, mode: Mode = "train") -> Terms:
        """The terms of one round, which trains or tells of columns."""
        numbers = self._scaled(self.clip) if mode == "train" else self.profiles.numbers
        return self._made(mode, numbers, round=round, version=version, model_sha256=model_sha256, manifest=manifest)

    def _scaled(self, clip: float) -> dict[str, Any]:
        """With a grid in proportion to the clip: reach, norm and noise are what they were, and so is their cost."""
        grid = self._numbers["grid"] * (clip / self.settings.clip)
        return self._numbers | {"clip": clip, "grid": grid, "groups": self.settings.groups}

    def _made(
        self, mode: Mode, numbers: dict[str, Any], *, round: int, version: int, model_sha256: str, manifest: str
    ) -> Terms:
        settings, noise = self.settings, self._noise if mode == "train" else self.profiles.noise
        return Terms(
            federation=self._federation, run=self._run, round=round, version=version, model_sha256=model_sha256,
            manifest=manifest, seed=derived_seed(round, "masked", self._run) % SEEDS, least=settings.least,
            helpers=self.helpers, examples=settings.unit, noise=noise,
            epsilon=self._epsilon(round, mode) if round else 0.0, delta=settings.delta if noise.sigma > 0 else 0.0,
            **numbers,
        )  # fmt: skip

    # ---- what is spent

    @property
    def next_round(self) -> int:
        """The first round of this run that may have noise."""
        return 1 if self.ledger is None or self.ledger.run != self._run else self.ledger.round + 1

    def _epsilon(self, round: int, mode: Mode = "train") -> float:
        """Once this round is over; never less than devices were told before."""
        if (mechanism := self._mechanism(mode)) is None:
            return 0.0
        if self.ledger is None:
            raise UsageError("noise is accounted in a ledger, and there is none: masked rounds need keys")
        spent = msgspec.structs.replace(self.ledger, highest=0.0)
        if self._known[:3] != (spent, round, mode):  # which takes a tenth of a second
            self._known = spent, round, mode, spent.after(mechanism, self._run, round)
        return max(self._known[3], self.ledger.highest, self.settings.told)

    def refusal(self, round: int, mode: Mode = "train") -> str:
        """Why this round may not open: the budget is spent; "" if it may."""
        if self.ledger is None or self.mechanism is None:
            return ""
        try:
            return self.ledger.refusal(self.settings.budget, self._epsilon(round, mode))
        except UsageError as error:  # correlated noise is for so many rounds alone
            return str(error)

    def tell(self, terms: Terms) -> list[SaveLedger]:
        """Devices are about to be told these terms: what must be durable before that."""
        return [] if self.ledger is None else self._write(self.ledger.tell(terms.epsilon))

    def spend(self, terms: Terms) -> list[SaveLedger]:
        """The helpers are about to be asked for noise: what must be durable before that."""
        mechanism = self._mechanism("train" if terms.profile is None else "profile")
        if self.ledger is None or mechanism is None:
            return []
        paid = self.ledger.spend(mechanism, self._run, terms.round, terms.digest.hex())
        return self._write(paid.charged(terms.epsilon))

    def is_behind(self, epsilon: float) -> bool:
        """Whether our ledger says that less is spent."""
        return self.ledger is not None and epsilon > self.ledger.epsilon * (1 + ROUNDING)

    def doubt(self, epsilon: float) -> str:
        """Why a helper's word that so much is spent, more than our ledger says, is not taken over by itself; "" if it
        is, or if the operator has said so."""
        ledger, limit = self.ledger, self.settings.budget or MOST_EPSILON
        if ledger is None or self.mechanism is None or epsilon <= self.settings.told:
            return ""
        own = ledger.epsilon - ledger.taken
        if epsilon - own > (limit - own) / 2:
            return f"more than half of what is left by our own ledger, which has {own:.6g} of {limit:g}"
        heard = ledger.hear(epsilon, self._run, 0)
        after = heard.after(self.mechanism, self._run, heard.round + 1)
        ends = heard.refusal(self.settings.budget, after)
        return f"which would end the federation: our own ledger has {own:.6g} of {limit:g}" if ends else ""

    def hear(self, epsilon: float, round: int) -> list[SaveLedger]:
        """A helper has signed that so much was spent; `round`: of the set that it was asked for."""
        if self.ledger is None:
            return []
        heard = self.ledger.hear(epsilon, self._run, round)
        if epsilon > self.settings.told:
            heard = msgspec.structs.replace(heard, taken=heard.taken + heard.epsilon - self.ledger.epsilon)
        return self._write(heard)

    def leave_out(self, round: int) -> list[SaveLedger]:
        """Rounds up to this one are left out: none of them has noise again."""
        if self.ledger is None or self.mechanism is None or self.next_round > round:
            return []
        return self._write(self.ledger.leave_out(self._run, round))

    def settle(self) -> list[SaveLedger]:
        """A sum was opened: helpers know what we do, so what was taken over at their word is spent."""
        return [] if self.ledger is None else self._write(msgspec.structs.replace(self.ledger, taken=0.0))

    def _write(self, ledger: Ledger) -> list[SaveLedger]:
        if ledger == self.ledger:
            return []
        self.ledger = ledger
        return [SaveLedger(ledger)]

    @property
    def spent(self) -> Spent | None:
        """For viewers; None without noise."""
        ledger = self.ledger
        if ledger is None or self.mechanism is None:
            return None
        return Spent(ledger.epsilon, ledger.delta, ledger.round, self.settings.budget)

    @property
    def adaptive(self) -> Adaptive | None:
        """For viewers; None where the clip is fixed."""
        quantile = self._clipping.quantile
        return None if quantile is None else Adaptive(self.clip, quantile, self._within)

    def _proposed(self, noise_bound: int = 0) -> dict[str, Any]:
        settings = self.settings
        return propose(
            self._params, settings.clip, self.most, whole=self._whole, weights=settings.weight, share=settings.share,
            bits=settings.bits, transform=settings.transform, scores=settings.scores,
            votes=settings.clip_quantile is not None, noise_bound=noise_bound,
        )  # fmt: skip

    def _fit_noise(self) -> None:
        """Numbers that leave just the room for the noise, which is as large as they are fine; UsageError."""
        if self.settings.noise == "banded" and self.settings.clip_quantile is not None:
            raise UsageError("banded noise needs a clip that stays: leave privacy.clip_quantile out")
        if self.settings.noise == "banded" and self.settings.share < 1:
            raise UsageError(
                "banded noise cancels only where every round sends the same numbers: set privacy.share = 1, or "
                'privacy.noise = "independent"'
            )
        least, most = 0, 2 ** (self.settings.bits - 1)
        while least < most:
            room = (least + most) // 2
            if self._leaves(room) < 0:
                least = room + 1
            else:
                most = room
        self._leaves(least, refuse=True)

    def _leaves(self, room: int, *, refuse: bool = False) -> int:
        """Take the numbers that leave so much room: how much of it the noise does not need. Where nothing is left for
        the devices' numbers it is too much; to `refuse` that is a UsageError."""
        settings, banded = self.settings, self.settings.noise == "banded"
        try:
            self._numbers = self._proposed(room)
        except UsageError:
            if refuse:
                raise UsageError(
                    f"privacy.bits is {settings.bits}, too few for {self.most} devices and noise of privacy.sigma "
                    f"{settings.sigma:g}: raise it (`edgefl privacy` tells how many bits it takes)"
                ) from None
            return 1
        sigma = settings.sigma * math.sqrt(self._numbers["norm2"])
        self._noise = Noise(
            settings.noise, sigma, band=settings.band if banded else 0, separation=settings.separation,
            rounds=self._rounds if banded else 0,
        )  # fmt: skip
        return room - self.terms(**NOWHERE).noise_bound
