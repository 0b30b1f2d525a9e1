"""Names of environment variables that cross between the operator, the command line and the runtime."""

__all__ = ["BUILD_REQUEST", "LOG_FORMAT", "SERVE_REQUEST", "SOURCE_TOKEN", "STATE_DIR", "STORE_URI", "TERMINATION_LOG"]

BUILD_REQUEST = "ENGINESMITH_BUILD_REQUEST"
"""Path of a file that holds a BuildRequest as JSON."""
SERVE_REQUEST = "ENGINESMITH_SERVE_REQUEST"
"""Path of a file that holds a ServeRequest as JSON."""
STORE_URI = "ENGINESMITH_STORE"
"""URI of the engine store; local mode falls back to a folder in STATE_DIR."""
STATE_DIR = "ENGINESMITH_HOME"
"""Folder of local mode: downloads and the default store. Default: $XDG_CACHE_HOME/enginesmith."""
LOG_FORMAT = "ENGINESMITH_LOG_FORMAT"
"""`auto` (a progress bar on a terminal, else JSON), `text` or `json` (one line a stage)."""
TERMINATION_LOG = "ENGINESMITH_TERMINATION_LOG"
"""Path that receives the last word of a Job's pod, at most 4,096 bytes of valid JSON."""
SOURCE_TOKEN = "ENGINESMITH_SOURCE_TOKEN"  # noqa: S105 - the variable's name, not a token
"""Bearer token for models over http(s). Other sources read the variables of their own clients."""
