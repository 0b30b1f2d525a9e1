"""The init container of a serving pod. It copies the engine for the pod's GPU into a folder that the server reads."""
