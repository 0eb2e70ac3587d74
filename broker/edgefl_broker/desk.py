"""Desk: orders of the operator's commands (edgefl/hosting/orders.py) become events, and answers go back."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

from edgefl.coordinator import events
from edgefl.errors import StoreError
from edgefl.hosting.orders import Answer, AskProfile, Forget, Name, Order, Orders, Pause, Release, Resume, Rollback
from edgefl.protocol.fleet import plain
from edgefl.strategies.checkpoint import unpack

from .store import AggregatorStore
from .tags import TagTable

log = logging.getLogger("edgefl.aggregator")


class Desk:
    """`feed` gives an event to the coordinator. `strategy` is the name of the strategy that runs."""

    def __init__(
        self, folder: Path, store: AggregatorStore, tags: TagTable, strategy: str,
        feed: Callable[[events.Event], None],
    ) -> None:  # fmt: skip
        self._orders, self._tags = Orders(folder), tags
        self._store, self._strategy, self._feed = store, strategy, feed
        self._waiting: deque[tuple[str, Order | str]] = deque()

    def look(self) -> None:
        """Carry out the orders that have come. A folder that can't be used is a warning: rounds go on.

        To remove a device, all records are written anew: what comes after it waits for the next look, so that a row of
        such orders does not seem to be a daemon that hangs.
        """
        try:
            self._waiting += self._orders.look()
        except (OSError, StoreError) as error:
            log.warning("orders can't be read: %s", error)
        order: Order | str = ""
        while self._waiting and not isinstance(order, Forget):
            name, order = self._waiting.popleft()
            if isinstance(order, str):
                self.answer(events.Answered(name, False, order))
            else:
                log.info("order: %s", order, extra={"device": getattr(order, "device", "")})
                self._carry_out(name, order)

    def answer(self, action: events.Answered) -> None:
        """Write the answer. Without it the order is carried out again at the next start."""
        log.info("%s: %s", "done" if action.done else "not done", action.text)
        if not action.order:  # of this process itself, which does not wait for an answer
            return
        try:
            self._orders.answer(action.order, Answer(action.done, action.text))
        except (OSError, StoreError) as error:
            log.warning("the answer to an order can't be written: %s", error)

    def _carry_out(self, name: str, order: Order) -> None:
        match order:
            case Rollback(version):
                self._roll_back(name, version)
            case Release(device):
                self._feed(events.Release(name, device))
            case Pause(device, why):
                self._feed(events.Pause(name, device, plain(why)))
            case Resume(device):
                self._feed(events.Resume(name, device))
            case Forget(device):
                self._feed(events.Forget(name, device))
            case Name(tag, version):
                done, text = self._tags.remove(tag) if version is None else self._tags.name(tag, version)
                self.answer(events.Answered(name, done, text))
            case AskProfile():
                self._feed(events.AskProfile(name))

    def _roll_back(self, name: str, version: int) -> None:
        found = self._store.models.get(version)
        if found is None:
            kept = ", ".join(map(str, self._store.models.versions()))
            text = f"version {version} is not kept: the versions are {kept}; keep_models says how many"
            self.answer(events.Answered(name, False, text))
            return
        params, made = found
        strategy, state = unpack(made)
        if strategy not in ("", self._strategy):
            log.warning("version %d was made by strategy %s: %s starts anew from it", version, strategy, self._strategy)
            state = {}
        self._feed(events.Rollback(name, version, params, state))
