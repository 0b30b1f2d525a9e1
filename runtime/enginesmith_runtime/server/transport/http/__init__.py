"""The transport adapter for HTTP/1.1: h11 reads and writes the protocol, one event loop has the connections."""
