"""gRPC's own client of its interoperability tests, written in Go, against each transport.

One case does not apply: `client_streaming` needs a method with one answer to many requests. No method of the product is
one, so the interface has none. Cases of credentials, ALTS and load reports test what this server does not have.
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CASES = (
    "empty_unary",
    "large_unary",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
)


@pytest.mark.parametrize("case", CASES)
def test_the_case_passes(transport_server: Any, interop_client: Path, case: str) -> None:
    _check(interop_client, case, transport_server.port)


@pytest.mark.parametrize("case", CASES)
def test_the_case_passes_over_tls(tls_server: Any, interop_client: Path, case: str) -> None:
    options = ("-use_tls", "-use_test_ca", f"-ca_file={tls_server.certificate}", "-server_host_override=localhost")
    _check(interop_client, case, tls_server.port, *options)


def _check(client: Path, case: str, port: int, *options: str) -> None:
    run = subprocess.run(
        [client, "-server_host=127.0.0.1", f"-server_port={port}", f"-test_case={case}", *options],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
