"""ConvTranspose in every form of ONNX against onnxruntime, and training against PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx_files import assert_computes, moved, onnx_model, ops

import edgefl
from edgefl.errors import ModelError

IMAGE = "(float[N,4,5,3] x) => (float[N,A,B,C] y)"
SERIES = "(float[N,4,6] x) => (float[N,A,B] y)"
FORMS = {
    "plain": IMAGE + "<float[4,3,3,2] W, float[3] b> { y = ConvTranspose(x, W, b) }",
    "doubled": IMAGE + "<float[4,3,2,2] W> { y = ConvTranspose<strides=[2,2]>(x, W) }",
    "pads": IMAGE + "<float[4,3,4,3] W> { y = ConvTranspose<strides=[2,3], pads=[1,0,2,1]>(x, W) }",
    "output_padding": IMAGE
    + "<float[4,3,3,3] W> { y = ConvTranspose<strides=[2,3], pads=[1,1,1,1], output_padding=[1,2]>(x, W) }",
    "output_shape": IMAGE + "<float[4,3,3,3] W> { y = ConvTranspose<strides=[2,3], output_shape=[10,8]>(x, W) }",
    "output_shape_beyond": IMAGE + "<float[4,3,3,3] W> { y = ConvTranspose<strides=[3,2], output_shape=[16,8]>(x, W) }",
    "output_shape_upper": IMAGE
    + '<float[4,3,3,3] W> { y = ConvTranspose<strides=[2,3], output_shape=[10,8], auto_pad="SAME_UPPER">(x, W) }',
    "same_upper": IMAGE + '<float[4,3,3,3] W> { y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, W) }',
    "same_lower": IMAGE + '<float[4,3,3,3] W> { y = ConvTranspose<strides=[2,2], auto_pad="SAME_LOWER">(x, W) }',
    "valid": IMAGE + '<float[4,3,3,3] W> { y = ConvTranspose<strides=[2,2], auto_pad="VALID">(x, W) }',
    "dilations": IMAGE + "<float[4,3,3,2] W> { y = ConvTranspose<dilations=[2,3]>(x, W) }",
    "groups": IMAGE + "<float[4,3,3,2] W, float[6] b> { y = ConvTranspose<group=2, strides=[2,1]>(x, W, b) }",
    "series": SERIES + "<float[4,3,5] W, float[3] b> { y = ConvTranspose<strides=[3], pads=[1,2]>(x, W, b) }",
    "series_same": SERIES + '<float[4,3,3] W> { y = ConvTranspose<strides=[2], auto_pad="SAME_UPPER">(x, W) }',
}


@pytest.mark.parametrize("name", FORMS)
def test_agrees_with_onnxruntime(name):
    model = assert_computes(edgefl.load(onnx_model(FORMS[name]), loss="mse"))
    assert "conv_transpose" in ops(model)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_geometry_agrees_with_onnxruntime(data):
    draw, small = data.draw, st.integers(1, 3)
    kernel, strides, size = ([draw(st.integers(2, 4)) for _ in range(2)] for _ in range(3))
    pads = [draw(st.integers(0, 1)) for _ in range(4)]
    more = [draw(st.integers(0, stride - 1)) for stride in strides]
    groups, each, out = draw(small), draw(small), draw(small)
    text = (
        f"(float[N,{groups * each},{size[0]},{size[1]}] x) => (float[N,A,B,C] y)"
        f"<float[{groups * each},{out},{kernel[0]},{kernel[1]}] W>"
        f"{{ y = ConvTranspose<group={groups}, strides={strides}, output_padding={more}, pads={pads}>(x, W) }}"
    )
    whole = [(n - 1) * s + k + m for n, s, k, m in zip(size, strides, kernel, more, strict=True)]
    if all(whole[i] - pads[i] - pads[i + 2] > 0 for i in (0, 1)):
        assert_computes(edgefl.load(onnx_model(text), loss="mse"))


def stored_in(source: bytes) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.ModelProto.FromString(source).graph.initializer}


def test_the_trained_weight_is_written_back():
    model = edgefl.load(onnx_model(FORMS["groups"]), loss="mse")
    after = moved(model)
    saved = {
        t.name: numpy_helper.to_array(t) for t in onnx.ModelProto.FromString(model.to_bytes(after)).graph.initializer
    }
    held = after[: 3 * 2 * 3 * 4].reshape(3, 2, 3, 4)
    np.testing.assert_array_equal(saved["W"], held.transpose(3, 2, 0, 1))


def test_an_output_that_windows_do_not_make_is_refused():
    text = IMAGE + "<float[4,3,2,2] W> { y = ConvTranspose<dilations=[3,3], output_padding=[2,2]>(x, W) }"
    with pytest.raises(ModelError, match=r"ConvTranspose\): .*smaller output_padding"):
        edgefl.load(onnx_model(text), loss="mse")


def test_a_step_is_that_of_torch():
    torch = pytest.importorskip("torch")
    proto = onnx_model(IMAGE + "<float[4,3,3,3] W, float[3] b> { c = ConvTranspose<strides=[2,3], pads=[1,1,1,1],"
                       " output_padding=[1,2]>(x, W, b) y = Tanh(c) }")  # fmt: skip
    stored = {t.name: torch.tensor(numpy_helper.to_array(t).copy()) for t in proto.graph.initializer}
    layer = torch.nn.ConvTranspose2d(4, 3, 3, stride=(2, 3), padding=1, output_padding=(1, 2))
    layer.load_state_dict({"weight": stored["W"], "bias": stored["b"]})
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4, 5, 3)).astype(np.float32)
    made = torch.tanh(layer(torch.tensor(x)))
    y = rng.normal(size=made.shape).astype(np.float32)
    ((made - torch.tensor(y)) ** 2).mean().backward()
    model = edgefl.load(proto, loss="mse")
    held = edgefl.Trainer(model.plan).fit(model.params, x, y, batch_size=6, lr=1.0)
    after = stored_in(model.to_bytes(model.params + held.delta))
    with torch.no_grad():
        for name, param in (("W", layer.weight), ("b", layer.bias)):
            np.testing.assert_allclose(after[name], (param - param.grad).numpy(), atol=1e-5)
