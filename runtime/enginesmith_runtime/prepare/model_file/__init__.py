"""What the ONNX file says without a run: whether it is valid, its facts, and what its nodes will not do."""
