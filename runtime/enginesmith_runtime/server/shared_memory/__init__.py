"""Memory that clients on this machine share with the server. Requests contain its name instead of the tensors."""
