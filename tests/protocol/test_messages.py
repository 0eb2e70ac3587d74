"""Control messages: their JSON is frozen, and what is unknown, too long or out of bounds is refused."""

from __future__ import annotations

import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import MANIFEST, make_manifest, make_round

from edgefl.coordinator.devices.cohort import LIST_BYTES
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ProtocolError
from edgefl.protocol.features import unknown_features
from edgefl.protocol.inbox import Inbox, Missing, Receipt
from edgefl.protocol.manifest import Manifest, manifest_id
from edgefl.protocol.messages import CONTROL_LIMIT, RETAINED_LIMIT, Status, decode, encode
from edgefl.protocol.round import MAX_FRAMES, Draw, Frame, Round
from edgefl.protocol.update_header import PersonalScores, UpdateHeader
from edgefl.settings import TrainSettings

SMALL = Plan([2], [Node("dense", [0], [0])], [Param("w", [2, 2])], "cross_entropy", 1, 1)
GOLDEN = [
    (
        Manifest("pond", "0123456789abcdef", SMALL, TrainSettings(), "ecq", {"max_bytes": 9}, 1024),
        b'{"federation":"pond","run":"0123456789abcdef","plan":{"input_shape":[2],"nodes":[["dense",[0],[0],[],[]]],'
        b'"params":[["w",[2,2],true]],"loss":"cross_entropy","loss_input":1,"output":1,"input_dtype":"float32",'
        b'"version":1},"train":{"epochs":1,"batch_size":10,"lr":0.1,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,'
        b'"prox_mu":0.0,"clip_norm":null,"max_steps":null,"seed":0,"lr_decay":1.0},"codec":"ecq","codec_options":{"max_bytes":9},'
        b'"part_bytes":1024}',
    ),
    (
        Round("0123456789abcdef", "open", 3, 1, 2, "e" * 64, [Frame(2, "e" * 16, 16, 0)], 60.0, ["a", "b"]),
        b'{"manifest":"0123456789abcdef","state":"open","round":3,"attempt":1,"version":2,"model_sha256":"'
        + b"e" * 64
        + b'","frames":[[2,"'
        + b"e" * 16
        + b'",16,0,0,0]],"deadline_s":60.0,"cohort":["a","b"]}',
    ),
    (
        Round("0123456789abcdef", "open", 3, 1, 2, "e" * 64, [Frame(2, "e" * 16, 16, 0)], 60.0, Draw(7, 0.25), 2),
        b'{"manifest":"0123456789abcdef","state":"open","round":3,"attempt":1,"version":2,"model_sha256":"'
        + b"e" * 64
        + b'","frames":[[2,"'
        + b"e" * 16
        + b'",16,0,0,0]],"deadline_s":60.0,"cohort":{"seed":7,"probability":0.25},"late_rounds":2}',
    ),
    (Status("ready", 4), b'{"state":"ready","boot":4}'),
    (Status("paused", 4, 50, "hot"), b'{"state":"paused","boot":4,"num_examples":50,"reason":"hot"}'),
    (Status("trouble", 4, 0, "full", "disk"), b'{"state":"trouble","boot":4,"reason":"full","code":"disk"}'),
    (
        Status("ready", 4, agent="0.2.0", celsius=47),
        b'{"state":"ready","boot":4,"agent":"0.2.0","celsius":47}',
    ),
    (Receipt(3, 1, "counted"), b'{"kind":"receipt","round":3,"attempt":1,"outcome":"counted"}'),
    (Missing(3, [0, 7]), b'{"kind":"missing","round":3,"parts":[0,7]}'),
]


def kind_of(message):
    return Inbox if isinstance(message, Receipt | Missing) else type(message)


@pytest.mark.parametrize(("message", "golden"), GOLDEN, ids=lambda v: type(v).__name__)
def test_json_is_frozen(message, golden):
    assert encode(message) == golden
    assert decode(kind_of(message), golden) == message


@pytest.mark.parametrize(("message", "golden"), GOLDEN, ids=lambda v: type(v).__name__)
def test_unknown_fields_are_ignored_and_truncations_refused(message, golden):
    assert decode(kind_of(message), golden[:-1] + b',"more":{"of":[1]}}') == message
    for cut in range(len(golden)):
        with pytest.raises(ProtocolError):
            decode(kind_of(message), golden[:cut])


def test_a_plan_is_strict():
    raw = encode(MANIFEST).replace(b'"plan":{', b'"plan":{"more":1,')
    with pytest.raises(ProtocolError, match="malformed"):
        decode(Manifest, raw)


def test_a_manifests_id_hashes_the_bytes_as_they_came():
    manifest = decode(Manifest, encode(MANIFEST))
    assert manifest.id == MANIFEST.id == manifest_id(encode(MANIFEST))
    assert make_manifest(run="1" * 16).id != MANIFEST.id
    longer = encode(MANIFEST)[:-1] + b',"more":1}'
    newer = decode(Manifest, longer)
    assert newer == MANIFEST
    assert newer.raw == longer and newer.id == manifest_id(longer) != MANIFEST.id
    assert msgspec.structs.replace(newer, span=2).id == make_manifest(span=2).id


def test_requirements_are_read_alone():
    assert unknown_features(encode(MANIFEST)) == unknown_features(encode(make_round())) == []
    assert unknown_features(b'{"requires":["masks","a.b-c_1"],"plan":7}') == ["masks", "a.b-c_1"]
    for bad in (b"{", b"[]", b'{"requires":"masks"}', b'{"requires":["A"]}', b'{"requires":[""]}', b'{"requires":[1]}'):
        with pytest.raises(ProtocolError):
            unknown_features(bad)


@pytest.mark.parametrize("state", ["sleeping", "x", ""])
def test_a_device_in_an_unknown_state_is_not_present(state):
    status = decode(Status, encode(Status(state, 1)))
    assert status.state == state and not status.present


ROUND = msgspec.to_builtins(make_round())
BAD_ROUNDS = [
    {"manifest": "0" * 15}, {"manifest": "0" * 16 + "\n"}, {"manifest": "G" * 16}, {"state": "shut"}, {"round": -1},
    {"round": 2**32}, {"round": 1.5}, {"round": True}, {"attempt": 0}, {"frames": []},
    {"frames": [[2, "e" * 15, 16, 0]]}, {"model_sha256": "e" * 63},
    {"model_sha256": "e" * 64 + "\n"}, {"deadline_s": 0}, {"deadline_s": 1e10}, {"cohort": "a"}, {"cohort": [1]},
    {"cohort": {"seed": 1}}, {"cohort": {"seed": 1, "probability": 0}},
    {"cohort": {"seed": 1, "probability": 1.01}}, {"cohort": {"seed": -1, "probability": 1}}, {"late_rounds": 101},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD_ROUNDS, ids=str)
def test_round_bounds(change):
    assert decode(Round, msgspec.json.encode(ROUND), RETAINED_LIMIT)
    with pytest.raises(ProtocolError, match="malformed"):
        decode(Round, msgspec.json.encode(ROUND | change), RETAINED_LIMIT)


def test_the_largest_cohort_fits_in_a_retained_message():
    """Whatever else there is in the round's message."""
    frames = [Frame(2**32 - 1, "e" * 16, 2**32 - 1, 2**32 - 1, 65535, 65535)] * MAX_FRAMES
    limits = {
        "deadline_s": 1 / 3 * 1e9,
        "spread_s": 1 / 3 * 1e9,
        "back_s": 1 / 3 * 1e9,
        "unasked": 1,
        "late_rounds": 100,
    }
    cohort = [f"{i:064d}" for i in range(LIST_BYTES // 67)]
    raw = encode(make_round(2**32 - 1, 2**32 - 1, 2**32 - 1, cohort=cohort, frames=frames, mode="evaluate", **limits))
    assert decode(Round, raw, RETAINED_LIMIT).asks(cohort[-1])


def test_who_is_asked():
    assert make_round().asks("a")
    assert make_round(cohort=["a"]).asks("a")
    assert not make_round(cohort=["b"]).asks("a")
    assert not make_round(cohort=[]).asks("a")
    assert not make_round(state="done").asks("a")


BAD_MANIFESTS = [
    ("federation", "Pond"), ("federation", "a/b"), ("federation", "pond\n"), ("run", "0" * 17), ("part_bytes", 255),
    ("part_bytes", 2**20 + 1), ("codec", "c" * 33), ("codec_options", {"a": [1]}), ("codec_options", {"a": None}),
    ("train", {"lr": 0}), ("train", {"momentum": 1}), ("train", {"epochs": 0}), ("local_mode", "free"),
    ("plan", {}), ("plan", msgspec.to_builtins(SMALL) | {"version": 2}),
    ("plan", msgspec.to_builtins(SMALL) | {"input_shape": [2**24 + 1]}),
    ("plan", msgspec.to_builtins(SMALL) | {"loss": "magic"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_MANIFESTS)
def test_manifest_bounds(name, value):
    with pytest.raises(ProtocolError, match="malformed"):
        decode(Manifest, msgspec.json.encode(msgspec.to_builtins(GOLDEN[0][0]) | {name: value}))


@pytest.mark.parametrize("state", ["ready", "training", "paused", "trouble", "disconnected", "lost"])
def test_presence(state):
    assert Status(state, 0).present == (state in ("ready", "training"))


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (Status, b'{"state":"' + b"x" * 33 + b'","boot":1}'),
        (Status, b'{"state":"ready","boot":-1}'),
        (Status, b'{"state":"ready","boot":9007199254740993}'),
        (Status, b'{"state":"paused","boot":1,"reason":"' + b"x" * 501 + b'"}'),
        (Inbox, b'{"kind":"receipt","round":1,"attempt":1,"outcome":"maybe"}'),
        (Inbox, b'{"kind":"gift","round":1}'),
        (Inbox, b'{"kind":"missing","round":1,"parts":[65535]}'),
        (Inbox, b'{"kind":"missing","round":1,"parts":[' + b",".join([b"1"] * 513) + b"]}"),
    ],
)
def test_status_and_inbox_bounds(kind, raw):
    with pytest.raises(ProtocolError, match="malformed"):
        decode(kind, raw)


def test_longest_message_is_read_and_a_longer_one_refused():
    raw = encode(Status("ready", 1))
    assert decode(Status, raw.ljust(CONTROL_LIMIT))
    with pytest.raises(ProtocolError, match="at most 8192"):
        decode(Status, raw.ljust(CONTROL_LIMIT + 1))


@pytest.mark.parametrize("raw", [b"[" * 8000, b'{"a":' * 1600, b'{"reason":' + b"[" * 8000, b"9" * 8000, b"\xff" * 9])
@pytest.mark.parametrize("kind", [Manifest, Round, Status, Inbox])
def test_nesting_bombs_endless_numbers_and_no_utf8(kind, raw):
    with pytest.raises(ProtocolError):
        decode(kind, raw)


def test_what_is_quoted_from_a_payload_stays_on_one_line():
    with pytest.raises(ProtocolError) as caught:
        decode(Inbox, rb'{"kind":"receipt","round":1,"attempt":1,"outcome":"a\nb\u001b"}')
    assert str(caught.value).isprintable()


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_random_bytes_are_refused(raw):
    for kind in (Manifest, Round, Status, Inbox):
        with pytest.raises(ProtocolError):
            decode(kind, raw)


HEADER = UpdateHeader(50, 5, 0.25, 1234, 2**40)
EVALUATED = UpdateHeader(50, 5, 0.25, 1234, 2**40, 12, 0.5, 0.75)
ONLY_EVALUATED = UpdateHeader(0, 0, 0.0, 0, 2**40, 12, 0.5)
NONE = "0000c07f"  # NaN


def test_update_header_is_frozen():
    begin = "02002800" + "32000000050000000000803ed2040000"
    golden = bytes.fromhex(begin + "00000000" + "0000000000010000" + NONE + NONE)
    assert HEADER.to_bytes() == golden
    assert UpdateHeader.from_bytes(golden + b"payload") == HEADER
    golden = bytes.fromhex(begin + "0c000000" + "0000000000010000" + "0000003f" + "0000403f")
    assert EVALUATED.to_bytes() == golden
    assert UpdateHeader.from_bytes(golden + b"payload") == EVALUATED


def test_header_of_a_round_that_only_evaluates_is_all_there_is():
    raw = ONLY_EVALUATED.to_bytes()
    assert UpdateHeader.from_bytes(raw) == ONLY_EVALUATED
    assert (HEADER.mode, ONLY_EVALUATED.mode) == ("train", "evaluate")
    for bad in (raw + b"payload", HEADER.to_bytes()):
        with pytest.raises(ProtocolError, match="rejected"):
            UpdateHeader.from_bytes(bad)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [
        (0, "<B", 1), (1, "<B", 2), (2, "<H", 39), (2, "<H", 48), (2, "<H", 2000),
        (4, "<I", 0), (4, "<I", 2**24 + 1), (12, "<f", math.nan),
        (12, "<f", math.inf), (20, "<I", 0), (20, "<I", 2**24 + 1), (32, "<f", math.nan), (32, "<f", -math.inf),
        (36, "<f", 1.001), (36, "<f", -0.001), (36, "<f", math.inf),
    ],
)  # fmt: skip
def test_i16_absurd_header_is_refused(offset, layout, value):
    raw = bytearray(EVALUATED.to_bytes() + b"payload")
    struct.pack_into(layout, raw, offset, value)
    with pytest.raises(ProtocolError):
        UpdateHeader.from_bytes(bytes(raw))


def test_a_header_of_the_layout_before_names_the_way_out():
    old = struct.pack("<IIfIQQ", 50, 5, 0.25, 1234, 2**40, 0)
    with pytest.raises(ProtocolError, match="update the older side"):
        UpdateHeader.from_bytes(old + b"some payload")


def test_a_longer_header_is_accepted_and_its_end_ignored():
    raw = bytearray(EVALUATED.to_bytes() + b"12345678")
    struct.pack_into("<H", raw, 2, 48)
    header = UpdateHeader.from_bytes(bytes(raw) + b"payload")
    assert header == msgspec.structs.replace(EVALUATED, size=48)
    with pytest.raises(ProtocolError, match="rejected"):
        UpdateHeader.from_bytes(bytes(raw))  # no delta
    alone = bytearray(ONLY_EVALUATED.to_bytes() + b"12345678")
    struct.pack_into("<H", alone, 2, 48)
    assert UpdateHeader.from_bytes(bytes(alone)).mode == "evaluate" and UpdateHeader.mode_of(alone) == "evaluate"


def test_scores_of_a_personal_model_are_at_the_end_of_the_header():
    header = UpdateHeader(50, 5, 0.25, 1234, 2**40, 12, 0.5, 0.75, personal=PersonalScores(True, 0.25, 0.875))
    raw = header.to_bytes()
    assert raw.hex() == EVALUATED.to_bytes().hex().replace("02002800", "02023400", 1) + "01000000" + "0000803e0000603f"
    assert UpdateHeader.from_bytes(raw + b"payload") == msgspec.structs.replace(header, size=52)
    assert UpdateHeader.mode_of(raw + b"payload") == "train"
    alone = msgspec.structs.replace(header, num_examples=0, personal=PersonalScores(False, 0.25))
    assert UpdateHeader.from_bytes(alone.to_bytes()).personal == PersonalScores(False, 0.25)
    assert UpdateHeader.mode_of(alone.to_bytes()) == "evaluate"


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [(2, "<H", 51), (40, "<B", 2), (44, "<f", math.nan), (44, "<f", math.inf), (48, "<f", 1.5), (20, "<I", 0)],
)
def test_i16_absurd_personal_scores_are_refused(offset, layout, value):
    header = UpdateHeader(50, 5, 0.25, 1234, 2**40, 12, 0.5, 0.75, personal=PersonalScores(True, 0.25, 0.875))
    raw = bytearray(header.to_bytes() + b"payload")
    struct.pack_into(layout, raw, offset, value)
    with pytest.raises(ProtocolError):
        UpdateHeader.from_bytes(bytes(raw))


def test_short_header_is_refused():
    for cut in range(UpdateHeader.SIZE):
        with pytest.raises(ProtocolError, match="no header"):
            UpdateHeader.from_bytes(HEADER.to_bytes()[:cut])


def test_a_manifest_makes_its_codecs_once_and_a_changed_one_makes_its_own():
    manifest = make_manifest(codec="ecq", downlink="ecq")
    assert manifest.update_codec is manifest.update_codec and manifest.model_codecs is manifest.model_codecs
    assert list(manifest.update_codec.tensors) == list(manifest.plan.params)
    changed = msgspec.structs.replace(manifest, codec="raw32", downlink="raw32")
    assert changed.update_codec.name == "raw32" and changed.model_codecs[1] is None
    assert manifest == make_manifest(codec="ecq", downlink="ecq") and b"update_codec" not in encode(manifest)
