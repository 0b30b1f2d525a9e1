"""The data plane: fetch and prepare a model, build and verify its engine, store it, serve it.

Runs in Jobs and Deployments, and under the command line on one machine. It knows nothing of Kubernetes.
"""

import os

# ONNX Runtime writes a device id and a queue of events into the user's home as soon as it is imported; no process of
# Enginesmith does that unless the user sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
