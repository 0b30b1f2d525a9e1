"""What is generated from the types: the CRD and the reference page. Nothing that runs in a cluster imports this."""
