"""A pod's init step as a process: what it leaves for the server, and what it says where it cannot."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from enginesmith_contract.backends import Backend
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.pull_request import SERVE_REQUEST_FILE, PullRequest, ServingReport
from enginesmith_contract.store_layout import blob_name, engine_pointer
from enginesmith_runtime.store.open import open_store

BuildEngine = Callable[..., Manifest]
MakePull = Callable[..., PullRequest]
RunRestricted = Callable[..., "subprocess.Popen[str]"]
LIMIT_SECONDS = 600

pytestmark = pytest.mark.slow


def pull(request: PullRequest | str, tmp_path: Path, **variables: str) -> tuple[int, ServingReport]:
    last_word = tmp_path / "termination-log"
    run = subprocess.run(
        [sys.executable, "-m", "enginesmith_runtime.pull"],
        env={
            "ENGINESMITH_PULL_REQUEST": request if isinstance(request, str) else request.to_json().decode(),
            "ENGINESMITH_TERMINATION_LOG": str(last_word),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert "Traceback" not in run.stderr
    return run.returncode, ServingReport.from_json(last_word.read_bytes())


def test_a_restricted_pod_pulls_its_engine_and_a_restricted_server_serves_it(
    build_engine: BuildEngine, make_pull: MakePull, tmp_path: Path, run_restricted: RunRestricted
) -> None:
    built = build_engine("NVIDIA-L4")
    pod = tmp_path / "pod"
    pod.mkdir()
    variables = {
        "ENGINESMITH_PULL_REQUEST": make_pull(built).to_json().decode(),
        "ENGINESMITH_TERMINATION_LOG": str(pod / "termination-log"),
        "ENGINESMITH_LOG_FORMAT": "json",
    }
    pulling = run_restricted(pod, "enginesmith_runtime.pull", variables)
    output, errors = pulling.communicate(timeout=LIMIT_SECONDS)
    assert pulling.returncode == ExitCode.OK, errors
    report = ServingReport.from_json((pod / "termination-log").read_bytes())
    assert (report.engine_key, report.engine_digest) == (built.engine_key, built.engine_digest)
    assert ServingReport.from_json(output) == report

    # The server has the folder alone, not the store.
    (tmp_path / "store").rename(tmp_path / "gone")
    serving = run_restricted(
        pod, "enginesmith_runtime.server", variables, "--request", str(pod / "engines" / SERVE_REQUEST_FILE)
    )
    assert serving.stdout is not None
    try:
        ready = json.loads(serving.stdout.readline() or "{}")
        assert ready.get("event") == "ready", serving.communicate()[1]
        assert ready["models"] == ["small"]
    finally:
        serving.terminate()
        serving.communicate(timeout=LIMIT_SECONDS)
    assert list((pod / "tmp").iterdir()) == []


def test_of_several_engines_only_the_one_for_the_node_is_copied(
    build_engine: BuildEngine, make_pull: MakePull, tmp_path: Path
) -> None:
    engines = [build_engine("NVIDIA-L4"), build_engine("NVIDIA-A100-SXM4-40GB")]
    code, report = pull(make_pull(*engines), tmp_path, ENGINESMITH_NODE_PRODUCT="NVIDIA-A100-SXM4-40GB")
    assert code == ExitCode.OK
    assert report.engine_key == engines[1].engine_key
    copy = open_store(str(tmp_path / "pod/engines"))
    assert list(copy.list_pointers("keys/")) == [engine_pointer(engines[1].engine_key)]


def test_a_pod_that_starts_anew_pulls_again_into_the_same_folder(
    build_engine: BuildEngine, make_pull: MakePull, tmp_path: Path
) -> None:
    built = build_engine()
    assert pull(make_pull(built), tmp_path)[0] == ExitCode.OK
    blob = tmp_path / "pod/engines" / blob_name(built.files[0].digest)
    blob.unlink()
    blob.write_bytes(b"half")
    assert pull(make_pull(built), tmp_path)[0] == ExitCode.OK
    assert blob.stat().st_size == built.files[0].size_bytes


def test_without_a_gpu_an_engine_for_one_is_refused_in_words(
    build_engine: BuildEngine, make_pull: MakePull, tmp_path: Path
) -> None:
    request = make_pull(build_engine("NVIDIA-L4"), backend=Backend.TENSORRT)
    code, report = pull(request, tmp_path, ENGINESMITH_NODE_PRODUCT="NVIDIA-L4")
    assert code == ExitCode.ENGINE_REFUSED
    assert report.failure is not None
    assert report.failure.reason == "NoGpu"
    assert "NVIDIA-L4" in report.failure.sentence()
    assert not (tmp_path / "pod/engines").exists()


@pytest.mark.parametrize(
    ("damage", "want_code", "want_reason"),
    [
        ("no pointer", ExitCode.STORE_FAILED, "EngineMissing"),
        ("no blob", ExitCode.STORE_FAILED, "BlobMissing"),
        ("another byte", ExitCode.ENGINE_REFUSED, "Tampered"),
        ("another key", ExitCode.ENGINE_REFUSED, "KeyMismatch"),
        ("no manifest", ExitCode.ENGINE_REFUSED, "ManifestUnreadable"),
    ],
)
def test_a_damaged_store_is_said_so_and_gives_no_request_to_serve(
    build_engine: BuildEngine, make_pull: MakePull, tmp_path: Path, damage: str, want_code: ExitCode, want_reason: str
) -> None:
    built = build_engine()
    pointer = tmp_path / "store" / engine_pointer(built.engine_key)
    blob = tmp_path / "store" / blob_name(built.files[0].digest)
    for path in (pointer, blob):
        path.chmod(0o644)
    match damage:
        case "no pointer":
            pointer.unlink()
        case "no blob":
            blob.unlink()
        case "another byte":
            content = bytearray(blob.read_bytes())
            content[-1] ^= 1
            blob.write_bytes(content)
        case "another key":
            changed = built.key_inputs.model_copy(update={"epoch": 7})
            pointer.write_bytes(built.model_copy(update={"key_inputs": changed}).to_json())
        case _:
            pointer.write_bytes(b"{}")
    code, report = pull(make_pull(built), tmp_path)
    assert code == want_code
    assert report.failure is not None
    assert report.failure.reason == want_reason
    assert report.engine_key is None
    assert not (tmp_path / "pod/engines" / SERVE_REQUEST_FILE).exists()


def test_another_build_than_the_verified_one_is_refused(
    build_engine: BuildEngine, make_pull: MakePull, tmp_path: Path
) -> None:
    request = make_pull(build_engine().model_copy(update={"engine_digest": "0" * 64}))
    code, report = pull(request, tmp_path)
    assert code == ExitCode.ENGINE_REFUSED
    assert report.failure is not None
    assert report.failure.reason == "DigestDiffers"


def test_a_request_of_another_release_is_refused(tmp_path: Path) -> None:
    code, report = pull('{"store": "/store", "newField": 1}', tmp_path)
    assert code == ExitCode.SPEC_INVALID
    assert report.failure is not None
    assert report.failure.reason == "RequestInvalid"


@pytest.mark.parametrize(
    ("allowed", "want"),
    [
        ({}, ExitCode.OK),
        ({"ENGINESMITH_PLUGINS_ALLOWED": f"sha256:{'ab' * 32}"}, ExitCode.OK),
        ({"ENGINESMITH_PLUGINS_ALLOWED": f"sha256:{'cd' * 32}"}, ExitCode.ENGINE_REFUSED),
        ({"ENGINESMITH_PLUGINS_ALLOWED": ""}, ExitCode.ENGINE_REFUSED),
        # Where it came from was asked when it was built.
        ({"ENGINESMITH_PLUGINS_ALLOWED": "s3://plugins"}, ExitCode.OK),
    ],
)
def test_an_engine_with_a_plugin_library_is_pulled_where_its_digest_is_allowed(
    build_engine: BuildEngine, make_pull: MakePull, tmp_path: Path, allowed: dict[str, str], want: ExitCode
) -> None:
    request = make_pull(build_engine(plugins=("ab" * 32,)))
    code, report = pull(request, tmp_path, **allowed)
    assert code == want
    assert (report.failure.reason if report.failure else "") == ("" if want is ExitCode.OK else "PluginNotAllowed")
    assert (tmp_path / "pod/engines" / SERVE_REQUEST_FILE).exists() is (want is ExitCode.OK)
