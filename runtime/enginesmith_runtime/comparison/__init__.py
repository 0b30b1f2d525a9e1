"""Comparison of outputs with references. Builds, servers and preparations share it."""
