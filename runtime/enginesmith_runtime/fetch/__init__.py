"""Fetches a model and its external weights into one folder, with resumable downloads and checked digests."""
