"""Reading and rewriting ONNX graphs, as preparations and backends do it."""
