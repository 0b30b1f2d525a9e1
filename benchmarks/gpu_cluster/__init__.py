"""TensorRT on a Kubernetes with a real GPU: the whole life of engines, part by part, with figures for the record."""
