"""Resize and Upsample, as torch, keras and old files write them, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import assert_computes, onnx_model, ops

import edgefl
from edgefl.errors import ModelError

HEAD = "(float[N,4,5,6] x) => (float[N,A,B,C] y) <float[3,4,1,1] W, "
COORDINATES = ("half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners", "tf_half_pixel_for_nn")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SCALES = ((2.0, 2.0), (1.5, 0.7), (0.4, 3.0), (1.0, 2.0))


def scaled(attributes: str, high: float, wide: float) -> str:
    """A convolution in front, so that the resize has channels last."""
    scales = f"float[4] s = {{1, 1, {high}, {wide}}}> "
    return HEAD + scales + f"{{ c = Conv(x, W) y = Resize<{attributes}>(c, , s) }}"


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_nearest_agrees_with_onnxruntime(coordinates, scales):
    for rounding in ROUNDINGS:
        how = f'mode="nearest", coordinate_transformation_mode="{coordinates}", nearest_mode="{rounding}"'
        assert_computes(edgefl.load(onnx_model(scaled(how, *scales)), loss="mse"))


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("coordinates", [*COORDINATES[:4], "half_pixel_symmetric"])
def test_linear_agrees_with_onnxruntime(coordinates, scales):
    how = f'mode="linear", coordinate_transformation_mode="{coordinates}"'
    assert_computes(edgefl.load(onnx_model(scaled(how, *scales), opset=19), loss="mse"))


FORMS = {
    "sizes": (13, "int64[4] s = {1, 4, 7, 11}", 'Resize<mode="linear">(x, , , s)'),
    "sizes that shrink": (13, "int64[4] s = {1, 4, 3, 2}", 'Resize<mode="nearest">(x, , , s)'),
    "axes": (18, "int64[2] s = {9, 8}", 'Resize<mode="linear", axes=[2,3]>(x, , , s)'),
    "kept aspect": (
        18,
        "int64[2] s = {10, 8}",
        'Resize<mode="nearest", axes=[2,3], keep_aspect_ratio_policy="not_larger">(x, , , s)',
    ),
    "antialias that enlarges": (18, "float[4] s = {1, 1, 2, 2}", 'Resize<mode="linear", antialias=1>(x, , s)'),
    "opset 10": (10, "float[4] s = {1, 1, 2, 1.5}", 'Resize<mode="nearest">(x, s)'),
    "opset 10 that shrinks": (10, "float[4] s = {1, 1, 0.6, 0.7}", 'Resize<mode="nearest">(x, s)'),
    "opset 10 linear": (10, "float[4] s = {1, 1, 2, 1.5}", 'Resize<mode="linear">(x, s)'),
    "upsample 9": (9, "float[4] s = {1, 1, 2, 3}", 'Upsample<mode="nearest">(x, s)'),
    "upsample 9 linear": (9, "float[4] s = {1, 1, 2, 3}", 'Upsample<mode="linear">(x, s)'),
    "upsample 7": (7, "", 'Upsample<mode="nearest", scales=[1.0, 1.0, 2.0, 3.0]>(x)'),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_agrees_with_onnxruntime(name):
    opset, stored, node = FORMS[name]
    sizes = {"sizes": "7,11", "sizes that shrink": "3,2"}.get(name)
    samples = "1" if sizes else "N"
    text = (
        f"(float[{samples},4,5,6] x) => (float[{samples},A,B,C] y) <float[3,4,1,1] W{', ' if stored else ''}{stored}>"
        f"{{ u = {node} y = Conv(u, W) }}"
    )
    assert "resize" in ops(assert_computes(edgefl.load(onnx_model(text, opset=opset), loss="mse")))


def test_sizes_from_the_input_shape():
    """torch.nn.functional.interpolate(x, size=...): the sizes behind the samples and channels of the input."""
    text = (
        "(float[N,4,5,6] x) => (float[N,A,B,C] y) <float[3,4,1,1] W, int64[1] z = {0}, int64[1] t = {2},"
        " int64[2] hw = {10, 12}> { c = Conv(x, W) s = Shape(c) f = Slice(s, z, t, z) o = Concat<axis=0>(f, hw)"
        ' y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(c, , , o) }'
    )
    assert ops(assert_computes(edgefl.load(onnx_model(text), loss="mse"))).count("resize") == 2


def test_a_series_is_resized():
    text = (
        "(float[N,4,6] x) => (float[N,A,B] y) <float[3,4,1] W, float[3] s = {1, 1, 2}>"
        '{ c = Conv(x, W) y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(c, , s) }'
    )
    assert_computes(edgefl.load(onnx_model(text), loss="mse"))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ('mode="cubic"', "mode=cubic is not trained: resize with nearest or linear"),
        ('coordinate_transformation_mode="tf_crop_and_resize"', "tf_crop_and_resize"),
        ('mode="linear", antialias=1', "antialias is not trained"),
        ('nearest_mode="up"', "with up is not trained"),
    ],
)
def test_what_is_not_trained_is_refused(how, says):
    with pytest.raises(ModelError, match=rf"Resize\): .*{says}"):
        edgefl.load(onnx_model(scaled(how, 2.0, 0.5), opset=19), loss="mse")


def test_samples_are_not_resized():
    text = HEAD + "float[4] s = {2, 1, 1, 1}> { c = Conv(x, W) y = Resize(c, , s) }"
    with pytest.raises(ModelError, match="1 for the samples"):
        edgefl.load(onnx_model(text), loss="mse")


@pytest.mark.parametrize(("mode", "corners"), [("nearest", False), ("bilinear", False), ("bilinear", True)])
def test_a_gradient_is_that_of_torch(mode, corners):
    torch = pytest.importorskip("torch")
    how = {"nearest": 'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"',
           "bilinear": 'mode="linear", coordinate_transformation_mode="'
           + ("align_corners" if corners else "pytorch_half_pixel") + '"'}[mode]  # fmt: skip
    model = edgefl.load(onnx_model(scaled(how, 2.0, 1.5)), loss="mse")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 5, 6)).astype(np.float32)
    held = torch.tensor(model.params.reshape(4, 3).T.copy(), requires_grad=True)
    c = torch.einsum("oc,nchw->nohw", held, torch.tensor(x))
    options = {} if mode == "nearest" else {"align_corners": corners}
    made = torch.nn.functional.interpolate(c, scale_factor=(2.0, 1.5), mode=mode, **options)
    y = rng.normal(size=made.shape).astype(np.float32)
    ((made - torch.tensor(y)) ** 2).mean().backward()
    ours = edgefl.Trainer(model.plan).gradient(model.params, x, y)
    np.testing.assert_allclose(ours.reshape(4, 3), held.grad.numpy().T, atol=1e-5)
