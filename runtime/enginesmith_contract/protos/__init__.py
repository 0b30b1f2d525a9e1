"""The wire protocol: Open Inference Protocol with Triton's extensions; generated code beside its source."""
