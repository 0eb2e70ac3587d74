"""What to do about an op that is not trained: the end of the sentence that refuses it."""

from __future__ import annotations

FLOAT_MODEL = "train the float32 model, and quantize the result"
NO_GRADIENT = "trees and support vectors have no gradient, use a linear model or scikit-learn's MLPClassifier"
NO_SLOPE = "rounding has no slope to train through, leave it out or use a smooth function"
FLOW = "export without branches and loops (unrolled, by tracing)"
SIZES = "the size of its result depends on the data, end the model before it"
RANDOM = "its numbers are random, export after model.eval()"
ATTENTION = "export attention as MatMul and Softmax (opset 20 or older, without onnxruntime's optimizer)"

FAMILIES = {
    "ai.onnx.ml.SVM": NO_GRADIENT,
    "ai.onnx.ml.TreeEnsemble": NO_GRADIENT,
    "finn.": FLOAT_MODEL,
    "onnx.brevitas.": FLOAT_MODEL,
    "qonnx.": FLOAT_MODEL,
}  # by the start of an op's name
QUANTIZED = ("QLinear", "uantizeLinear", "Integer", "NBits", "QGemm", "QAttention", "DynamicQuantize", "QOrdered")
HELP = {
    "Attention": ATTENTION,
    "Bernoulli": RANDOM,
    "Ceil": NO_SLOPE,
    "Compress": SIZES,
    "Einsum": "write it as MatMul, with Transpose and Reshape",
    "Floor": NO_SLOPE,
    "If": FLOW,
    "Loop": FLOW,
    "Mod": NO_SLOPE,
    "Multinomial": RANDOM,
    "NonMaxSuppression": "end the model before it",
    "NonZero": SIZES,
    "RandomNormal": RANDOM,
    "RandomNormalLike": RANDOM,
    "RandomUniform": RANDOM,
    "RandomUniformLike": RANDOM,
    "Round": NO_SLOPE,
    "Scan": FLOW,
    "Sign": NO_SLOPE,
    "TopK": "end the model before it, or use ReduceMax",
    "Unique": SIZES,
    "com.microsoft.Attention": ATTENTION,
    "com.microsoft.GroupQueryAttention": ATTENTION,
    "com.microsoft.MultiHeadAttention": ATTENTION,
}


def advice(key: str, otherwise: str) -> str:
    """What an operator can do about the op `key`."""
    key = str(key)  # bytes where a damaged file has no text
    if any(mark in key for mark in QUANTIZED):
        return FLOAT_MODEL
    family = next((text for start, text in FAMILIES.items() if key.startswith(start)), otherwise)
    return HELP.get(key, family)
