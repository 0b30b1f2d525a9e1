"""The calls of the protocol, from request bytes to response bytes. Nothing here depends on a transport."""
