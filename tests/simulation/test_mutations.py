"""Guards removed by hand, one at a time: the simulation (dst/) must notice each, and say which promise it broke."""

from __future__ import annotations

from dst.host import Host
from dst.rivals import Rivals
from dst.schedule import Schedule
from dst.violation import Violation
from dst.world import World

from edgefl.coordinator import announcer
from edgefl.coordinator.coordinator import RoundCoordinator
from edgefl.coordinator.downlink import Downlink
from edgefl.coordinator.events import Commit, ReloadLate, SaveAttempt, SaveLate
from edgefl.coordinator.fence import Fence
from edgefl.coordinator.presence import Presence
from edgefl.coordinator.reception import Reception
from edgefl.coordinator.retained_model import RetainedModel
from edgefl.coordinator.standing import Standing
from edgefl.coordinator.tally import Tally
from edgefl.device import work as device_work
from edgefl.device.events import DropUpdate, SaveUpdate
from edgefl.device.participation import Participation
from edgefl.device.reporting import Reporting
from edgefl.device.saved_update import SavedUpdate
from edgefl.device.session import DeviceSession
from edgefl.device.update_report import UpdateReport
from edgefl.protocol import envelope
from edgefl.protocol.parts import Assembler


def broken_promise(schedules: int = 400, world: type[World] = World) -> str:
    """The first promise that the simulation finds broken, in the order of the seeds; "" if it finds none."""
    for seed in range(schedules):
        try:
            world(Schedule.draw(seed)).run()
        except Violation as violation:
            return violation.name
    return ""


def before(monkeypatch, owner, method, change):
    """`change(self, *args)` is called before each call of the method."""
    original = getattr(owner, method)

    def changed(self, *args, **kwargs):
        change(self, *args)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, method, changed)


def after(monkeypatch, owner, method, change):
    """`change(self, result)` is what each call of the method returns."""
    original = getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda self, *args, **kwargs: change(self, original(self, *args, **kwargs)))


def emitted(monkeypatch, owner, method, change, out="_out"):
    """`change(self, actions)` are the actions that each call of the method adds to `out`, its machine's."""
    original = getattr(owner, method)

    def changed(self, *args, **kwargs):
        before = getattr(self, out)
        setattr(self, out, [])
        original(self, *args, **kwargs)
        setattr(self, out, [*before, *change(self, getattr(self, out))])

    monkeypatch.setattr(owner, method, changed)


def last(kind):
    """A change: actions of this kind come after all others."""
    return lambda self, out: sorted(out, key=lambda action: isinstance(action, kind))


def test_with_all_its_guards_it_keeps_every_promise():
    assert broken_promise(50) == ""


def test_a_device_that_was_counted_is_counted_again(monkeypatch):
    monkeypatch.setattr(Tally, "counted_in", lambda self, device: None)
    assert broken_promise() == "I01"


def test_a_model_is_announced_before_it_is_durable(monkeypatch):
    emitted(monkeypatch, RoundCoordinator, "_next", last(Commit))
    assert broken_promise() == "I09"


def test_an_update_is_sent_before_it_is_durable(monkeypatch):
    emitted(monkeypatch, Participation, "on_result", last(SaveUpdate), out="out")
    assert broken_promise() == "I06"


def test_an_update_is_dropped_at_its_receipt(monkeypatch):
    after(monkeypatch, Reporting, "on_counted", lambda self, out: [*out, DropUpdate()])
    assert broken_promise() == "I06"


def without(kind):
    """A change: no actions of this kind."""
    return lambda self, out: [action for action in out if not isinstance(action, kind)]


def test_a_late_update_has_its_receipt_before_it_is_durable(monkeypatch):
    after(monkeypatch, Reception, "_fold", last(SaveLate))
    assert broken_promise() == "I06"


def test_a_commit_forgets_late_updates_that_are_not_in_it(monkeypatch):
    monkeypatch.setattr(Tally, "late_to_drop", lambda self, committed: list(self.folded))
    assert broken_promise() == "I06"


def test_a_commit_forgets_no_late_updates(monkeypatch):
    monkeypatch.setattr(Tally, "late_to_drop", lambda self, committed: [])
    assert broken_promise() == "I01"


def test_late_updates_are_saved_and_left_there(monkeypatch):
    emitted(monkeypatch, RoundCoordinator, "_open", without(ReloadLate))
    assert broken_promise() in ("I06", "I07")


def test_a_puback_passes_for_a_receipt(monkeypatch):
    before(monkeypatch, UpdateReport, "on_sent", lambda self, *args: setattr(self, "counted", True))
    assert broken_promise() == "I06"


def test_parts_are_not_checked_by_crc(monkeypatch):
    monkeypatch.setattr(envelope, "crc32c", lambda *args: 0)
    assert broken_promise() == "I16"


def test_neither_parts_nor_updates_are_checked(monkeypatch):
    feed = Host.feed
    monkeypatch.setattr(Host, "feed", lambda self, event, damaged=False: feed(self, event))  # the checker is not told
    monkeypatch.setattr(envelope, "crc32c", lambda *args: 0)
    monkeypatch.setattr(Assembler, "blob", lambda self: b"".join(self._data[i] for i in range(self._first.parts)))
    assert broken_promise() == "I02"


def test_an_update_of_another_round_counts(monkeypatch):
    def claim(self, part):
        self._expected = (part.kind, part.federation, part.round, part.version)

    before(monkeypatch, Assembler, "add", claim)
    monkeypatch.setattr(Reception, "_round", lambda self, tally, number: tally)
    assert broken_promise() in ("I01", "I02", "I03", "I06")


def test_an_update_of_an_earlier_run_counts(monkeypatch):
    for module in (announcer, device_work):
        monkeypatch.setattr(module, "federation_hash", lambda federation, run, plan: 1)
    monkeypatch.setattr("dst.earlier.federation_hash", lambda federation, run, plan: 1)
    assert broken_promise() in ("I01", "I02", "I03")


def test_a_round_commits_below_min_reports(monkeypatch):
    original = Tally.record
    monkeypatch.setattr(Tally, "record", lambda self, num_params, min_reports, now: original(self, num_params, 1, now))
    assert broken_promise() == "I04"


def test_a_round_is_reopened_as_the_same_attempt(monkeypatch):
    before(monkeypatch, RoundCoordinator, "_publish_round", lambda self: setattr(self.fence, "attempt", 1))
    assert broken_promise() == "I06"


def test_a_late_will_hides_the_connection_that_came_after(monkeypatch):
    before(monkeypatch, Presence, "update", lambda self, device, status: self.statuses.pop(device, None))
    assert broken_promise() == "I07"


def test_a_device_follows_an_older_round(monkeypatch):
    before(monkeypatch, DeviceSession, "_on_round", lambda self, *args: setattr(self._part, "round", None))
    monkeypatch.setattr(SavedUpdate, "check", lambda self, round: None)
    assert broken_promise() == "I19"


def test_a_restarted_device_forgets_which_round_it_was_in(monkeypatch):
    monkeypatch.setattr(SavedUpdate, "check", lambda self, round: None)
    assert broken_promise() == "I06"


def test_every_residual_passes_for_applied(monkeypatch):
    after(monkeypatch, SavedUpdate, "settle", lambda self, out: [DropUpdate(applied=True) for _ in out])
    assert broken_promise() == "EF"


def test_of_two_aggregators_none_stops(monkeypatch):
    monkeypatch.setattr(Fence, "_lose", lambda self, claim: [])
    assert broken_promise(world=Rivals) == "I05"


def test_an_attempt_is_announced_before_it_is_durable(monkeypatch):
    after(monkeypatch, Fence, "_own", last(SaveAttempt))
    emitted(monkeypatch, RoundCoordinator, "_on_claim", last(SaveAttempt))
    assert broken_promise() == "I05"


def test_a_slot_is_reused_while_the_announced_round_names_it(monkeypatch):
    put = RetainedModel.put
    monkeypatch.setattr(RetainedModel, "put", lambda self, payloads, again=False: put(self, payloads, again=True))
    before(monkeypatch, Downlink, "_slot", lambda self: self._taken.clear())
    assert broken_promise() == "I10"


def test_devices_that_never_report_are_waited_for_in_every_round(monkeypatch):
    monkeypatch.setattr(Standing, "_miss", lambda self, device, shared, rejected: "")
    monkeypatch.setattr(Standing, "is_worth", lambda self, device: True)
    assert broken_promise() == "I07"


def test_an_asynchronous_model_has_two_updates_of_one_device(monkeypatch):
    monkeypatch.setattr(Tally, "is_full", lambda self, device: False)
    assert broken_promise() == "I01"


def test_an_update_that_counted_is_refused_as_too_late(monkeypatch):
    monkeypatch.setattr(Standing, "settled", lambda self, device, round: False)
    assert broken_promise() == "I06"
