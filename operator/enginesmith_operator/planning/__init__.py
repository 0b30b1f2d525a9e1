"""The pure decision: what to build and serve where, or every reason why not. No I/O, no clock, no Kubernetes client."""
