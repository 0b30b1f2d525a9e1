"""CUDA devices, memory, graphs and faults."""
