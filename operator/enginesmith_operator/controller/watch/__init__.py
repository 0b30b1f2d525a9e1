"""Watches: turn a change in the cluster into a key in the queue."""
