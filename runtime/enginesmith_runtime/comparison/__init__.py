"""Answers held against references: how far off, by which scale. Builds, servers and preparations measure alike."""
