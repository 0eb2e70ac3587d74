"""scikit-learn's models as skl2onnx converts them: real conversions, trained and written back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import edgefl
from edgefl.errors import ModelError
from edgefl.onnx.evaluate import OnnxEvaluator

pytest.importorskip("sklearn")
skl2onnx = pytest.importorskip("skl2onnx")

from sklearn.cross_decomposition import PLSRegression  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # noqa: E402
from sklearn.feature_selection import SelectKBest  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.linear_model import (  # noqa: E402
    Lasso,
    LinearRegression,
    LogisticRegression,
    Perceptron,
    Ridge,
    SGDClassifier,
)
from sklearn.multiclass import OneVsRestClassifier  # noqa: E402
from sklearn.multioutput import MultiOutputRegressor  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler  # noqa: E402
from sklearn.svm import LinearSVC, LinearSVR  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
rng = np.random.default_rng(0)
X = rng.normal(size=(90, 4)).astype(np.float32)
CLASSES = (X @ rng.normal(size=(4, 3))).argmax(1)
BINARY = (CLASSES > 0).astype(np.int64)
TARGET = (X @ rng.normal(size=4) + 1).astype(np.float32)
TARGETS = np.stack([TARGET, 2 * TARGET - 1], 1)

SUPPORTED = {
    "linear": (LinearRegression(), TARGET, "mse"),
    "linear_no_intercept": (LinearRegression(fit_intercept=False), TARGET, "mse"),
    "linear_two_targets": (LinearRegression(), TARGETS, "mse"),
    "logistic_binary": (LogisticRegression(), BINARY, "bce"),
    "logistic_named_classes": (LogisticRegression(), np.array(["no", "yes"])[BINARY], "bce"),
    "logistic_multinomial": (LogisticRegression(), CLASSES, "cross_entropy"),
    "sgd_binary": (SGDClassifier(loss="log_loss", alpha=0.1), BINARY, "bce"),
    "mlp_binary": (MLPClassifier((5,), max_iter=5), BINARY, "bce"),
    "mlp_classes": (MLPClassifier((5, 4), activation="tanh", max_iter=5), CLASSES, "cross_entropy"),
    "mlp_two_labels": (MLPClassifier((5,), max_iter=5), np.stack([BINARY, CLASSES == 1], 1).astype(int), "bce"),
    "scaled": (make_pipeline(StandardScaler(), LogisticRegression()), CLASSES, "cross_entropy"),
    "scaled_binary": (make_pipeline(StandardScaler(with_std=False), LogisticRegression()), BINARY, "bce"),
    "normalised_l1": (make_pipeline(Normalizer("l1"), LogisticRegression()), CLASSES, "cross_entropy"),
    "normalised_l2": (make_pipeline(Normalizer("l2"), LogisticRegression()), BINARY, "bce"),
    "imputed": (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), CLASSES, "cross_entropy"),
    "imputed_regression": (make_pipeline(SimpleImputer(), LinearRegression()), TARGET, "mse"),
    "chosen_features": (make_pipeline(SelectKBest(k=2), LogisticRegression()), CLASSES, "cross_entropy"),
    "ridge": (Ridge(), TARGETS, "mse"),
    "lasso": (Lasso(alpha=0.01), TARGET, "mse"),
    "svm_regression": (LinearSVR(random_state=0), TARGET + BINARY, "mse"),
    "svm": (LinearSVC(), CLASSES, "cross_entropy"),
    "svm_binary": (LinearSVC(), BINARY, "cross_entropy"),
    "perceptron": (Perceptron(), CLASSES, "cross_entropy"),
    "sgd_hinge": (SGDClassifier(alpha=0.1), CLASSES, "cross_entropy"),
    "discriminant": (LinearDiscriminantAnalysis(), CLASSES, "cross_entropy"),
    "components": (make_pipeline(PCA(3), LogisticRegression()), CLASSES, "cross_entropy"),
    "several_targets": (MultiOutputRegressor(LinearRegression()), TARGETS, "mse"),
    "squares": (PLSRegression(2), TARGET, "mse"),
    "scaled_to_one": (make_pipeline(MinMaxScaler(clip=True), LogisticRegression()), CLASSES, "cross_entropy"),
    "mlp_regressor": (MLPRegressor(hidden_layer_sizes=(5,), activation="logistic", max_iter=5), TARGET, "mse"),
}


def convert(estimator, y) -> onnx.ModelProto:
    return skl2onnx.to_onnx(estimator.fit(X, y), X[:1])


@pytest.mark.parametrize("name", SUPPORTED)
def test_conversion_trains_and_is_written_back(name):
    estimator, y, loss = SUPPORTED[name]
    model = edgefl.load(convert(estimator, y))
    assert (model.plan.loss, model.loss_inferred) == (loss, True)
    targets = BINARY if y.dtype.kind == "U" else y
    trainer = edgefl.Trainer(model.plan)
    after = model.params + trainer.fit(model.params, X, targets, epochs=2, lr=0.1).delta
    assert (after != model.params).any()
    saved = edgefl.load(model.to_bytes(after))
    for one in (model, saved):
        expected = OnnxEvaluator(one).predict(one.params, X)
        np.testing.assert_allclose(trainer.predict(one.params, X), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(saved.params, after)


@pytest.mark.parametrize("name", SUPPORTED)
def test_file_evaluates_like_the_trainer(name):
    estimator, y, _ = SUPPORTED[name]
    model = edgefl.load(convert(estimator, y))
    targets = BINARY if y.dtype.kind == "U" else y
    theirs = OnnxEvaluator(model).evaluate(model.params, X, targets)
    ours = edgefl.Trainer(model.plan).evaluate(model.params, X, targets)
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-4)
    assert theirs.accuracy == ours.accuracy
    assert theirs.num_examples == 90


def test_plan_predicts_what_the_estimator_does():
    estimator = LogisticRegression().fit(X, BINARY)
    model = edgefl.load(convert(estimator, BINARY))
    p = edgefl.Trainer(model.plan).predict(model.params, X)
    np.testing.assert_allclose(p[:, 0], estimator.predict_proba(X)[:, 1], atol=1e-5)


def test_binary_logistic_trains_one_logit_and_writes_both_rows():
    model = edgefl.load(convert(LogisticRegression(), BINARY))
    assert [(p.name, p.shape) for p in model.plan.params] == [
        ("LinearClassifier.weight", [4, 1]),
        ("LinearClassifier.bias", [1]),
    ]
    node = onnx.ModelProto.FromString(model.to_bytes(np.array([1, 2, 3, 4, 5], np.float32))).graph.node[0]
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    assert given["coefficients"] == [-1, -2, -3, -4, 1, 2, 3, 4]
    assert given["intercepts"] == [-5, 5]


def test_scaler_is_state_and_stays_as_it_is():
    model = edgefl.load(convert(*SUPPORTED["scaled"][:2]))
    assert [(p.name, p.trainable) for p in model.plan.params[2:]] == [
        ("Scaler.constant", False),
        ("Scaler.constant.2", False),
    ]
    np.testing.assert_allclose(model.state[:4], X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.state[4:], 1 / X.std(0), rtol=1e-5)


def test_rows_that_are_no_mirror_images_are_refused():
    proto = convert(LogisticRegression(), BINARY)
    next(a for a in proto.graph.node[0].attribute if a.name == "coefficients").floats[0] += 1
    with pytest.raises(ModelError, match=r"'LinearClassifier' \(ai.onnx.ml.LinearClassifier\): its two rows"):
        edgefl.load(proto)


@pytest.mark.parametrize(
    ("estimator", "y", "node"),
    [
        (SGDClassifier(loss="modified_huber"), CLASSES, r"'Div1' \(Div\): its probabilities .* raw_scores=True"),
        (make_pipeline(Normalizer("max"), LogisticRegression()), CLASSES, r"'Normalizer' .*: norm=MAX"),
        (OneVsRestClassifier(LogisticRegression()), CLASSES, r"'Slice' \(Slice\): it reads a label"),
    ],
    ids=["one_vs_rest", "normalised_input", "several_models"],
)
def test_what_is_not_trained_is_refused_by_name(estimator, y, node):
    with pytest.raises(ModelError, match=f"node {node}"):
        edgefl.load(convert(estimator, y))


@pytest.mark.parametrize("normalised", [True, False])
def test_one_logistic_for_each_class(normalised):
    """As older versions write multi_class="ovr". The file's probabilities may be divided by their sum: those for people
    are, and each logistic is trained by itself, as scikit-learn does."""
    proto = convert(LogisticRegression(), CLASSES)
    next(a for a in proto.graph.node[0].attribute if a.name == "post_transform").s = b"LOGISTIC"
    if not normalised:
        node = next(node for node in proto.graph.node if node.op_type == "Normalizer")
        node.CopyFrom(helper.make_node("Identity", node.input, node.output))
    model = edgefl.load(proto)
    assert model.plan.loss == "bce"
    expected = OnnxEvaluator(model).predict(model.params, X)
    np.testing.assert_allclose(edgefl.Trainer(model.plan).predict(model.params, X), expected, rtol=1e-5, atol=1e-6)
    y = np.eye(3)[CLASSES]
    theirs = OnnxEvaluator(model).evaluate(model.params, X, y)
    assert theirs.loss == pytest.approx(edgefl.Trainer(model.plan).evaluate(model.params, X, y).loss, rel=1e-4)


def test_one_logistic_for_each_class_by_gradient_descent():
    model = edgefl.load(convert(SGDClassifier(loss="log_loss", alpha=0.1), CLASSES))
    assert model.plan.loss == "bce"
    expected = OnnxEvaluator(model).predict(model.params, X)
    np.testing.assert_allclose(edgefl.Trainer(model.plan).predict(model.params, X), expected, rtol=1e-5, atol=1e-6)


def test_a_regressor_of_two_targets_has_them_one_below_the_other():
    """skl2onnx reshapes (N, 2) to (2 N, 1)."""
    model = edgefl.load(convert(MLPRegressor(hidden_layer_sizes=(5,), max_iter=5), TARGETS), loss="mse")
    assert model.output_shape == (2, 1)
    trainer = edgefl.Trainer(model.plan)
    after = model.params + trainer.fit(model.params, X, TARGETS[..., None], epochs=20, lr=0.05).delta
    assert (
        trainer.evaluate(after, X, TARGETS[..., None]).loss < trainer.evaluate(model.params, X, TARGETS[..., None]).loss
    )
    saved = edgefl.load(model.to_bytes(after), loss="mse")
    expected = OnnxEvaluator(saved).predict(saved.params, X)
    np.testing.assert_allclose(trainer.predict(after, X), expected, rtol=1e-5, atol=1e-5)


def test_an_imputer_of_zeros_is_refused():
    proto = convert(make_pipeline(SimpleImputer(), LogisticRegression()), CLASSES)
    next(a for a in proto.graph.node[0].attribute if a.name == "replaced_value_float").f = 0
    with pytest.raises(ModelError, match=r"Imputer\): it replaces numbers other than NaN"):
        edgefl.load(proto)


def test_one_row_for_two_classes_is_one_logit():
    proto = convert(LogisticRegression(), BINARY)
    for attribute in proto.graph.node[0].attribute:
        if attribute.name in ("coefficients", "intercepts"):
            del attribute.floats[: len(attribute.floats) // 2]
    model = edgefl.load(proto)
    expected = OnnxEvaluator(model).predict(model.params, X)
    np.testing.assert_allclose(edgefl.Trainer(model.plan).predict(model.params, X), expected, rtol=1e-5, atol=1e-5)
    assert edgefl.load(model.to_bytes(model.params + 1)).params.tolist() == (model.params + 1).tolist()
