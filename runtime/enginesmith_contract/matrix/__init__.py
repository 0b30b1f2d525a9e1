"""The version matrix: TensorRT, CUDA, driver, compute capability, precision and platform; data files and rules."""
