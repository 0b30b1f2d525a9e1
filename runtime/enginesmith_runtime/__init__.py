"""The data plane: fetch and prepare a model, build and verify its engine, store it, serve it.

It runs in Jobs and Deployments, and with the command line on one machine. It does not depend on Kubernetes.
"""

import os

# ONNX Runtime writes a device id and a queue of events into the user's home when it is imported. Enginesmith disables
# this unless the user sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
