"""The Open Inference Protocol: what a request means in protocol, how bytes come and go in the transport adapters."""
