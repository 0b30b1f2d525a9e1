"""Reading and rewriting of ONNX graphs, for preparations and backends."""
