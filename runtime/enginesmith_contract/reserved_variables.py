"""Names of environment variables that a user may not set on pods, because they change what the processes load or run.

A pod that prepares or builds has the credentials of the engine store. A variable that makes its processes load a file
from a user's volume (PYTHONPATH, LD_PRELOAD, a plug-in path, a configuration with a command) exposes these credentials
and bypasses the list of allowed plugins. Names are compared without regard to case.

Certificates and proxies (SSL_CERT_FILE, REQUESTS_CA_BUNDLE, HTTPS_PROXY, ...) refer to data and not to code, and are
allowed.
"""

import re
from typing import Final

from enginesmith_contract import environment

__all__ = ["ALLOWED", "PATTERN", "is_reserved"]

_PREFIXES: Final = (
    # The interpreter and its modules, and the dynamic linker.
    "PYTHON",
    "_PYTHON",
    "LD_",
    "DYLD_",
    # Variables that the operator sets.
    "ENGINESMITH_",
    # Plug-ins and settings of libraries that the runtime loads.
    "ORT_",
    "OPENSSL_",
    "FSSPEC_",
    "TRT_",
    "GRPC_XDS_",
    # Interpreters and shells that a library may start.
    "BASH_",
    "PERL5",
    "RUBY",
    "NODE_",
    "GIT_",
    "LUA_",
)
_NAMES: Final = (
    # Search paths of programs, scratch files and the settings of libraries.
    "PATH",
    "HOME",
    "TMPDIR",
    "TMP",
    "TEMP",
    "XDG_CONFIG_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_DATA_HOME",
    "XDG_DATA_DIRS",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "__PYVENV_LAUNCHER__",
    "LIBRARY_PATH",
    # Modules of the C library, and files that it does not read in a privileged program.
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCPATH",
    "MALLOC_TRACE",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    # Libraries that CUDA, NVTX, OpenMP and NCCL load by name, compiled kernels, and the path of CUDA itself.
    "CUDA_CACHE_PATH",
    "CUDA_HOME",
    "CUDA_INJECTION32_PATH",
    "CUDA_INJECTION64_PATH",
    "CUDA_PATH",
    "NVTX_INJECTION32_PATH",
    "NVTX_INJECTION64_PATH",
    "OMP_TOOL",
    "OMP_TOOL_LIBRARIES",
    "NCCL_CONF_FILE",
    "NCCL_ENV_PLUGIN",
    "NCCL_NET_PLUGIN",
    "NCCL_PROFILER_PLUGIN",
    "NCCL_TUNER_PLUGIN",
    "OCL_ICD_FILENAMES",
    "OCL_ICD_VENDORS",
    "OPENCL_VENDOR_PATH",
    "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION",
    # Configurations of clients that may name a command to run, and keys of TLS connections in a file.
    "AWS_CONFIG_FILE",
    "AWS_DATA_PATH",
    "AWS_SHARED_CREDENTIALS_FILE",
    "BOTO_CONFIG",
    "CLOUDSDK_CONFIG",
    "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES",
    "SSLKEYLOGFILE",
    # Shells and virtual machines.
    "ENV",
    "IFS",
    "PS4",
    "SHELLOPTS",
    "BASHOPTS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
)
ALLOWED: Final = frozenset({environment.LOG_FORMAT, environment.SOURCE_TOKEN})
"""Reserved names that a user may set."""

PATTERN: Final = f"^(({'|'.join(_PREFIXES)}).*|{'|'.join(_NAMES)})$"
"""Regular expression of the names, to be matched in upper case. RE2 (CEL) and Python read it alike."""

_COMPILED: Final = re.compile(PATTERN, re.DOTALL)


def is_reserved(name: str) -> bool:
    """Whether a user may not set the environment variable `name`."""
    return name not in ALLOWED and _COMPILED.match(name.upper()) is not None
