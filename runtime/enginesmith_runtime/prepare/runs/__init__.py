"""The model run in ONNX Runtime: inputs, points, references, and what the runs show."""
