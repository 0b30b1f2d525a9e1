"""A serving pod's init step: the engine of the GPU that the pod is on, in a folder that the server reads."""
