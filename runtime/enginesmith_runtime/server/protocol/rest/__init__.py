"""The Open Inference Protocol over HTTP: the same calls, with JSON and binary tensors instead of protobuf."""
