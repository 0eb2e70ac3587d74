"""Topics: identity comes from here, so nothing that could widen a filter or an ACL gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import TOPICS

from edgefl.errors import ProtocolError, UsageError
from edgefl.protocol.topics import ModelTopic, Topics, UpdateTopic, check_device_id, check_federation

BAD_IDS = ["", "#", "+", "a/b", "a#", "+a", "..", "a.b", "a\n", "a\0", "a b", "A", "é", "٣", "$SYS", "\x7f"]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_i18_ids_that_could_widen_a_filter_are_refused(bad):
    for check in (check_device_id, check_federation, Topics):
        with pytest.raises(UsageError, match="choose another"):
            check(bad)
    assert TOPICS.device_of(f"edgefl/v1/tiny/device/{bad}/status") in (None, "a")  # "a/b" belongs to a


def test_longest_ids():
    assert check_device_id("pi-4" + "0" * 19) == "pi-4" + "0" * 19
    with pytest.raises(UsageError):
        check_device_id("a" * 24)
    assert check_federation("f" * 48)
    with pytest.raises(UsageError):
        check_federation("f" * 49)


def test_topics_are_frozen():
    assert TOPICS.manifest == "edgefl/v1/tiny/manifest"
    assert TOPICS.round == "edgefl/v1/tiny/round"
    assert TOPICS.model(3, 4) == "edgefl/v1/tiny/model/3/4"
    assert TOPICS.status("a") == "edgefl/v1/tiny/device/a/status"
    assert TOPICS.inbox("a") == "edgefl/v1/tiny/device/a/inbox"
    assert TOPICS.update("a", 3, 4) == "edgefl/v1/tiny/device/a/update/3/4"
    assert (TOPICS.any_status, TOPICS.any_update) == (
        "edgefl/v1/tiny/device/+/status",
        "edgefl/v1/tiny/device/+/update/+/+",
    )


def test_seven_slashes_at_most():
    every = [TOPICS.manifest, TOPICS.round, TOPICS.model(1, 1), TOPICS.inbox("a"), TOPICS.update("a", 1, 1)]
    assert max(topic.count("/") for topic in [*every, TOPICS.any_status, TOPICS.any_update]) == 7


@given(st.integers(0, 2**32 - 1), st.integers(0, 65534))
def test_what_is_written_is_read(number, part):
    assert TOPICS.parse_update(TOPICS.update("pi-1", number, part)) == UpdateTopic("pi-1", number, part)
    assert TOPICS.model_part(TOPICS.model(number, part)) == ModelTopic(number, False, part)
    assert TOPICS.model_part(TOPICS.delta(number, part)) == ModelTopic(number, True, part)


BAD_NUMBERS = [
    "01/0",
    "1/00",
    "-1/0",
    "1/x",
    "1/٣",
    "1/1e3",
    "1/",
    "/1",
    "1/2/3",
    "1",
    "1 /2",
    "1/2\n",
    "9" * 11 + "/0",
]


@pytest.mark.parametrize("tail", BAD_NUMBERS)
def test_numbers_have_one_spelling(tail):
    with pytest.raises(ProtocolError):
        TOPICS.parse_update(f"edgefl/v1/tiny/device/a/update/{tail}")
    assert TOPICS.model_part(f"edgefl/v1/tiny/model/{tail}") is None


@pytest.mark.parametrize(
    "topic",
    [
        "", "/", "edgefl", "edgefl/v1/tiny", "edgefl/v1/tiny/device", "edgefl/v1/tiny/device/",
        "edgefl/v1/other/device/a",
        "edgefl/v2/tiny/device/a/update/1/1", "x/edgefl/v1/tiny/device/a/update/1/1", "edgefl/v1/tiny/device/a/inbox",
        "edgefl/v1/other/device/a/update/1/1", "edgefl/v1/tiny/model/1/1", "edgefl/v1/tiny/device/a/UPDATE/1/1",
    ],
)  # fmt: skip
def test_other_topics_are_no_updates(topic):
    with pytest.raises(ProtocolError):
        TOPICS.parse_update(topic)


@given(st.text(max_size=60), st.text(max_size=20))
def test_random_topics(head, tail):
    for topic in (head, f"{TOPICS.base}/{head}/{tail}", f"{TOPICS.base}/device/{head}/update/{tail}"):
        device, _ = TOPICS.device_of(topic), TOPICS.model_part(topic)
        assert device is None or check_device_id(device)
        try:
            where = TOPICS.parse_update(topic)
        except ProtocolError:
            continue
        assert TOPICS.update(where.device, where.round, where.part) == topic
