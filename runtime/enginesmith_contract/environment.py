"""Names of environment variables that cross between the operator, the command line and the runtime.

The value of a request variable is JSON, or the path of a file with the JSON. JSON begins with `{`; a path does not.
"""

__all__ = [
    "ADDRESSES",
    "BUILD_ORIGIN",
    "BUILD_REQUEST",
    "CLAIMS_FOLDER",
    "ENGINE_KEYS",
    "LOG_FORMAT",
    "METRIC_CANDIDATE",
    "NODE_PRODUCT",
    "OBJECT",
    "PLUGINS_ALLOWED",
    "PREPARATION_REQUEST",
    "PREPARATION_WAIT",
    "PULL_REQUEST",
    "SERVE_REQUEST",
    "SIGNING_KEY",
    "SOURCE_CREDENTIALS",
    "SOURCE_TOKEN",
    "STATE_DIR",
    "STORE_CREDENTIALS",
    "STORE_DOCKER_CONFIG",
    "STORE_ENDPOINT",
    "STORE_PLAIN_HTTP",
    "STORE_REGION",
    "STORE_SECRET_PREFIX",
    "STORE_URI",
    "TERMINATION_LOG",
]

ADDRESSES = "ENGINESMITH_ADDRESSES"
"""`AddressRules` for the connections of the process. If it is unset, as on a laptop, any address is allowed."""
BUILD_ORIGIN = "ENGINESMITH_BUILD_ORIGIN"
"""`BuildOrigin` for the provenance of the engine. If it is unset, the build was started by hand."""
BUILD_REQUEST = "ENGINESMITH_BUILD_REQUEST"
"""A BuildRequest."""
SERVE_REQUEST = "ENGINESMITH_SERVE_REQUEST"
"""A ServeRequest."""
PREPARATION_REQUEST = "ENGINESMITH_PREPARATION_REQUEST"
"""A PreparationJobRequest."""
PREPARATION_WAIT = "ENGINESMITH_PREPARATION_WAIT"
"""Seconds that a builder waits for a preparation that the store lacks. Unset: it does not wait."""
PULL_REQUEST = "ENGINESMITH_PULL_REQUEST"
"""A PullRequest."""
METRIC_CANDIDATE = "ENGINESMITH_METRIC_CANDIDATE"
"""Folder in which a build leaves the engine's manifest until the user's metric has judged the engine."""
PLUGINS_ALLOWED = "ENGINESMITH_PLUGINS_ALLOWED"
"""Allowed prefixes of the URIs of plugin libraries, or `sha256:` and a digest; see `allowed_plugins`.

Entries are separated by spaces or commas. If it is unset, any library is allowed; if it is empty, none is.
"""
ENGINE_KEYS = "ENGINESMITH_ENGINE_KEYS"
"""`TrustedKeys`, one of which must have signed the manifest of a reused or served engine. Unset: no check."""
SIGNING_KEY = "ENGINESMITH_SIGNING_KEY"
"""Path of the private key in PEM with which a builder signs manifests. If it is unset, the builder does not sign."""
NODE_PRODUCT = "ENGINESMITH_NODE_PRODUCT"
"""The node's label `nvidia.com/gpu.product` as the scheduler read it. The runtime compares it with the GPU."""
STORE_URI = "ENGINESMITH_STORE"
"""URI of the engine store. In local mode the default is a folder in STATE_DIR."""
STATE_DIR = "ENGINESMITH_HOME"
"""Folder of local mode: downloads and the default store. Default: $XDG_CACHE_HOME/enginesmith."""
LOG_FORMAT = "ENGINESMITH_LOG_FORMAT"
"""`auto` (a progress bar on a terminal, else JSON), `text` or `json` (one line for each stage)."""
OBJECT = "ENGINESMITH_OBJECT"
"""Namespace and name of the InferenceEngine that a pod serves; log lines repeat it. It is unset if there is none."""
TERMINATION_LOG = "ENGINESMITH_TERMINATION_LOG"
"""Path that receives the termination message of a Job's pod, at most 4,096 bytes of valid JSON."""
SOURCE_TOKEN = "ENGINESMITH_SOURCE_TOKEN"  # noqa: S105 - the variable's name, not a token
"""Bearer token for models over http(s). Other sources read the variables of their own clients."""
SOURCE_CREDENTIALS = "ENGINESMITH_SOURCE_CREDENTIALS"
"""Folder with one file for each variable that the model source's client reads (AWS_ACCESS_KEY_ID, HF_TOKEN, ...)."""
STORE_CREDENTIALS = "ENGINESMITH_STORE_CREDENTIALS"
"""Folder with one file for each of the store's variables, under their plain names. Only the store process reads it."""
STORE_ENDPOINT = "ENGINESMITH_STORE_ENDPOINT"
"""URL of the service behind an s3:// store; unset: Amazon's."""
STORE_REGION = "ENGINESMITH_STORE_REGION"
"""Region of an s3:// store's bucket."""
STORE_PLAIN_HTTP = "ENGINESMITH_STORE_PLAIN_HTTP"
"""`true` if the registry of an oci:// store does not use TLS."""
STORE_SECRET_PREFIX = "ENGINESMITH_STORE_"  # noqa: S105 - the beginning of variables' names, not a secret
"""Prefix of the keys of the store's Secret (AWS_ACCESS_KEY_ID, ...). The unprefixed names belong to the model source.

A store reads the prefixed variable first and falls back to the plain one.
"""
STORE_DOCKER_CONFIG = "ENGINESMITH_STORE_DOCKER_CONFIG"
"""Folder of the config.json with the credentials of an oci:// store's registry."""
CLAIMS_FOLDER = "ENGINESMITH_CLAIMS"
"""Folder in which each volume is mounted under the name of its claim: pvc://claim/path is the file claim/path in it."""
