"""What a helper opens: the exact sum of a set's masks, once, and the same for the same set."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest
from helped import (
    DEVICE_KEYS,
    DEVICES,
    Desk,
    ask_of,
    keys_of,
    opened_sum,
    q_of,
    terms_of,
)

from edgefl.helper.least import Least
from edgefl.masking import sealed
from edgefl.masking.exchange import Entry
from edgefl.masking.sealed import statement_of

NOISE = {"kind": "independent", "sigma": 30.0}


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_sum_of_the_devices_integers_comes_out_exactly(count):
    terms, devices = terms_of(), DEVICES[:count]
    answer = Desk().ask(ask_of(terms, devices))
    assert answer is not None and answer.reason == "" and (answer.round, answer.epsilon) == (1, 0.0)
    assert answer.groups[0] is not None and answer.groups[0][0] == count
    expected = sum(q_of(device, terms).astype(np.int64) for device in devices)
    np.testing.assert_array_equal(opened_sum(answer, devices, terms), expected)


def test_two_helpers_each_add_up_their_own_masks():
    north, south = keys_of(), keys_of(name="south")
    terms = terms_of(keys=[north, south])
    ask = ask_of(terms)
    answers = Desk().ask(ask), None
    desk = Desk(keys=south)
    from helped import blob_of, parts_of

    from edgefl.masking.exchange import read_answer

    raw = desk.feed(*parts_of(blob_of(ask, name="south"), 1, 0, "south"))
    assert raw is not None and answers[0] is not None
    second = read_answer(raw, "south", south.signing.public, terms)
    assert second.set_digest == answers[0].set_digest, "one set, the same for all"
    from edgefl.masking import ring

    total = ring.of(opened_sum(answers[0], DEVICES[:3], terms), terms.bits)
    assert second.groups[0] is not None
    total -= ring.unpack(second.groups[0][1], terms.length, terms.bits)
    expected = sum(q_of(device, terms).astype(np.int64) for device in DEVICES[:3])
    np.testing.assert_array_equal(ring.centre(total, terms.bits), expected)


def test_groups_are_opened_one_by_one_and_small_ones_not():
    terms = terms_of(groups=2, most=8)
    groups = [[device for device in DEVICES if terms.group_of(device) == group] for group in (0, 1)]
    assert min(map(len, groups)) >= 2, "both are large enough"
    answer = Desk().ask(ask_of(terms, DEVICES))
    assert answer is not None
    for place, devices in enumerate(groups):
        expected = sum(q_of(device, terms).astype(np.int64) for device in devices)
        np.testing.assert_array_equal(opened_sum(answer, devices, terms, place), expected)
    alone = Desk().ask(ask_of(terms, [*groups[0], groups[1][0]]))
    assert alone is not None and alone.groups[0] is not None and alone.groups[1] is None


def test_a_device_that_seals_nonsense_takes_its_own_group_out_and_no_other():
    """Nobody but the helper can see that; with one group, there is nothing left to open."""
    terms = terms_of(groups=2, most=8)
    hostile, nonsense = DEVICES[0], sealed.seal(b"\7" * 32, bytes(32), DEVICES[0], keys_of().box_public)
    ask = ask_of(terms, DEVICES)
    said = statement_of(terms.digest, b"v" * 32, Entry(hostile, b"", b"", (nonsense,)).boxes_sha256)
    broken = Entry(hostile, b"v" * 32, DEVICE_KEYS[hostile].sign(said), (nonsense,))
    desk = Desk()
    answer = desk.ask(msgspec.structs.replace(ask, entries=(broken, *ask.entries[1:])))
    assert answer is not None and not answer.reason
    own = terms.group_of(hostile)
    assert answer.groups[own] is None
    left = [device for device in DEVICES if terms.group_of(device) != own]
    expected = sum(q_of(device, terms).astype(np.int64) for device in left)
    np.testing.assert_array_equal(opened_sum(answer, left, terms, 1 - own), expected)
    assert answer.unopened == (hostile,), "the aggregator can bar it"
    assert any(f"{hostile}: sealed seed for other terms" in line for line in desk.log), "its owner can look for it"
    second = desk.ask(ask)
    assert second is not None and second.reason.startswith("second: "), "without it, it is another set"


def test_noise_is_in_all_coordinates_but_the_checks():
    terms = terms_of(noise=NOISE, bits=16)
    desk = Desk()
    answer = desk.ask(ask_of(terms))
    assert answer is not None and answer.epsilon == terms.epsilon > 0
    plain = sum(q_of(device, terms).astype(np.int64) for device in DEVICES[:3])
    drawn = np.random.default_rng(1).integers(-9, 10, terms.length)
    drawn[terms.at_checks] = 0
    np.testing.assert_array_equal(plain - opened_sum(answer, DEVICES[:3], terms), drawn)


def test_the_same_set_again_has_the_same_answer_byte_for_byte_with_its_noise():
    terms = terms_of(noise=NOISE, bits=16)
    desk = Desk()
    first = desk.ask(ask_of(terms))
    for attempt in (2, 3):
        desk.start()  # another process, on the same disk
        assert desk.ask(ask_of(terms, attempt=attempt)) == first
    assert len(set(desk.sent)) == 1 and len(desk.sent) == 3 and next(desk.draws) == 2, "noise was drawn once"


def test_a_kept_answer_is_given_again_though_a_device_was_revoked_since():
    from helped import roster_of

    from edgefl.helper.events import RosterRead

    desk, ask = Desk(), ask_of(terms_of())
    first = desk.ask(ask)
    desk.feed(RosterRead(roster_of(serial=2, revoked=(DEVICES[0],))))
    assert desk.ask(ask) == first


def test_answers_of_the_last_few_rounds_are_kept_and_no_older_ones():
    desk = Desk()
    asks = [ask_of(terms_of(round)) for round in range(1, 8)]
    answers = [desk.ask(ask) for ask in asks]
    assert all(answer is not None and not answer.reason for answer in answers)
    assert sorted(desk.disk.answers) == [4, 5, 6, 7]
    for round, (ask, answer) in enumerate(zip(asks, answers, strict=True), 1):
        again = desk.ask(ask)
        assert again is not None
        if round >= 4:
            assert again == answer
        else:
            assert again.reason.startswith("old: ")


def test_rounds_may_be_left_out():
    desk = Desk()
    for round in (3, 9, 200):
        answer = desk.ask(ask_of(terms_of(round)))
        assert answer is not None and not answer.reason and answer.round == round


def test_an_answer_goes_out_in_parts_that_the_broker_takes():
    from edgefl.machine import Connected, Publish

    terms = terms_of(params=4000, coordinates=4000, norm2=2**40)
    desk = Desk(least=Least(devices=2))
    desk.machine.step(Connected(2, 3000), 0.0)
    sizes = []
    original = desk._carry_out

    def watch(actions):
        done = original(actions)
        sizes.extend(len(one.payload) for one in done if isinstance(one, Publish))
        return done

    desk._carry_out = watch
    answer = desk.ask(ask_of(terms))
    assert answer is not None and not answer.reason
    assert max(sizes) <= 3000 - 1024 and sum(sizes) > terms.packed_bytes


BANDED = {"kind": "banded", "sigma": 30.0, "band": 3, "separation": 4, "rounds": 20}


def noise_of(desk: Desk, round: int, devices=DEVICES[:3], **changes) -> np.ndarray:
    """(L,) what the helper has added in this round."""
    terms = terms_of(round, noise=BANDED, bits=16, **changes)
    answer = desk.ask(ask_of(terms, devices))
    assert answer is not None and not answer.reason, answer
    plain = sum(q_of(device, terms).astype(np.int64) for device in devices)
    return plain - opened_sum(answer, devices, terms)


def test_correlated_noise_takes_away_what_rounds_before_have_added():
    """Over many rounds and coordinates: by the formula, not by what the code says; over a death in between, too."""
    rounds, long = 6, {"params": 4000, "coordinates": 4000}
    desk, drawn = Desk(), []
    for round in range(1, rounds + 1):
        drawn.append(noise_of(desk, round, **long)[:4000].astype(float))
        desk.start()
    white = [drawn[0]]
    for t in range(1, rounds):  # w_t = z_t - c_1 w_(t-1) - c_2 w_(t-2), with c_1 = 1/2 and c_2 = 3/8
        white.append(drawn[t] + 0.5 * drawn[t - 1] + (0.375 * drawn[t - 2] if t > 1 else 0))
    for z in white:
        assert 28.5 < z.std() < 31.5
    for a, b in itertools.pairwise(white):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.06, "what is left is white"
    assert np.corrcoef(drawn[0], drawn[1])[0, 1] < -0.3, "and what is added is not"


def test_a_set_that_was_not_opened_leaves_no_mark_on_the_noise():
    """It dies after the noise was drawn, and before it is durable."""
    from helped import Killed

    desk = Desk()
    noise_of(desk, 1)
    before = desk.disk.memory
    desk.die_at = 3  # the log, the job, and then the write
    terms = terms_of(2, noise=BANDED, bits=16)
    with pytest.raises(Killed):
        desk.ask(ask_of(terms, DEVICES[2:5]))
    assert desk.disk.memory == before and desk.disk.state.round == 1
    desk.die_at = None
    desk.start()
    noise_of(desk, 2)
    assert desk.disk.memory != before


def test_another_run_has_noise_of_its_own():
    from helped import certificate

    desk = Desk()
    noise_of(desk, 9)
    terms = terms_of(1, run="ff" * 8, noise=BANDED, bits=16, epsilon=500.0)
    answer = desk.ask(ask_of(terms), cert=certificate(serial=2, epoch=2), epoch=2)
    assert answer is not None and not answer.reason
