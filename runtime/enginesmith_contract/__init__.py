"""Data types and constants that the operator and the runtime share.

The operator plans and the runtime builds and serves; the two never import each other. Everything that crosses between
them is a value defined here: requests and manifests, the keys that address them, their names in the store, exit codes,
environment names, the version matrix and the wire protocol. Nothing here does I/O beyond reading its own data.
"""
