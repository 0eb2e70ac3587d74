"""Tables with several targets: which columns they are, how they reach a model's outputs, and what predicts them."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
import pytest
from edgefl_agent.__main__ import main as agent_main
from onnx_files import onnx_model

import edgefl
from edgefl.data import fit_plan, load
from edgefl.data.ready import ready
from edgefl.data.survey import survey
from edgefl.errors import DataError, UsageError

ROWS = [(0.5, "worn", 1.5, 2.0), (1.5, "ok", 2.5, -1.0), (-1.0, "fault", 0.5, 0.25), (2.0, "ok", -3.0, 4.0)]
HEADER = "a,state,b,wear"
LABELS = "labels.state=ok,worn,fault"
TEXT = HEADER + "\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS)
Y = [[1, 2.0], [0, -1.0], [2, 0.25], [0, 4.0]]
HEADS = (
    "(float[N,2] x) => (float[N,3] {0}, float[N,1] {1}) <float[2,3] U, float[2,1] V>"
    " {{ {0} = MatMul(x, U) {1} = MatMul(x, V) }}"
)


@pytest.fixture
def csv(tmp_path):
    def write(text: str = TEXT) -> str:
        (tmp_path / "a.csv").write_text(text)
        return f"csv:{tmp_path}/a.csv?test=0"

    return write


def two_heads(state: str = "state", wear: str = "wear") -> edgefl.onnx.model.Model:
    return edgefl.load(onnx_model(HEADS.format(state, wear)), loss={state: "cross_entropy", wear: ("mse", 0.5)})


def test_csv_and_sqlite_have_the_same_columns(csv, tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE r (a REAL, state TEXT, b REAL, wear REAL)")
        database.executemany("INSERT INTO r VALUES (?, ?, ?, ?)", ROWS)
    database.close()
    for spec in (csv(), f"sqlite:{tmp_path}/a.db?test=0&query=SELECT * FROM r"):
        data = load(f"{spec}&target=state,wear&{LABELS}")
        assert (data.y_train.dtype, data.y_train.tolist()) == (np.float32, Y)
        assert data.x_train.tolist() == [[0.5, 1.5], [1.5, 2.5], [-1.0, 0.5], [2.0, -3.0]]
        assert [(block.name, block.width) for block in data.targets] == [("state", 1), ("wear", 1)]
        assert data.target_labels == {"state": ("ok", "worn", "fault")} and data.labels == ()


def test_the_model_gets_them_in_the_order_of_its_outputs(csv):
    data = load(csv() + f"&target=wear,state&{LABELS}")
    assert data.y_train[:, ::-1].tolist() == Y
    assert fit_plan(data, two_heads().plan).y_train.tolist() == Y


def test_columns_go_by_the_names_of_outputs(csv):
    data = load(csv() + "&target=out1=wear,out0=state&labels.out0=ok,worn,fault")
    assert fit_plan(data, two_heads("out0", "out1").plan).y_train.tolist() == Y


def test_an_output_may_have_several_columns(csv):
    data = load(csv("a,l,t,k\n1,2,3,0\n4,5,6,1\n") + "&target=box=l,box=t,kind=k")
    assert [(block.name, block.width) for block in data.targets] == [("box", 2), ("kind", 1)]
    model = edgefl.load(
        onnx_model(
            "(float[N,1] x) => (float[N,2] kind, float[N,2] box) <float[1,2] U, float[1,2] V>"
            " { kind = MatMul(x, U) box = MatMul(x, V) }"
        ),
        loss={"kind": "cross_entropy", "box": "mse"},
    )
    assert fit_plan(data, model.plan).y_train.tolist() == [[0, 2, 3], [1, 5, 6]]
    wrong = load(csv("a,l,t,k\n1,2,3,0\n4,5,6,1\n") + "&target=kind=l,kind=t,box=k")
    with pytest.raises(DataError, match=r"y.kind has 2 values an example, and the model takes 1"):
        fit_plan(wrong, model.plan)


def test_several_targets_for_one_output(csv):
    data = load(csv("a,b,c\n1,2,3\n4,5,6\n") + "&target=b,c")
    model = edgefl.load(onnx_model("(float[N,1] x) => (float[N,2] y) <float[1,2] W> { y = MatMul(x, W) }"), loss="mse")
    fitted = fit_plan(data, model.plan)
    assert edgefl.Trainer(model.plan).fit(model.params, fitted.x_train, fitted.y_train, batch_size=2).num_examples == 2


def test_a_bad_target_leaves_out_the_row_from_all_columns(csv):
    text = TEXT + "7,none,7,7\n8,ok,8,x\n9,worn,9,9\n"
    data = load(csv(text) + f"&target=state,wear&{LABELS}&bad=0.5")
    assert data.y_train.tolist() == [*Y, [1, 9]] and data.x_train[-1].tolist() == [9, 9]
    assert data.tally.rows - len(data.x_train) == 2


def test_windows_have_the_targets_of_their_last_rows(csv):
    data = load(csv() + f"&target=state,wear&{LABELS}&window=2&step=1")
    assert data.y_train.tolist() == Y[1:] and data.x_train.shape == (3, 2, 2)


def test_standardize_leaves_several_targets_as_they_are(csv):
    data = load(csv() + f"&target=state,wear&{LABELS}&standardize=1")
    assert data.y_train.tolist() == Y and abs(data.x_train.mean(0)).max() < 1e-6
    scaled = load(csv() + f"&target=state,wear&{LABELS}&target_mean=0,1&target_std=1,2")
    np.testing.assert_allclose(scaled.y_train, (np.array(Y) - [0, 1]) / [1, 2])


def test_targets_need_not_be_there_to_predict(csv):
    data = load(csv("a,b\n1,2\n") + f"&target=state,wear&{LABELS}&unlabelled=1")
    assert data.x_train.tolist() == [[1, 2]] and data.targets == ()
    full = load(csv() + f"&target=state,wear&{LABELS}&unlabelled=1")
    assert full.x_train.shape == (4, 2)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ("target=state,ware", DataError, "no column 'ware'"),
        ("target=state,wear", DataError, r"column 'state': 'worn' is not a finite number.*add labels.state=A,B"),
        ("target=state,wear&labels=ok,worn", UsageError, "several targets: write labels.state="),
        ("target=state,wear&labels.stat=ok,worn", UsageError, "labels.stat= names no target"),
        ("target=state,wear&labels.state=*", UsageError, "write the list of all labels"),
        ("target=state&labels.state=ok,worn", UsageError, "is for several targets: write labels="),
        ("target=wear,wear", UsageError, "an output in two places|a column twice"),
        ("target=u=a,w=b,u=wear", UsageError, "an output in two places"),
        ("target=wear,a&features=a", UsageError, "a column twice, or the target"),
        ("target=state,wear&label.state=ok,worn", UsageError, "no option 'label.state'"),
    ],
)
def test_wrong_targets_are_named(csv, options, error, says):
    with pytest.raises(error, match=says):
        load(f"{csv()}&{options}")


def test_outputs_that_the_table_does_not_name(csv):
    with pytest.raises(DataError, match=r"the arrays state, wear, and the model takes kind, age.*target=kind=COLUMN"):
        fit_plan(load(csv() + f"&target=state,wear&{LABELS}"), two_heads("kind", "age").plan)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("labels.state=ok,worn,fault,gone", "target 'state': its labels are 4, and the model has 3 classes"),
        ("labels.state=ok,worn,fault&labels.wear=2.0,-1,0.25,4", "target 'wear': it has labels, and loss 'mse'"),
    ],
)
def test_labels_must_be_the_models_classes(csv, labels, says):
    """On a device before it trains, and on the aggregator and in a simulation before they start."""
    data, model = load(f"{csv()}&target=state,wear&{labels}"), two_heads()
    with pytest.raises(DataError, match=says) as caught:
        edgefl.Trainer(model.plan).check_classes(data.labels, data.target_labels)
    assert "2.0" not in caught.value.safe
    with pytest.raises(UsageError, match=says):
        model.check_classes(data.labels, data.target_labels)
    with pytest.raises(UsageError, match=says):
        edgefl.simulate(model, data, devices=2, rounds=1)


def test_two_heads_learn_from_a_table_as_in_torch(csv):
    import torch

    model, data = two_heads(), load(csv() + f"&target=state,wear&{LABELS}")
    data = fit_plan(data, model.plan)
    result = edgefl.Trainer(model.plan).fit(model.params, data.x_train, data.y_train, batch_size=4, lr=0.1)
    weights = model.params[:6].reshape(2, 3), model.params[6:].reshape(2, 1)
    u, v = (torch.tensor(weight, requires_grad=True) for weight in weights)
    x, y = torch.tensor(data.x_train), torch.tensor(np.array(Y, np.float32))
    loss = torch.nn.functional.cross_entropy(x @ u, y[:, 0].long()) + 0.5 * ((x @ v - y[:, 1:]) ** 2).mean()
    loss.backward()
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(result.delta, -0.1 * np.concatenate([u.grad.ravel(), v.grad.ravel()]), atol=1e-6)


def test_a_fleet_learns_two_targets(csv):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    rows = [f"{a},{'ok' if a > b else 'worn' if a > -b else 'fault'},{b},{2 * a - b}" for a, b in x]
    data = load(csv(HEADER + "\n" + "\n".join(rows)).replace("test=0", "test=0.2") + f"&target=state,wear&{LABELS}")
    history = edgefl.simulate(two_heads(), data, devices=4, rounds=15)
    assert history.final.accuracy > 0.85


def test_the_agent_predicts_each_output(csv, tmp_path, capsys):
    model = two_heads()
    (tmp_path / "plan.json").write_bytes(model.plan.to_bytes())
    np.save(tmp_path / "params.npy", model.params)
    files = ["--plan", f"{tmp_path}/plan.json", "--params", f"{tmp_path}/params.npy"]
    spec = csv() + f"&target=state,wear&{LABELS}"
    outputs = edgefl.Trainer(model.plan)
    outputs = outputs.by_output(outputs.predict(model.params, load(spec).x_train))
    best = [["ok", "worn", "fault"][at] for at in outputs["state"].argmax(1)]

    assert agent_main(["predict", *files, "--data", spec]) == 0
    header, *lines = (line.split(",") for line in capsys.readouterr().out.splitlines())
    assert header == ["row", "state", "state.0", "state.1", "state.2", "wear"]
    assert [line[1] for line in lines] == best
    np.testing.assert_array_equal(np.array([line[2:5] for line in lines], np.float32), outputs["state"])
    np.testing.assert_array_equal(np.array([line[5:] for line in lines], np.float32), outputs["wear"])

    assert agent_main(["predict", *files, "--json", "--data", spec]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["prediction"] for line in told] == [{"state": name} for name in best]
    np.testing.assert_allclose([line["outputs"]["wear"] for line in told], outputs["wear"], rtol=1e-6)


def test_stats_suggest_labels_for_each_text(csv, tmp_path):
    csv()
    found = ready("csv", f"{tmp_path}/a.csv", survey("csv", f"{tmp_path}/a.csv", {"target": "state,wear"}))
    assert "target=state,wear&" in found.spec and "labels.state=fault,ok,worn" in found.spec
    assert load(f"{found.spec}&test=0").y_train.shape == (4, 2)


def test_a_comma_in_a_columns_name(csv):
    assert load(csv('a,"x, y"\n1,2\n') + "&target=x%2C y").y_train.tolist() == [2]
