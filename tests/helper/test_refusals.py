"""What a helper does not open: each with its reason, in its log and in its answer, and the round stays as it was."""

from __future__ import annotations

import msgspec
import pytest
from helped import (
    DEVICE_KEYS,
    DEVICES,
    FEDERATION,
    LAST,
    NAME,
    THIEF,
    TOPICS,
    Desk,
    ask_of,
    blob_of,
    certificate,
    entry_of,
    keys_of,
    parts_of,
    refused,
    roster_of,
    terms_of,
)

from edgefl.helper.arriving import SLACK, most_devices
from edgefl.helper.asked import REASONS
from edgefl.helper.events import RosterRead
from edgefl.helper.least import Least
from edgefl.machine import Received, WallTime
from edgefl.masking.exchange import ask_bound

NOISE = {"kind": "independent", "sigma": 30.0, "separation": 4}
DP = {"noise": NOISE, "bits": 16}
EPSILON = terms_of(**DP).epsilon
replace = msgspec.structs.replace


def with_entries(ask, *entries):
    return replace(ask, entries=tuple(entries))


def test_fewer_devices_than_the_owner_wants_or_than_the_terms_want():
    assert "3 are needed" in refused(Desk(least=Least(devices=3)), ask_of(terms_of(), DEVICES[:2]), "few")
    assert "4 are needed" in refused(Desk(), ask_of(terms_of(least=4), DEVICES[:3]), "few")


def test_no_group_has_enough_devices():
    terms = terms_of(groups=2)
    pair = [next(device for device in DEVICES if terms.group_of(device) == group) for group in (0, 1)]
    refused(Desk(), ask_of(terms, pair), "few")


def test_more_devices_than_the_terms_allow():
    refused(Desk(), ask_of(terms_of(most=3), DEVICES[:4]), "many")


def test_a_device_that_is_not_enrolled():
    terms = terms_of()
    reason = refused(Desk(), ask_of(terms, [*DEVICES[:2], "stranger"]), "unknown")
    assert "stranger, by roster 1" in reason


def test_a_device_that_is_revoked_from_the_moment_in_which_the_roster_is_read():
    desk, ask = Desk(), ask_of(terms_of(2))
    first = desk.ask(ask_of(terms_of(1)))
    assert first is not None and not first.reason
    desk.feed(RosterRead(roster_of(serial=2, revoked=(DEVICES[1],))))
    assert DEVICES[1] in refused(desk, ask, "revoked")


def test_k_minus_one_sybils_whose_keys_nobody_has_enrolled():
    """An aggregator that signs for devices itself, to be alone with its victim."""
    terms = terms_of()
    entries = [entry_of(DEVICES[0], terms), *(entry_of(name, terms, THIEF) for name in DEVICES[1:4])]
    reason = refused(Desk(), with_entries(ask_of(terms), *entries), "signature")
    assert DEVICES[1] in reason


def test_a_device_twice_and_devices_out_of_order():
    ask = ask_of(terms_of())
    first, second, third = ask.entries
    refused(Desk(), with_entries(ask, first, first, second), "order")
    refused(Desk(), with_entries(ask, second, first, third), "order")


def test_a_signature_of_other_terms_is_none_of_these():
    """A model of its own for one victim: its H is another one."""
    terms, victims = terms_of(), terms_of(model_sha256="cd" * 32)
    entries = [entry_of(DEVICES[0], victims), *ask_of(terms, DEVICES[1:3]).entries]
    refused(Desk(), with_entries(ask_of(terms), *entries), "signature")


def test_a_vector_that_the_device_has_not_signed():
    ask = ask_of(terms_of())
    changed = replace(ask.entries[1], packed_sha256=bytes(32))
    refused(Desk(), with_entries(ask, ask.entries[0], changed, ask.entries[2]), "signature")


def test_a_sealed_seed_that_the_aggregator_has_put_in_the_place_of_a_devices():
    """It knows the seed, would subtract its mask, and be left with that of the other device."""
    from helped import masked

    terms = terms_of()
    forged = masked(DEVICES[1], terms, THIEF, "forged").boxes
    ask = ask_of(terms, DEVICES[:2])
    refused(Desk(), with_entries(ask, ask.entries[0], replace(ask.entries[1], boxes=forged)), "signature")


def test_i34_the_seeds_for_all_helpers_are_signed_not_only_ours():
    from helped import masked

    north, south = keys_of(), keys_of(name="south")
    terms = terms_of(keys=[north, south])
    ask = ask_of(terms, DEVICES[:2])
    mine, other = ask.entries[1].boxes
    forged = masked(DEVICES[1], terms, THIEF, "forged").boxes
    for boxes in ((forged[0], other), (mine, forged[1]), (other, mine), (mine, mine)):
        refused(Desk(), with_entries(ask, ask.entries[0], replace(ask.entries[1], boxes=boxes)), "signature")


def signed_with(terms, device: str, boxes):
    """An entry that the device itself has signed, with these boxes."""
    from edgefl.masking.exchange import Entry
    from edgefl.masking.sealed import statement_of

    entry = Entry(device, b"v" * 32, b"", tuple(boxes))
    said = statement_of(terms.digest, entry.packed_sha256, entry.boxes_sha256)
    return replace(entry, signature=DEVICE_KEYS[device].sign(said))


def test_a_sealed_seed_that_our_key_does_not_open_or_that_is_replayed():
    """Of another helper's key; of another device; of other terms; of another epoch. The device itself has signed it."""
    from edgefl.masking import sealed

    terms, other = terms_of(), terms_of(seed=99)
    public, device, seed = keys_of().box_public, DEVICES[1], b"\7" * 32
    wrong = {
        "does not open": sealed.seal(seed, terms.digest, device, keys_of(name="south").box_public),
        "of another device": sealed.seal(seed, terms.digest, DEVICES[2], public),
        "for other terms": sealed.seal(seed, other.digest, device, public),
        "key does not open": sealed.seal(seed, terms.digest, device, keys_of(2).box_public),
    }
    for says, box in wrong.items():
        ask = ask_of(terms, DEVICES[:2])
        reason = refused(Desk(), with_entries(ask, ask.entries[0], signed_with(terms, device, [box])), "box")
        assert device in reason and says in reason
    ask = ask_of(terms, DEVICES[:2])
    good = signed_with(terms, device, [sealed.seal(seed, terms.digest, device, public)])
    answer = Desk().ask(with_entries(ask, ask.entries[0], good))
    assert answer is not None and not answer.reason, "else this test could not fail"


def test_too_many_or_too_few_sealed_seeds():
    north, south = keys_of(), keys_of(name="south")
    two = ask_of(terms_of(keys=[north, south]), DEVICES[:2])
    one = with_entries(two, *(signed_with(terms_of(keys=[north, south]), e.device, e.boxes[:1]) for e in two.entries))
    assert "1 sealed seeds, for 2 helpers" in refused(Desk(), one, "box")


@pytest.mark.parametrize(
    ("least", "changes", "says"),
    [
        ({"weight": 1}, {"weights": 2}, "may weigh 2"),
        ({"clip": 1.0}, {"clip": 1.01}, "clipped at 1.01"),
        ({"noise": 0.2}, {}, "noise is 0 of"),
        ({"noise": 0.22}, DP, "noise is 0.2121 of"),
        ({"separation": 5}, DP, "back after 4 rounds"),
        ({"epsilon": EPSILON * 0.99}, DP, "epsilon would be 32.3"),
        ({"delta": 0.9e-5}, DP, "at a delta of 1e-05"),
        ({"epsilon": 8.0}, {}, "a sum without noise has no epsilon"),
        ({"answer_mb": 0.02}, {"params": 20_000, "coordinates": 20_000, "norm2": 2**40}, "answer would have"),
        ({"memory_mb": 0.1}, {"params": 30_000, "coordinates": 30_000, "norm2": 2**40}, "vectors would take 0.1 MB"),
        (
            {"memory_mb": 1000.0},
            {
                "params": 2**20,
                "coordinates": 2**20,
                "norm2": 2**60,
                "bits": 24,
                "epsilon": 1.0,
                "delta": 1e-5,
                "noise": {"kind": "banded", "sigma": 30.0, "band": 256, "separation": 256, "rounds": 300},
            },
            "vectors would take 2151.7 MB",
        ),
    ],
)
def test_terms_weaker_than_the_owner_has_pinned(least, changes, says):
    assert says in refused(Desk(least=Least(devices=2, **least)), ask_of(terms_of(**changes), DEVICES[:2]), "weak")


@pytest.mark.parametrize(
    "least",
    [
        {"weight": 1, "clip": 1.0, "noise": 0.212, "separation": 4, "answer_mb": 0.001},
        {"epsilon": EPSILON, "delta": 1e-5},
    ],
)
def test_terms_as_strong_as_pinned_are_opened(least):
    answer = Desk(least=Least(devices=2, **least)).ask(ask_of(terms_of(**DP), DEVICES[:2]))
    assert answer is not None and not answer.reason


def test_terms_that_name_another_key_epoch_or_helper():
    desk = Desk()
    desk.renew(2)
    reason = refused(desk, ask_of(terms_of(keys=[keys_of(1)])), "helper")
    assert "of epoch 1; ours are of epoch 2" in reason
    assert "none of ours" in refused(Desk(), ask_of(terms_of(keys=[keys_of(name="south")])), "helper")
    mixed = keys_of(1)._replace(box_public=keys_of(2).box_public)
    refused(Desk(), ask_of(terms_of(keys=[mixed])), "helper")
    mixed = keys_of(1)._replace(signing=keys_of(2).signing)
    refused(Desk(), ask_of(terms_of(keys=[mixed])), "helper")


def test_another_federation():
    refused(Desk(), ask_of(terms_of(federation="lake")), "terms")


def test_terms_that_can_not_be():
    ask = ask_of(terms_of())
    for text in ("{}", ask.terms.replace('"bits":12', '"bits":9')):
        answer_to = replace(ask, terms=text)
        desk = Desk()
        raw = desk.feed(*parts_of(blob_of(answer_to), 1))
        assert raw is not None and b"terms: " in raw and desk.machine.refused == 1
        assert any("round 1 refused: terms" in line for line in desk.log)


def test_a_second_run_in_one_epoch_of_the_aggregators_certificate():
    desk = Desk()
    desk.ask(ask_of(terms_of(5)))
    other = "ff" * 8
    assert "edgefl keys epoch" in refused(desk, ask_of(terms_of(6, run=other)), "run")
    refused(desk, ask_of(terms_of(5, run=other)), "run")
    cert = certificate(serial=2, epoch=2)
    answer = desk.ask(ask_of(terms_of(1, run=other)), cert=cert, epoch=2)
    assert answer is not None and not answer.reason, "the next epoch has a run of its own, from round 1 on"
    refused(desk, ask_of(terms_of(6)), "certificate")
    refused(desk, ask_of(terms_of(6)), "run", cert=cert, epoch=2)


def test_a_certificate_that_was_replaced_or_is_out_of_its_dates():
    desk = Desk()
    desk.ask(ask_of(terms_of(1)), cert=certificate(serial=7))
    assert "number 7 has been seen" in refused(desk, ask_of(terms_of(2)), "certificate", cert=certificate(serial=6))
    desk.start()
    refused(desk, ask_of(terms_of(2)), "certificate", cert=certificate(serial=6))
    ended = certificate(serial=7, not_after=1000)
    answer = desk.ask(ask_of(terms_of(2)), cert=ended)
    assert answer is not None and not answer.reason, "without a clock, nothing ends"
    desk.feed(WallTime(2000.0))
    refused(desk, ask_of(terms_of(3)), "certificate", cert=ended)
    refused(desk, ask_of(terms_of(3)), "certificate", cert=certificate(serial=7, not_before=LAST - 1))


def test_old_rounds_whose_answers_are_gone():
    desk = Desk()
    desk.ask(ask_of(terms_of(9)))
    assert "round 9 was opened" in refused(desk, ask_of(terms_of(8)), "old")


def test_epsilon_never_falls():
    desk = Desk()
    desk.ask(ask_of(terms_of(1, **{**DP, "epsilon": 90.0})))
    assert "90 was spent" in refused(desk, ask_of(terms_of(2, **{**DP, "epsilon": 89.9})), "epsilon")
    refused(desk, ask_of(terms_of(2)), "epsilon")
    desk.renew(2)
    refused(desk, ask_of(terms_of(2, keys=[keys_of(2)])), "epsilon")
    cert = certificate(serial=2, epoch=2)
    other = terms_of(1, keys=[keys_of(2)], run="ff" * 8)
    refused(desk, ask_of(other), "epsilon", cert=cert, epoch=2)


@pytest.mark.parametrize("seen", [{"seen_round": 3}, {"seen_epsilon": 80.0}])
def test_a_helper_that_was_restored_from_a_backup_opens_nothing_before_a_new_epoch(seen):
    desk = Desk()
    desk.ask(ask_of(terms_of(1, **DP)))
    backup = desk.disk.copy()
    desk.ask(ask_of(terms_of(2, **{**DP, "epsilon": 70.0})))
    desk.ask(ask_of(terms_of(3, **{**DP, "epsilon": 80.0})))
    desk.disk = backup
    desk.start()
    ask = ask_of(terms_of(4, **{**DP, "epsilon": 90.0}))
    assert "later answers of ours" in refused(desk, replace(ask, **seen), "restored")
    desk.start()
    refused(desk, ask, "restored")  # also of an aggregator that tells of nothing now
    desk.renew(2)
    refused(desk, ask, "helper")
    answer = desk.ask(ask_of(terms_of(4, keys=[keys_of(2)], **{**DP, "epsilon": 90.0})))
    assert answer is not None and not answer.reason


def test_what_is_seen_and_known_stops_nothing():
    desk = Desk()
    desk.ask(ask_of(terms_of(1, **DP)))
    answer = desk.ask(ask_of(terms_of(2, **DP), seen_round=1, seen_epsilon=EPSILON))
    assert answer is not None and not answer.reason


def test_an_answer_that_can_not_be_read_any_more():
    desk, ask = Desk(), ask_of(terms_of())
    desk.ask(ask)
    desk.disk.answers.clear()
    refused(desk, ask, "lost")


def test_correlated_noise_of_several_groups():
    noise = {"kind": "banded", "sigma": 30.0, "band": 2, "separation": 4, "rounds": 10}
    assert "of one group" in refused(Desk(), ask_of(terms_of(**{**DP, "noise": noise, "groups": 2})), "noise")


def test_correlated_noise_of_a_round_that_nobody_has_accounted_for():
    noise = {"kind": "banded", "sigma": 30.0, "band": 2, "separation": 4, "rounds": 3}
    desk = Desk()
    for round in (1, 3):
        answer = desk.ask(ask_of(terms_of(round, **{**DP, "noise": noise})))
        assert answer is not None and not answer.reason
    assert "accounted for" in refused(desk, ask_of(terms_of(4, **{**DP, "noise": noise})), "noise")


# What anybody may have sent is dropped: no answer, and a line in the log


@pytest.mark.parametrize(
    "blob",
    [
        lambda ask: blob_of(ask, key=THIEF, cert=certificate()),
        lambda ask: blob_of(ask, key=THIEF, cert=certificate(THIEF, root=THIEF)),
        lambda ask: blob_of(ask, cert=certificate(federation="lake")),
        lambda ask: blob_of(ask, name="south"),
        lambda ask: blob_of(ask, epoch=2, cert=certificate(epoch=1)),
        lambda ask: blob_of(ask)[:-1],
        lambda ask: blob_of(ask) + b"x",
        lambda ask: b"\2" + blob_of(ask)[1:],
        lambda ask: blob_of(ask)[:40] + b"~" + blob_of(ask)[41:],
        lambda ask: bytes(500),
    ],
)
def test_an_ask_that_no_certified_aggregator_has_signed_for_us_is_dropped(blob):
    desk, ask = Desk(), ask_of(terms_of())
    assert desk.feed(*parts_of(blob(ask), 1)) is None
    assert len(desk.log) == 2, desk.log
    assert "dropped" in desk.log[1] or "update the older side" in desk.log[1]
    assert desk.disk.state.round == 0 and not desk.disk.answers
    answer = desk.ask(ask)
    assert answer is not None and not answer.reason


def test_parts_of_another_topic_or_of_no_ask_are_dropped():
    desk, parts = Desk(), parts_of(blob_of(ask_of(terms_of())), 1)
    for topic in (TOPICS.ask("south", 0), TOPICS.ask(NAME, 1), TOPICS.answer(NAME, 0), TOPICS.round, "x"):
        assert desk.feed(Received(topic, parts[0].payload)) is None
    assert desk.feed(Received(TOPICS.ask(NAME, 0), b"")) is None
    assert len(desk.log) == 7 and FEDERATION in TOPICS.base
    assert desk.feed(*parts) is not None


def test_an_ask_longer_than_all_enrolled_devices_need_is_not_assembled():
    desk = Desk(roster=roster_of(*DEVICES[:2]))
    bound = ask_bound(most_devices(2))
    assert most_devices(2) == 4 + SLACK
    for size, kept in ((bound, 1), (bound + 1, 0)):
        parts = parts_of(bytes(size), 1, part_bytes=60_000)
        desk.feed(parts[0])
        assembler = desk.machine._arriving._assembler
        assert assembler is not None and (assembler.buffered > 0) is bool(kept)
        desk.machine._arriving.clear()
    assert "where the plan allows" in desk.log[-1]


def test_parts_of_one_ask_are_held_at_a_time():
    desk = Desk()
    for round in range(1, 50):
        desk.feed(*parts_of(blob_of(ask_of(terms_of(round))), round)[:-1])
        assembler = desk.machine._arriving._assembler
        assert assembler is not None and assembler.buffered < 4000


def test_an_ask_that_comes_while_another_is_worked_on_is_dropped_and_answered_when_it_comes_again():
    from edgefl.helper.events import JobDone, Open

    desk = Desk()
    first, second = ask_of(terms_of(1)), ask_of(terms_of(2))
    actions = [a for part in parts_of(blob_of(first), 1) for a in desk.machine.step(part, 0.0)]
    (job,) = [action.job for action in actions if isinstance(action, Open)]
    for other in (first, second):
        assert desk.feed(*parts_of(blob_of(other), 1)) is None
    assert "comes again" in desk.log[-1]
    assert desk.feed(JobDone(job, job.run(desk.draw))) is not None
    assert desk.feed(JobDone(job, job.run(desk.draw))) is None, "it has been answered"
    answer = desk.ask(second)
    assert answer is not None and not answer.reason


def test_an_epoch_that_ends_while_its_set_is_worked_on():
    from edgefl.helper.events import JobDone, KeysRead, Open

    desk = Desk()
    actions = [a for part in parts_of(blob_of(ask_of(terms_of())), 1) for a in desk.machine.step(part, 0.0)]
    (job,) = [action.job for action in actions if isinstance(action, Open)]
    desk.feed(KeysRead(keys_of(2)))
    assert desk.feed(JobDone(job, job.run(desk.draw))) is None and not desk.disk.answers
    desk.keys = keys_of(2)
    next_ask = ask_of(terms_of(keys=[keys_of(2)]), DEVICES[2:6])
    actions = [a for part in parts_of(blob_of(next_ask), 1) for a in desk.machine.step(part, 0.0)]
    assert desk.feed(JobDone(job, job.run(desk.draw))) is None, "nor does it pass for the answer to the next"
    (own,) = [action.job for action in actions if isinstance(action, Open)]
    assert desk.feed(JobDone(own, own.run(desk.draw))) is not None and list(desk.disk.answers) == [1]


def test_every_reason_is_one_that_a_test_has_seen():
    """A reason that nothing gives would be a promise that nobody keeps."""
    from pathlib import Path

    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py")).split("def test_every")[0]
    assert [code for code in REASONS if f'"{code}"' not in text and f'"{code}: ' not in text] == []
