"""Memory that clients on this machine share with the server, so that requests carry its name in place of tensors."""
