"""Names of environment variables that cross between the operator, the command line and the runtime.

A request is JSON, or the path of a file that holds it: JSON begins with `{`, and no path does.
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
"""AddressRules: what the process may connect to. Unset, as on a laptop: anything."""
BUILD_ORIGIN = "ENGINESMITH_BUILD_ORIGIN"
"""A BuildOrigin, for the provenance of the engine. Unset: built by hand."""
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
"""Folder that a build leaves its engine's manifest in until the user's metric has judged the engine."""
PLUGINS_ALLOWED = "ENGINESMITH_PLUGINS_ALLOWED"
"""What the URIs of plugin libraries may begin with, or `sha256:` and a digest; see `allowed_plugins`.

Entries are separated by spaces or commas. Unset: anything, empty: nothing.
"""
ENGINE_KEYS = "ENGINESMITH_ENGINE_KEYS"
"""TrustedKeys: of which one must have signed the manifest of an engine that is reused or served. Unset: any will do."""
SIGNING_KEY = "ENGINESMITH_SIGNING_KEY"
"""Path of the private key in PEM that a builder signs manifests with. Unset: it does not sign."""
NODE_PRODUCT = "ENGINESMITH_NODE_PRODUCT"
"""The node's label `nvidia.com/gpu.product` as the scheduler read it; compared with what the GPU says of itself."""
STORE_URI = "ENGINESMITH_STORE"
"""URI of the engine store; local mode falls back to a folder in STATE_DIR."""
STATE_DIR = "ENGINESMITH_HOME"
"""Folder of local mode: downloads and the default store. Default: $XDG_CACHE_HOME/enginesmith."""
LOG_FORMAT = "ENGINESMITH_LOG_FORMAT"
"""`auto` (a progress bar on a terminal, else JSON), `text` or `json` (one line a stage)."""
OBJECT = "ENGINESMITH_OBJECT"
"""Namespace and name of the InferenceEngine that a pod serves; log lines repeat it. Unset: there is none."""
TERMINATION_LOG = "ENGINESMITH_TERMINATION_LOG"
"""Path that receives the termination message of a Job's pod, at most 4,096 bytes of valid JSON."""
SOURCE_TOKEN = "ENGINESMITH_SOURCE_TOKEN"  # noqa: S105 - the variable's name, not a token
"""Bearer token for models over http(s). Other sources read the variables of their own clients."""
SOURCE_CREDENTIALS = "ENGINESMITH_SOURCE_CREDENTIALS"
"""Folder with one file for each variable that the model source's client reads (AWS_ACCESS_KEY_ID, HF_TOKEN, ...)."""
STORE_CREDENTIALS = "ENGINESMITH_STORE_CREDENTIALS"
"""Folder with one file for each of the store's variables, under their plain names; only its process reads them."""
STORE_ENDPOINT = "ENGINESMITH_STORE_ENDPOINT"
"""URL of the service behind an s3:// store; unset: Amazon's."""
STORE_REGION = "ENGINESMITH_STORE_REGION"
"""Region of an s3:// store's bucket."""
STORE_PLAIN_HTTP = "ENGINESMITH_STORE_PLAIN_HTTP"
"""`true`: the registry of an oci:// store speaks no TLS."""
STORE_SECRET_PREFIX = "ENGINESMITH_STORE_"  # noqa: S105 - the beginning of variables' names, not a secret
"""Stands before the keys of the store's Secret (AWS_ACCESS_KEY_ID, ...), whose unprefixed names are the model source's.

A store reads the prefixed variable first and falls back to the plain one.
"""
STORE_DOCKER_CONFIG = "ENGINESMITH_STORE_DOCKER_CONFIG"
"""Folder of the config.json with the credentials of an oci:// store's registry."""
CLAIMS_FOLDER = "ENGINESMITH_CLAIMS"
"""Folder in which volumes are mounted by their claims' names: pvc://claim/path is the file claim/path in it."""
