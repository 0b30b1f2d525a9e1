"""The operator's process: start, election, health, metrics, workers."""
