"""What lies between the protocol and a wire: types here, one adapter for each wire."""
