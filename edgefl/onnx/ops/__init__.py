"""What each ONNX op becomes in the plan, one family of ops a file; table.py names them all."""
