"""ProfileRounds: when a round asks devices for statistics of their columns, and what becomes of them. No I/O.

A profile round is asked for by an order, or by `[features] standardize` while the scaling of the model is the identity.
It takes the number of a round, and needs no model. Devices of an older version, which its `requires` keeps away, and
devices whose owner does not let statistics leave, sit it out. Its reports prove nothing about how long training takes,
so it teaches no times, and no device loses anything by not reporting. A late report is of no use.

Until an order's round is closed, its order stays in its file, so an aggregator that starts again asks anew. The scaling
is in the params, so the commit that makes it durable is also what ends the asking. No update moves it (`kept`).
Part of RoundCoordinator.
"""

from __future__ import annotations

from collections import deque

import msgspec
import numpy as np

from ...core.columns import Columns, Scaling
from ...core.plan import Plan
from ...history_record import RoundRecord
from ...profiles import Profile
from ...protocol.statistics import bound
from ...protocol.terms import Terms
from ...settings import FeatureSettings, RoundSettings
from ..events import Answered
from .gathering import Gathering, scaling_of
from .noisy import NoisyProfile
from .summed import SummedProfile


class ProfileRounds:
    """`orders` are not carried out yet, `answers` wait for the commit. `bounded`: few devices must not choose."""

    def __init__(self, plan: Plan, settings: FeatureSettings, *, bounded: bool) -> None:
        self.orders: deque[str] = deque()
        self.answers: list[Answered] = []
        self._plan, self._settings, self._bounded = plan, settings, bounded
        self._scaling = Scaling.of(plan)
        self._identity_is_right = False  # a profile has told so

    @property
    def max_payload(self) -> int:
        """The longest report of such a round."""
        return bound(Columns.of(self._plan).number)

    def wants(self, params: np.ndarray) -> bool:
        """Whether the next round is one, while the model has these params."""
        return bool(self.orders) or self._scales(params)

    def _scales(self, params: np.ndarray) -> bool:
        asked = self._settings.is_federated and not self._identity_is_right
        return asked and self._scaling is not None and self._scaling.is_identity(params)

    def rounds(self, config: RoundSettings, gathering: Gathering | SummedProfile) -> RoundSettings:
        """What the settings of rounds mean for a profile: all devices that are there, as far as there is room."""
        return msgspec.structs.replace(
            config, mode="sync", fraction=1.0, over_select=None, goal=gathering.capacity,
            min_reports=max(config.min_reports, self._settings.min_devices),
        )  # fmt: skip

    def open(self, terms: Terms | None = None) -> Gathering | SummedProfile:
        """Such a round opens; `terms`: it is masked."""
        if terms is not None:
            assert terms.profile is not None
            kind = NoisyProfile if terms.profile.ranges else SummedProfile
            return kind(terms, self._settings.min_devices)
        return Gathering(self._plan, self._settings, bounded=self._bounded)

    def conclude(
        self, gathering: Gathering | SummedProfile, record: RoundRecord, params: np.ndarray
    ) -> tuple[RoundRecord, Profile, np.ndarray | None]:
        """The round is over, with enough reports: its record, the profile, and the scaled params (P,) if the model gets
        them."""
        profile = gathering.result(record.round)
        record = msgspec.structs.replace(record, train_loss=None, profile=True)
        if not self._scales(params):
            return record, profile, None
        assert self._scaling is not None
        scaled = self._scaling.into(params, *scaling_of(profile, Columns.of(self._plan).number))
        if self._scaling.is_identity(scaled):
            self._identity_is_right = True
            return record, profile, None
        record = msgspec.structs.replace(record, state="committed", version=record.version + 1)
        return record, msgspec.structs.replace(profile, version=record.version), scaled

    def learn(self, record: RoundRecord, params: np.ndarray) -> None:
        """A record from before this start, whose model has these params. A profile that had noise and changed nothing
        is not paid for again. Its own record may be too old to be here; but no round trains before it."""
        if record.state == "rollback":
            self._identity_is_right = False
        elif record.epsilon > 0 and (record.state == "evaluated" if record.profile else not self._is_scaled(params)):
            self._identity_is_right = True

    def _is_scaled(self, params: np.ndarray) -> bool:
        return self._scaling is not None and not self._scaling.is_identity(params)

    def unknown(self, profile: Profile) -> str:
        """What the noise of the profile has left untold; "" if nothing."""
        count = Columns.of(self._plan).number
        if not profile.noise or len(profile.columns) == count:
            return ""
        return (
            f"{count - len(profile.columns)} of {count} columns are not told, since the noise may be all of them, and "
            "are not scaled: have more devices report, or lower privacy.sigma"
        )

    def kept(self, params: np.ndarray, of: np.ndarray) -> np.ndarray:
        """A round's new params (P,), with the scaling that the model `of` (P,) had before."""
        return params if self._scaling is None else self._scaling.keep(params, of)
