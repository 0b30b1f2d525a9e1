"""The servers that ours is compared with, each a program of its own."""
