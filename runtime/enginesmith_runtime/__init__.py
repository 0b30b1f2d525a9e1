"""The data plane: fetch and prepare a model, build and verify its engine, store it, serve it.

Runs in Jobs and Deployments, and under the command line on one machine. It knows nothing of Kubernetes.
"""
