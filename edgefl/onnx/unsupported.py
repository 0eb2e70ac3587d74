"""What to do about an op that is not trained: the sentence at the end of its refusal."""

from __future__ import annotations

FLOAT_MODEL = "train the float32 model and quantize the result"
HELP = {
    "DequantizeLinear": FLOAT_MODEL,
    "InstanceNormalization": "use BatchNormalization or LayerNormalization",
    "PRelu": "use LeakyRelu, whose slope is fixed",
    "QLinearConv": FLOAT_MODEL,
    "QLinearMatMul": FLOAT_MODEL,
    "QuantizeLinear": FLOAT_MODEL,
    "onnx.brevitas.BipolarQuant": FLOAT_MODEL,
    "onnx.brevitas.Quant": FLOAT_MODEL,
}
