"""The Open Inference Protocol over HTTP: the same calls, with JSON and binary tensors in place of protobuf."""
