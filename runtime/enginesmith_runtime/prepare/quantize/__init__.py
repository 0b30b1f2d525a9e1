"""INT8 and FP8: calibration data, ranges, and QuantizeLinear and DequantizeLinear nodes in the graph."""
