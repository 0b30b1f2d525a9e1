"""Checks a model on a CPU before a GPU is used, and prepares it for all builds."""
