"""The `enginesmith` command: the one package that may import both the operator's and the runtime's side."""
