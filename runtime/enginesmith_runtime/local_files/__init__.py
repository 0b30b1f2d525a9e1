"""What fetching and storing share about files of this machine: digests, locks, space."""
