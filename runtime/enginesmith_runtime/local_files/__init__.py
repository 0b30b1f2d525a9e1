"""Functions for local files that `fetch` and `store` share: digests, locks, free space."""
