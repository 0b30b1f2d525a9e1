"""Which environment variables a user may set on the pods."""

import re

import pytest

from enginesmith_contract.reserved_variables import PATTERN, is_reserved


@pytest.mark.parametrize(
    "name",
    [
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PYTHONHOME",
        "pythonpath",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "Ld_Preload",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        "PATH",
        "HOME",
        "TMPDIR",
        "NODE_OPTIONS",
        "BASH_ENV",
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "CUDA_INJECTION64_PATH",
        "NVTX_INJECTION64_PATH",
        "OMP_TOOL_LIBRARIES",
        "ORT_TENSORRT_EXTRA_PLUGIN_LIB_PATHS",
        "GRPC_XDS_BOOTSTRAP",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "SSLKEYLOGFILE",
        "ENGINESMITH_PLUGINS_ALLOWED",
        "ENGINESMITH_STORE_AWS_ACCESS_KEY_ID",
        "ENGINESMITH_OF_A_LATER_RELEASE",
    ],
)
def test_a_variable_that_changes_what_a_process_loads_is_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize(
    "name",
    [
        "HTTPS_PROXY",
        "https_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "AWS_REGION",
        "AWS_ENDPOINT_URL",
        "HF_TOKEN",
        "CUDA_MODULE_LOADING",
        "NVIDIA_DRIVER_CAPABILITIES",
        "OMP_NUM_THREADS",
        "GRPC_VERBOSITY",
        "MY_PYTHONPATH",
        "PATHS",
        "ENGINESMITH_LOG_FORMAT",
        "ENGINESMITH_SOURCE_TOKEN",
    ],
)
def test_a_variable_that_names_data_is_the_user_s(name: str) -> None:
    assert not is_reserved(name)


def test_the_pattern_has_nothing_that_re2_lacks() -> None:
    assert re.fullmatch(r"[\^$().*|A-Z0-9_]+", PATTERN)
