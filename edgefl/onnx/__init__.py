"""ONNX in and out. The aggregator's side only: a device runs without onnx and onnxruntime."""
