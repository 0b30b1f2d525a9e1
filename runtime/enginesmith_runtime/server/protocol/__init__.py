"""What each call of the protocol means: bytes in, bytes out, no transport."""
