"""Engagement: what a device is doing for the rounds, what it says of that, and how it stops. No I/O.

Part of Participation, which decides what the device does.
"""

from __future__ import annotations

import random
from typing import Literal

from msgspec.structs import replace

from ..core.params import DIGEST
from ..machine import Connected, Note, WallClock
from ..protocol.manifest import Manifest
from ..protocol.round import Round
from ..protocol.topics import Topics
from ..protocol.trouble import Trouble
from .canary import Canary
from .events import Action
from .model.delivery import Delivery, Wanted
from .model.models import Models
from .owner.allowance import Allowance
from .owner.budget import Refusal
from .owner.consent import Consent
from .owner.policy import OPEN, Policy
from .patience import Patience
from .report.reporting import Reporting
from .report.update_report import UpdateReport
from .shelf import Shelf
from .status import DeviceStatus
from .trust import Open
from .work import Terms, Training, Work


class Engagement:
    """`round` is the newest round, `terms` what the device has agreed to, `work` what it is doing for a round.

    `out` has the actions of the step that is being made, of the session too: they are carried out in their order.
    """

    def __init__(
        self,
        topics: Topics,
        device: str,
        *,
        clock: WallClock,
        status: DeviceStatus,
        allowance: Allowance,
        reporting: Reporting,
        patience: Patience,
        rng: random.Random,
        shelf: Shelf,
        trust: Open,
        policy: Policy = OPEN,
        wanted: Wanted | None = None,
        base: bytes = b"",
    ) -> None:
        self.topics, self.device = topics, device
        self.clock, self.status, self.allowance = clock, status, allowance
        self.terms: Terms | None = None
        self.round: Round | None = None
        self.work: Work | None = None
        self.online = False
        self.link = Connected()
        self.out: list[Action] = []
        self._reporting, self._saved = reporting, reporting.saved
        self.models = Models(topics, patience=patience, shelf=shelf, base=base)
        self.canary = Canary(topics, device, models=self.models, patience=patience, trust=trust)
        if wanted is not None and wanted.params:
            self.models.held[wanted.sha256[:DIGEST]] = wanted.params
            wanted = replace(wanted, params=b"")  # the next model takes their place in memory
        self.delivery = Delivery(topics, wanted, patience)
        self.takes_part = True  # in the newest round; else it is there for the owner's files alone
        self._rng, self._trust = rng, trust
        self.consent = Consent(policy, trust)

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted."""
        work_at, delivery_at = self.work_at, self.delivery_at
        if work_at is None or delivery_at is None:
            return delivery_at if work_at is None else work_at
        return min(work_at, delivery_at)

    @property
    def work_at(self) -> float | None:
        """When the work goes on, or a pause of the device's own is over."""
        if not self.online:
            return None
        times = (self.status.ready_at, None if self.work is None else self.work.wake_at)
        return min((at for at in times if at is not None), default=None)

    @property
    def delivery_at(self) -> float | None:
        """When the owner's files may be brought up to date."""
        if self.delivery.wanted is None or self.round is None or not self.may_fetch_alone:
            return None
        has = self.models.has(self.round)
        if self.work is not None and not has:
            return None
        return self.delivery.wake_at(self.terms, self.round, has=has)

    @property
    def may_fetch_alone(self) -> bool:
        """Whether something may be fetched for the owner's files alone, as far as the device's state goes."""
        return self.online and not self.status.paused and not self.status.sits_out

    @property
    def calm_s(self) -> float:
        """How long a lost connection may stay away: no round waits for a device that has nothing to report."""
        owes = isinstance(self.work, UpdateReport) and not self.work.counted
        return 0.0 if self.round is None or owes else self.round.back_s

    def adopt(self, terms: Terms | None) -> None:
        """The device has agreed to these terms; None: it has refused the manifest."""
        self.terms = terms
        self._saved.asks = terms is not None and terms.manifest.keeps_own
        saved = self._saved.outbox
        if terms is None or saved is None or saved.manifest != terms.manifest.id:
            return
        if not self._trust.has_signed(terms.manifest, saved):  # nobody would say so: anyone can send such an update
            self.out += self._saved.drop("")
            text = f"the update saved for round {saved.round} was signed with another key of this device: dropped"
            self.out.append(Note("warning", text, "dropped"))

    # The connection

    def on_connected(self, now: float) -> None:
        """There is a connection: the work goes on over it."""
        self.publish_status()
        if self.work is not None:
            self.out += self.work.on_connected(now)

    def on_disconnected(self) -> None:
        """The connection is lost: what the work had sent or asked for may be too."""
        self.online = False
        self.out += self.canary.stop()
        self.delivery.on_disconnected()
        if self.work is not None:
            self.work.on_disconnected()

    # What it says, and how it stops

    def publish_status(self, state: str = "") -> None:
        """Publish the status if it has changed and the device is connected."""
        news_count = self.round is not None and self.round.only_new_data
        self.status.fresh = self._saved.is_fresh or not news_count
        self.status.hides = self.consent.hides
        if self.online:
            self.out += self.status.publish(state or ("training" if isinstance(self.work, Training) else "ready"))

    def stop_work(self) -> None:
        """Give up what the device is doing; a saved update stays saved."""
        work, self.work = self.work, None
        self.out += self.canary.stop()
        if work is not None:
            self.out += work.cancel()

    def stop_training(self) -> None:
        """Stop training, and the fetch before it; a report goes on."""
        self.out += self.canary.stop()
        if not isinstance(self.work, UpdateReport):
            self.stop_work()

    def give_up(self, round: Round, why: Trouble | None, now: float, *, tries_again: bool) -> None:
        """Sit the round out for a deadline; it may last several."""
        self.work = None
        later_s = self._rng.uniform(0, round.back_s) if round.back_s else 0.0
        self.status.give_up(round, why, now + round.deadline_s + later_s, tries_again=tries_again)

    def stay_away(self, round: Round, now: float) -> None:
        """A round that was given up for good goes on, and the pause is over: say so again, or the round waits for us.
        The aggregator's clock may be slower than ours, so this pause is twice as long as the deadline."""
        status = self.status
        if round.state == "open" and status.gave_up(round) and status.trouble is None:
            status.give_up(round, status.gave_up_for, now + 2 * round.deadline_s, tries_again=False)

    def sit_out(self, refusal: Refusal, now: float) -> None:
        """Take no part until the owner's limits allow it, and say so."""
        self.stop_work()
        unix_s = self.clock.at(now)
        until = None if refusal.until is None or unix_s is None else now + refusal.until - unix_s
        self.status.sit_out(refusal.why, until)
        self.out.append(Note("info", f"sits out: {refusal.why.text}"))
        self.publish_status()

    # What its owner says to a round

    def drop_plain(self) -> None:
        """A saved update from before the owner wanted masks leaves no more, for no round."""
        saved = self._saved.outbox
        if saved is not None and not self.consent.keeps(saved.blob):
            self.stop_work()
            self.out += self._saved.drop("")

    def ask_consent(self, round: Round, manifest: Manifest, now: float) -> None:
        """Give the round up if its masks, or that it has none, are less than the owner wants."""
        self.consent.hear(round)
        if self.status.gave_up(round) or not round.asks(self.device):
            return
        why = self.consent.refuses(round, manifest, now)
        self.out += self.consent.news()
        if why:
            self.stop_training()
            self.give_up(round, why, now, tries_again=False)
            level: Literal["info", "error"] = "info" if why.code == "rests" else "error"
            self.out.append(Note(level, f"round {round.round}: {why.text}", "round refused", round.round))
