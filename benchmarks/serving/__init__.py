"""Our server next to its peers, driven by one native client: see `__main__`."""
