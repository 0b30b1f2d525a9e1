"""The transport adapter for HTTP/2 on an event loop, in Python: gRPC's calls as bytes, by the rules of RFC 9113."""
