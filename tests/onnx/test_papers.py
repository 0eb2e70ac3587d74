"""The models of published experiments: their sizes are the published ones, and they train."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.data.characters import ALPHABET, tokens
from edgefl.errors import UsageError
from edgefl.onnx import zoo
from edgefl.onnx.specs import is_spec


@pytest.mark.parametrize(
    ("name", "params", "input_shape"),
    [("2nn", 199_210, [784]), ("cnn", 1_663_370, [1, 28, 28]), ("char-lstm", 819_920, [80])],
)
def test_sizes_of_mcmahan(name, params, input_shape):
    model = edgefl.load(zoo.from_spec(f"mcmahan:{name}", 3))
    assert model.plan.num_params == params and model.plan.input_shape == input_shape
    assert np.array_equal(model.params, edgefl.load(zoo.from_spec(f"mcmahan:{name}", 3)).params)
    assert not np.array_equal(model.params, edgefl.load(zoo.from_spec(f"mcmahan:{name}", 4)).params)


def test_the_char_lstm_learns_a_repeated_line():
    text = tokens("so shaken as we are, so wan with care,\n" * 9)
    x, y = text[None, :80], text[None, 1:81]
    model = edgefl.load(zoo.from_spec("mcmahan:char-lstm"), y=y)
    assert model.plan.loss == "cross_entropy" and model.output_shape == (80, len(ALPHABET)) == (80, 80)
    trainer = edgefl.Trainer(model.plan)
    result = trainer.fit(model.params, x, y, epochs=30, batch_size=1, lr=2.0, clip_norm=5.0)
    before, after = (trainer.evaluate(params, x, y).loss for params in (model.params, model.params + result.delta))
    assert after < 0.7 * before  # 80 characters, of which 17 differ: at first ln 80


def test_what_is_a_spec_and_what_a_file():
    assert is_spec("mlp:2-3") and is_spec("mcmahan:cnn")
    assert not is_spec("mlp") and not is_spec("model.onnx") and not is_spec("mcmahan/cnn.onnx")
    with pytest.raises(UsageError, match="no model 'mcmahan:cn': did you mean 'cnn'"):
        zoo.from_spec("mcmahan:cn")
