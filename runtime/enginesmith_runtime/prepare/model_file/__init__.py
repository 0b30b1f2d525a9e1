"""Checks an ONNX file without a run: validity, facts, and unsupported nodes."""
