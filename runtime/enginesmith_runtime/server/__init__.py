"""The inference server. `protocol` implements the Open Inference Protocol; `transport` receives and sends the bytes."""
