"""TensorRT and TensorRT for RTX: build, load and run engines."""
