"""What TensorRT and the product do on a real GPU, in one visit: `python -m benchmarks.gpu`."""
