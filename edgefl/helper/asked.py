"""Asked: which asks are believed, and which sets are opened. Pure functions of an ask and of what is known.

An ask that no certified signer has signed may come from anybody: it is dropped. What the aggregator itself has signed
and is not opened is refused, and the aggregator is told why (refusal.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from ..errors import ProtocolError
from ..masking.exchange import Ask, Entry
from ..privacy.ledger import Ledger
from ..protocol.terms import Party, Terms
from ..trust.certificate import SignerCertificate
from ..trust.ed25519 import fingerprint, to_text
from ..trust.roster import Roster
from .events import Keys
from .least import Least
from .opening import Job, Signed
from .refusal import Refusal, of_devices
from .state import MOST_RUNS, State


def check_certificate(found: SignerCertificate, state: State, unix_s: float | None) -> None:
    """Refusal unless this is the aggregator's newest certificate, and in force as far as we know the time."""
    if found.serial < state.serial or found.epoch < state.signer_epoch:
        raise Refusal("certificate", f"it is number {found.serial}, and number {state.serial} has been seen")
    if unix_s is not None and not found.not_before <= unix_s <= found.not_after:
        raise Refusal("certificate", "it is out of its dates: `edgefl keys renew` writes another; or a clock is wrong")


def read_terms(ask: Ask, federation: str) -> Terms:
    """The terms of the ask; Refusal."""
    try:
        terms = Terms.read(ask.terms)
    except ProtocolError as error:
        raise Refusal("terms", str(error).rpartition(": ")[0]) from None
    if terms.federation != federation:
        raise Refusal("terms", f"they are of federation {terms.federation!r}")
    return terms


def check_run(terms: Terms, state: State) -> None:
    """Refusal for a run that another one followed: the aggregator has its vectors, and we forget its rounds."""
    if terms.run in state.ended:
        raise Refusal("run", f"run {terms.run} is over; another one followed it in a later epoch")


def check_round(terms: Terms, ask: Ask, state: State, keys: Keys) -> None:
    """Refusal unless this round comes after all that were opened; a kept one is no matter of this."""
    if terms.run != state.run and state.is_full:
        more = f"this epoch of the helper's keys has had {MOST_RUNS} runs"
        raise Refusal("run", f"{more}: `edgefl keys epoch DIR helper-{keys.name}` begins the next")
    if terms.run != state.run:
        raise Refusal("run", "in one epoch there is one; `edgefl keys epoch` begins the next")
    if terms.round <= state.round:
        raise Refusal("old", f"round {terms.round}; round {state.round} was opened")
    if state.restored or ask.seen_round > state.round or ask.seen_epsilon > state.epsilon:
        raise Refusal(
            "restored",
            f"we know of round {state.round} and epsilon {state.epsilon:g}, and later answers of ours have been seen: "
            f"`edgefl keys epoch DIR helper-{keys.name}` begins a new epoch",
        )
    if terms.epsilon < state.epsilon:
        raise Refusal("epsilon", f"{terms.epsilon:g} in round {terms.round}; {state.epsilon:g} was spent")


def check_keys(terms: Terms, keys: Keys) -> None:
    """Refusal unless the terms name our keys."""
    party = terms.party(keys.name)
    ours = Party(keys.name, keys.epoch, to_text(keys.box_public), to_text(keys.signing.public))
    if party != ours:
        epoch = "none of ours" if party is None else f"of epoch {party.epoch}"
        raise Refusal("helper", f"their keys are {epoch}; ours are of epoch {keys.epoch}")


def check_terms(terms: Terms, least: Least) -> None:
    """Refusal unless our owner allows these terms."""
    for fault in least.faults(terms):
        raise Refusal("weak", fault)
    if terms.noise.kind == "banded" and terms.groups > 1:
        raise Refusal("noise", "correlated noise is of one group: a device's group changes from round to round")


def job_of(terms: Terms, ask: Ask, roster: Roster, keys: Keys, least: Least, *, ledger: Ledger | None) -> Job:
    """The work of opening this set; Refusal unless it is one that may be opened, as far as that shows at once."""
    entries = ask.entries
    if any(a.device >= b.device for a, b in pairwise(entries)):
        raise Refusal("order", "the devices are not in order, or not distinct")
    if len(entries) > terms.most:
        raise Refusal("many", f"{len(entries)}, and the terms allow {terms.most}")
    signed = _known(entries, roster)
    groups: list[list[Signed]] = [[] for _ in range(terms.groups)]
    for one in signed:
        groups[terms.group_of(one.entry.device)].append(one)
    fewest = least.fewest(terms)
    opened = tuple(tuple(group) if len(group) >= fewest else () for group in groups)
    if not any(opened):
        raise Refusal("few", f"{max(map(len, groups))} in a group, and {fewest} are needed")
    place = [party.name for party in terms.helpers].index(keys.name)
    return Job(
        terms,
        keys.name,
        place,
        ask.set_digest,
        opened,
        keys.box_public,
        keys.box_private,
        fingerprint(keys.root),
        ledger,
        roster.serial,
    )


def _known(entries: Iterable[Entry], roster: Roster) -> list[Signed]:
    """The devices with their keys; Refusal, which names all that the roster does not have as enrolled."""
    members = [(entry, roster.get(entry.device)) for entry in entries]
    missing = [entry.device for entry, member in members if member is None]
    if missing:
        code = "revoked" if all(map(roster.is_revoked, missing)) else "unknown"
        raise of_devices(code, missing, f"by roster {roster.serial}: is that the operator's newest?")
    return [Signed(entry, member.public) for entry, member in members if member is not None]
