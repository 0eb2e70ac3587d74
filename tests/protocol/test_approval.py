"""What an owner approves: the id covers the graph, its loss, the frozen set and the training mode, and nothing else."""

from __future__ import annotations

import re

import msgspec
import pytest
from conftest import ROOT
from machines import MANIFEST, make_manifest

from edgefl import load
from edgefl.core.plan import Head, Input, Node, Param, Plan
from edgefl.onnx import zoo
from edgefl.protocol.approval import approved_by, describe, id_of, plan_id, room
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.messages import decode, encode
from edgefl.strategies.local import LocalRule


def other(**fields) -> Manifest:
    return msgspec.structs.replace(MANIFEST, **fields)


def test_id_is_of_64_hex_digits_and_the_same_on_both_sides_of_the_wire():
    assert re.fullmatch("[0-9a-f]{64}", plan_id(MANIFEST))
    assert plan_id(decode(Manifest, encode(MANIFEST), 60_000)) == plan_id(MANIFEST)
    assert id_of(MANIFEST.plan) == plan_id(MANIFEST)


def test_id_changes_with_all_that_changes_what_an_update_can_reveal():
    plan = MANIFEST.plan
    frozen, _ = plan.freeze([plan.params[0].name])
    ids = [
        plan_id(m)
        for m in (
            MANIFEST,
            other(local_mode="gradient"),
            other(plan=msgspec.structs.replace(plan, loss="focal" if plan.loss != "focal" else "hinge")),
            other(plan=frozen),
            other(personal=[0]),
            other(personal=[1]),
            other(plan=msgspec.structs.replace(plan, nodes=plan.nodes[:-1] or plan.nodes * 2)),
        )
    ]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "fields",
    [
        {"run": "f" * 16},
        {"codec": "ecq"},
        {"holdout": 0.5},
        {"train": msgspec.structs.replace(MANIFEST.train, lr=0.5, epochs=7)},
    ],
)
def test_id_stays_for_what_the_owner_bounds_otherwise(fields):
    assert plan_id(other(**fields)) == plan_id(MANIFEST)


def test_description_tells_layers_loss_and_mode_in_words():
    text = describe(MANIFEST)
    for word in [node.op for node in MANIFEST.plan.nodes] + [MANIFEST.plan.loss, f"{MANIFEST.plan.num_params:,}"]:
        assert word in text
    assert "one gradient over all examples" in describe(other(local_mode="gradient"))


def test_the_plan_without_personal_params_approves_each_of_its_masks_and_no_mask_approves_another():
    whole, head, body = MANIFEST, other(personal=[1]), other(personal=[0])
    assert plan_id(whole) in approved_by(head) & approved_by(body) and approved_by(whole) == {plan_id(whole)}
    assert plan_id(head) not in approved_by(whole) | approved_by(body)
    assert plan_id(head) == id_of(head.plan, "sgd", [1]) in approved_by(head)


def test_description_says_which_params_stay_and_what_the_others_have_room_for():
    plan = load(zoo.mlp([64, 32, 10])).plan
    names = [param.name for param in plan.params]
    text = describe(other(plan=plan, personal=[2, 3]))
    assert f"keeps       330 of them on this device, and sends none of these: {names[2]}, {names[3]}\n" in text
    assert "changes in the other params, with room for 32 whole examples" in text, "2,080 / 64"
    assert "keeps" not in describe(other(plan=plan)) and "room for 37" in describe(other(plan=plan))
    many = load(zoo.mlp([4] * 9)).plan
    assert " and 3 more\n" in describe(other(plan=many, personal=list(range(11))))
    assert "by the rule ditto (these may" in describe(other(local=LocalRule("ditto")))


def test_description_has_no_control_characters_from_the_wire():
    node = msgspec.structs.replace(MANIFEST.plan.nodes[0], op="dense\x1b[2J\n")
    plan = msgspec.structs.replace(MANIFEST.plan, nodes=[node, *MANIFEST.plan.nodes[1:]])
    assert all(line.isprintable() for line in describe(other(plan=plan)).splitlines())
    assert len(describe(other(plan=plan)).splitlines()) == len(describe(MANIFEST).splitlines())


def test_the_page_shows_what_an_owner_sees():
    manifest = msgspec.structs.replace(make_manifest(plan=load(zoo.mlp([64, 32, 10])).plan), federation="my-fleet")
    page = (ROOT / "docs/policy.md").read_text()
    assert "\n".join(f"    {line}" for line in describe(manifest).splitlines()) in page


def test_room_is_what_the_trained_params_could_hold():
    nodes = [Node("flatten", [0]), Node("dense", [1], [0, 1]), Node("relu", [2]), Node("dense", [3], [2, 3])]
    params = [Param("w", [64, 1000]), Param("b", [1000]), Param("v", [1000, 10]), Param("c", [10])]
    plan = Plan([8, 8, 1], nodes, params, "cross_entropy", 4, 4)
    assert room(plan) == plan.num_params // 64 == 1172
    assert "room for 1,172 whole examples" in describe(other(plan=plan))
    assert room(plan.freeze(["w"])[0]) == (plan.num_params - 64_000) // 64


def test_describing_survives_a_plan_that_the_core_will_refuse():
    plan = Plan([4], [Node("dense", [0], [9])], [], "mse", 1, 1)
    assert "dense" in describe(other(plan=plan))


def test_several_inputs_and_losses_are_told_in_few_words():
    inputs = [Input("p" * 256, [4], "float32"), Input("words\nparams  1", [2], "int64")]
    heads = [Head("kind", "cross_entropy", 1, 1.0, [3]), Head("h" * 256, "mse", 1, 0.5, [3])]
    nodes, params = [Node("dense", [0], [0])], [Param("w", [6, 3])]
    plan = Plan([6], nodes, params, "cross_entropy", 1, 1, inputs=inputs, losses=heads)
    first = describe(other(plan=plan)).splitlines()[1]
    assert f"{'p' * 40}: 4 numbers, words?params  1: 2 tokens an example" in first
    assert "kind: " in first and f"{'h' * 40}: " in first and "(loss mse times 0.5)" in first
    assert plan.loss_text == f"kind=cross_entropy, {'h' * 256}=mse:0.5"
