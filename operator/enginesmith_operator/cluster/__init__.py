"""The only place with Kubernetes I/O: typed addresses, one HTTP transport, one gate that every write passes."""
