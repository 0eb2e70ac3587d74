"""Topics: identity comes from here, so nothing that could widen a filter or an ACL gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import TOPICS

from edgefl.errors import ProtocolError, UsageError
from edgefl.protocol.topics import (
    HelperTopic,
    ModelTopic,
    Topics,
    UpdateTopic,
    aggregator_client_id,
    check_device_id,
    check_federation,
    check_helper,
)

BAD_IDS = ["", "#", "+", "a/b", "a#", "+a", ".", "..", ".a", "-a", "_a", "a\n", "a\0", "a b", "é", "٣", "$SYS", "\x7f"]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_i18_ids_that_could_widen_a_filter_are_refused(bad):
    for check in (check_device_id, check_federation, Topics):
        if bad == "-a" and check is not check_device_id:
            continue  # a federation's name is no name of a file or an option
        with pytest.raises(UsageError, match="choose another"):
            check(bad)
    assert TOPICS.device_of(f"edgefl/2/tiny/d/{bad}/status") in (None, "a")  # "a/b" belongs to a


def test_longest_ids():
    for good in ("Pi_4.local-" + "0" * 53, "A", "7", "a..b"):
        assert check_device_id(good) == good
        assert TOPICS.parse_update(TOPICS.update(good, 1, 2)) == UpdateTopic(good, 1, 2)
    with pytest.raises(UsageError):
        check_device_id("a" * 65)
    assert check_federation("f" * 48)
    for bad in ("f" * 49, "F", "a.b"):
        with pytest.raises(UsageError):
            check_federation(bad)


@pytest.mark.parametrize("federation", ["pond", "f" * 19, "f" * 20, "f" * 48])
def test_an_aggregators_names_are_no_device_ids(federation):
    assert len(aggregator_client_id(federation)) <= 23
    for name in (aggregator_client_id(federation), "aggregator"):
        with pytest.raises(UsageError, match="is an aggregator's"):
            check_device_id(name)
    assert check_device_id("agg1") and check_device_id("aggregator-1")


@pytest.mark.parametrize("name", ["aggregator", "agg-f", "viewer-wall", "helper-two", "batch-0a1b", "+", ".a", ""])
def test_nobody_is_heard_as_a_device_under_a_name_that_no_device_may_have(name):
    topics = Topics("f")
    with pytest.raises(UsageError):
        check_device_id(name)
    assert topics.device_of(topics.status(name)) is None
    with pytest.raises(ProtocolError):
        topics.parse_update(topics.update(name, 1, 0))
    for near in ("aggregators", "aggregator.1", "agg", "viewers", "helper", "batches"):
        assert topics.device_of(topics.status(check_device_id(near))) == near
        assert topics.parse_update(topics.update(near, 1, 0)).device == near


def test_each_federations_aggregator_has_a_client_id_of_its_own():
    names = ["f" * 19, "f" * 20, "f" * 21, "f" * 19 + "g", "pond"]
    assert len({aggregator_client_id(name) for name in names}) == len(names)


@pytest.mark.parametrize("root", ["a", "edgefl/2", "acme/lab 7", "é/x", "r" * 64, "a/" + "b" * 62])
def test_a_root_has_one_or_two_levels(root):
    topics = Topics("f" * 48, root)
    assert topics.base == f"{root}/{'f' * 48}"
    longest = topics.update("d" * 64, 2**32 - 1, 65534)
    assert topics.parse_update(longest) == UpdateTopic("d" * 64, 2**32 - 1, 65534)
    assert longest.count("/") <= 7 and len(longest.encode()) < 256


@pytest.mark.parametrize(
    "root",
    ["", "/", "a/", "/a", "a/b/c", "a//b", "+", "a/#", "$share", "a/$x", "a\n", "a\0", "r" * 65, "a/" + "b" * 63],
)
def test_other_roots_are_refused(root):
    with pytest.raises(UsageError, match="root"):
        Topics("tiny", root)


def test_topics_of_another_root_are_foreign():
    mine, other = Topics("tiny"), Topics("tiny", "edgefl.2")
    with pytest.raises(ProtocolError):
        mine.parse_update(other.update("a", 1, 1))
    assert mine.device_of(other.status("a")) is mine.model_part(other.model(1, 1)) is None


def test_topics_are_frozen():
    assert TOPICS.manifest == "edgefl/2/tiny/manifest"
    assert TOPICS.round == "edgefl/2/tiny/round"
    assert TOPICS.model(3, 4) == "edgefl/2/tiny/model/3/4"
    assert TOPICS.status("a") == "edgefl/2/tiny/d/a/status"
    assert TOPICS.inbox("a") == "edgefl/2/tiny/d/a/inbox"
    assert TOPICS.update("a", 3, 4) == "edgefl/2/tiny/d/a/u/3/4"
    assert (TOPICS.any_status, TOPICS.any_update) == (
        "edgefl/2/tiny/d/+/status",
        "edgefl/2/tiny/d/+/u/+/+",
    )


def test_seven_slashes_at_most():
    every = [TOPICS.manifest, TOPICS.round, TOPICS.model(1, 1), TOPICS.inbox("a"), TOPICS.update("a", 1, 1)]
    assert max(topic.count("/") for topic in [*every, TOPICS.any_status, TOPICS.any_update]) == 7


@given(st.integers(0, 2**32 - 1), st.integers(0, 65534))
def test_what_is_written_is_read(number, part):
    assert TOPICS.parse_update(TOPICS.update("pi-1", number, part)) == UpdateTopic("pi-1", number, part)
    assert TOPICS.model_part(TOPICS.model(number, part)) == ModelTopic(number, part)


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
        TOPICS.parse_update(f"edgefl/2/tiny/d/a/u/{tail}")
    assert TOPICS.model_part(f"edgefl/2/tiny/model/{tail}") is None


@pytest.mark.parametrize(
    "topic",
    [
        "", "/", "edgefl", "edgefl/2/tiny", "edgefl/2/tiny/device", "edgefl/2/tiny/d/",
        "edgefl/2/other/d/a",
        "edgefl/3/tiny/d/a/u/1/1", "x/edgefl/2/tiny/d/a/u/1/1", "edgefl/2/tiny/d/a/inbox",
        "edgefl/2/other/d/a/u/1/1", "edgefl/2/tiny/model/1/1", "edgefl/2/tiny/d/a/UPDATE/1/1",
    ],
)  # fmt: skip
def test_other_topics_are_no_updates(topic):
    with pytest.raises(ProtocolError):
        TOPICS.parse_update(topic)


@given(st.text(max_size=60), st.text(max_size=20))
def test_random_topics(head, tail):
    for topic in (head, f"{TOPICS.base}/{head}/{tail}", f"{TOPICS.base}/d/{head}/u/{tail}"):
        device, _ = TOPICS.device_of(topic), TOPICS.model_part(topic)
        assert device is None or TOPICS.device_of(TOPICS.status(device)) == device
        try:
            where = TOPICS.parse_update(topic)
        except ProtocolError:
            continue
        assert TOPICS.update(where.device, where.round, where.part) == topic


def test_a_helpers_topics_name_it_and_the_part():
    name = "two-1"
    assert check_helper(name) == name
    ask, answer = TOPICS.ask(name, 7), TOPICS.answer(name, 0)
    assert (ask, answer) == ("edgefl/2/tiny/helper/helper-two-1/ask/7", "edgefl/2/tiny/helper/helper-two-1/answer/0")
    assert TOPICS.ask_part(ask) == HelperTopic(name, 7) and TOPICS.answer_part(answer) == HelperTopic(name, 0)
    assert TOPICS.ask_part(answer) is None and TOPICS.answer_part(ask) is None
    assert (TOPICS.any_ask(name), TOPICS.any_answer) == (
        "edgefl/2/tiny/helper/helper-two-1/ask/+", "edgefl/2/tiny/helper/+/answer/+",
    )  # fmt: skip


@pytest.mark.parametrize("bad", [*BAD_IDS, "Two", "two.1", "a_b", "a" * 42])
def test_nobody_else_is_a_helper(bad):
    with pytest.raises(UsageError, match="helper name"):
        check_helper(bad)
    assert TOPICS.answer_part(f"edgefl/2/tiny/helper/helper-{bad}/answer/0") is None
    assert TOPICS.answer_part("edgefl/2/tiny/helper/viewer-a/answer/0") is None
    for tail in ("answer", "answer/", "answer/x", "answer/01", "answer/0/0", "answers/0"):
        assert TOPICS.answer_part(f"edgefl/2/tiny/helper/helper-a/{tail}") is None
