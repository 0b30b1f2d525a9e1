"""Watches: from a change in the cluster to a key in the queue."""
