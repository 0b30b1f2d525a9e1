"""The wire protocol: Open Inference Protocol with Triton's extensions; the generated code is next to its source."""
