"""Runs of the model in ONNX Runtime: inputs, points, references and results."""
