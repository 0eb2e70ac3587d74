"""What each ONNX op becomes in the plan: one family of ops in each file, all of them listed in table.py."""
