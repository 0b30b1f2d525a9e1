"""How a server starts, and how it refuses to: nothing is loaded that does not fit, and every no is one sentence."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.pull_request import ServingReport
from enginesmith_contract.serve_request import ServedModel, ServeRequest
from enginesmith_contract.verification import Verification, VerificationStatus

pytestmark = pytest.mark.slow

Store = Any  # the fixtures' own types; a test module imports no other
StartServer = Callable[..., Any]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

_PROFILE = Profile(inputs={name: ShapeRange(min=(1, 4), opt=(2, 4), max=(4, 4)) for name in ("a", "b")})


@pytest.fixture
def run_server(tmp_path: Path) -> Run:
    """Run a server that is expected to end by itself."""

    def run(store: Store, key: str, **fields: Any) -> "subprocess.CompletedProcess[str]":
        model = ServedModel(name="m", target="cpu", engine_key=key, store=store.uri)
        request = ServeRequest(models=(model,), address="127.0.0.1:0", metrics_address=None).model_copy(update=fields)
        path = tmp_path / "request.json"
        path.write_bytes(request.to_json())
        return _run(["--request", str(path)], {})

    return run


def _run(arguments: list[str], variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "enginesmith_runtime.server", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "ENGINESMITH_LOG_FORMAT": "json", **variables},
    )


def _assert_refused(run: "subprocess.CompletedProcess[str]", code: ExitCode, *fragments: str) -> None:
    assert run.returncode == code, run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    last = run.stderr.strip().splitlines()[-1]
    for fragment in fragments:
        assert fragment in last


def test_an_engine_of_another_version_is_refused_before_it_is_loaded(
    run_server: Run, engine_store: Store, models_folder: Path
) -> None:
    key = engine_store.publish(model=models_folder / "adder.onnx", profiles=(_PROFILE,), version="1.2.3")
    _assert_refused(run_server(engine_store, key), ExitCode.ENGINE_REFUSED, "1.2.3", key[:12])


def test_an_engine_with_a_flipped_byte_is_refused(run_server: Run, engine_store: Store, models_folder: Path) -> None:
    other = models_folder / "tampered.onnx"
    model = onnx.load(models_folder / "adder.onnx")
    model.doc_string = "other bytes, so another blob"
    onnx.save(model, other)
    key = engine_store.publish(model=other, profiles=(_PROFILE,))
    blob = engine_store.blob_of(key)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    _assert_refused(run_server(engine_store, key), ExitCode.ENGINE_REFUSED, "not what was built")


def test_an_engine_that_failed_its_verification_is_refused(
    run_server: Run, engine_store: Store, models_folder: Path
) -> None:
    failed = Verification(status=VerificationStatus.FAILED, reason="output 'sum' is 7 times off")
    key = engine_store.publish(model=models_folder / "adder.onnx", profiles=(_PROFILE,), verification=failed)
    _assert_refused(run_server(engine_store, key), ExitCode.ENGINE_REFUSED, "7 times off")


_A = np.arange(8, dtype=np.float32).reshape(2, 4)


def _references(total: np.ndarray) -> dict[str, np.ndarray]:
    return {"input:a": _A, "input:b": _A, "output:sum": total, "output:difference": np.zeros_like(_A)}


@pytest.mark.parametrize("right", [True, False])
def test_what_nobody_could_verify_is_verified_before_ready(
    start_server: StartServer, run_server: Run, engine_store: Store, models_folder: Path, *, right: bool
) -> None:
    key = engine_store.publish(
        model=models_folder / "adder.onnx",
        profiles=(_PROFILE,),
        verification=Verification(status=VerificationStatus.NOT_RUN, limit=1e-3, reason=f"no GPU {right}"),
        references=_references(2 * _A if right else 3 * _A),
    )
    if right:
        server = start_server({"adder": key})
        assert '"stage": "verify"' in server.log.read_text()
        return
    run = run_server(engine_store, key)
    _assert_refused(run, ExitCode.VERIFICATION_FAILED, "'sum'", "a share of 0.875")


def test_an_engine_that_the_store_lacks_is_named(run_server: Run, engine_store: Store) -> None:
    _assert_refused(run_server(engine_store, "f" * 64), ExitCode.STORE_FAILED, "f" * 64, "Build it first")


def test_a_taken_port_is_named(run_server: Run, start_server: StartServer, engine_store: Store, adder_key: str) -> None:
    taken = start_server({"adder": adder_key}).address
    _assert_refused(run_server(engine_store, adder_key, address=taken), ExitCode.SERVE_FAILED, taken)


@pytest.mark.parametrize(
    ("content", "want_fragment"),
    [
        (None, "ENGINESMITH_SERVE_REQUEST"),
        ("{", "ServeRequest"),
        ('{"models": []}', "needs models"),
        ('{"models": [], "nonsense": 1}', "nonsense"),
    ],
    ids=["none", "no JSON", "no models", "unknown field"],
)
def test_a_bad_request_file_is_told_what_is_wrong(tmp_path: Path, content: str | None, want_fragment: str) -> None:
    path = tmp_path / "request.json"
    if content is not None:
        path.write_text(content)
    run = _run([], {"ENGINESMITH_SERVE_REQUEST": str(path)} if content is not None else {})
    _assert_refused(run, ExitCode.SERVE_FAILED, want_fragment)


def test_a_server_says_where_it_listens_in_one_line_of_json(start_server: StartServer, adder_key: str) -> None:
    ready = start_server({"adder": adder_key}, health_address="127.0.0.1:0").ready
    assert ready["event"] == "ready"
    assert ready["models"] == ["adder"]
    addresses = {str(ready[name]) for name in ("address", "health", "metrics")}
    assert len(addresses) == 3
    assert not any(address.endswith(":0") for address in addresses)


def test_serving_imports_neither_onnx_nor_a_network_client() -> None:
    """Start-up time and memory are what a cold pod pays; a model's tools have no place in them."""
    script = (
        "import json, sys, enginesmith_runtime.server.__main__, enginesmith_runtime.engines.onnxruntime.backend;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    modules = set(json.loads(run.stdout))
    assert not modules & {"onnx", "fsspec", "httpx", "kopf", "kubernetes", "tensorrt"}


def test_a_signal_that_was_held_back_while_the_server_was_started_is_heard() -> None:
    held_back = (
        "import os, signal, sys; signals = {signal.SIGTERM, signal.SIGINT};"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signals); os.kill(os.getpid(), signal.SIGTERM);"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )
    waits = (
        "from enginesmith_runtime.server.stopping import Stopping; stopping = Stopping();"
        "stopping.begun.wait(120); print(stopping.begun.is_set())"
    )
    run = subprocess.run(
        [sys.executable, "-c", held_back, waits], check=True, capture_output=True, text=True, timeout=300
    )
    assert run.stdout == "True\n"


def test_a_refusal_is_left_for_kubelet_as_a_report(tmp_path: Path, engine_store: Store, models_folder: Path) -> None:
    key = engine_store.publish(model=models_folder / "adder.onnx", profiles=(_PROFILE,), version="1.2.4")
    last_word = tmp_path / "termination.json"
    # The request itself, as a pod's variable has it.
    request = json.dumps({"models": [{"name": "adder", "target": "cpu", "engineKey": key, "store": engine_store.uri}]})
    variables = {"ENGINESMITH_SERVE_REQUEST": request, "ENGINESMITH_TERMINATION_LOG": str(last_word)}
    _assert_refused(_run([], variables), ExitCode.ENGINE_REFUSED, "1.2.4")
    report = ServingReport.from_json(last_word.read_bytes())
    assert report.engine_key == key
    assert report.failure is not None
    assert report.failure.exit_code == ExitCode.ENGINE_REFUSED
    assert "1.2.4" in report.failure.why
