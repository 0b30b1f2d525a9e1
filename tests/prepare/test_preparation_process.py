"""A preparation as a pod's process: what it is told, what it reports, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from enginesmith_contract.backends import Backend
from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import ModelError
from enginesmith_contract.exit_codes import ExitCode
from enginesmith_contract.keys import EngineCandidate, engine_key
from enginesmith_contract.preparation import ModelSource, PreparationRequest
from enginesmith_contract.preparation_job import PreparationJobRequest, PreparationReport
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.store_layout import preparation_pointer
from enginesmith_contract.tensors import ModelFacts
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.engines.registry import installed_toolchains
from enginesmith_runtime.prepare.report import encode_report, failure_report
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.open import open_store

MakeModel = Callable[..., Path]
RunRestricted = Callable[..., "subprocess.Popen[str]"]
LIMIT_SECONDS = 600


@pytest.fixture
def model(make_model: MakeModel) -> Path:
    weights = np.ones((4, 4), dtype=np.float32)
    return make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs={"x": (TensorProto.FLOAT, ["n", 4])},
        outputs={"y": (TensorProto.FLOAT, ["n", 4])},
        weights={"w": weights},
    )


@pytest.fixture
def request_of(tmp_path: Path, model: Path) -> Callable[..., PreparationJobRequest]:
    """Makes a request for the model, or for another address: `request_of(uri, candidates=...)`."""

    def make(uri: str = "", candidates: tuple[EngineCandidate, ...] = (), rows: int = 8) -> PreparationJobRequest:
        profile = Profile(inputs={"x": ShapeRange(min=(1, 4), opt=(2, 4), max=(rows, 4))})
        preparation = PreparationRequest(source=ModelSource(uri=uri or str(model)), profiles=(profile,))
        return PreparationJobRequest(
            preparation=preparation, store=(tmp_path / "store").as_uri(), candidates=candidates
        )

    return make


def run(request: str, tmp_path: Path, **variables: str) -> tuple[int, PreparationReport, str]:
    last_word = tmp_path / "termination-log"
    run = subprocess.run(
        [sys.executable, "-m", "enginesmith_runtime.prepare"],
        env={
            "ENGINESMITH_PREPARATION_REQUEST": request,
            "ENGINESMITH_TERMINATION_LOG": str(last_word),
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(tmp_path),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    return run.returncode, PreparationReport.from_json(last_word.read_bytes()), run.stderr


def candidate() -> EngineCandidate:
    toolchain = next(one for one in installed_toolchains() if one.backend is Backend.ONNXRUNTIME)
    return EngineCandidate(
        backend=toolchain.backend,
        backend_version=toolchain.version,
        cuda=toolchain.cuda,
        provider=toolchain.provider,
        gpu_product="NVIDIA-L4",
    )


@pytest.mark.slow
def test_it_prepares_as_a_restricted_pod_and_tells_which_engines_the_store_has(
    request_of: Callable[..., PreparationJobRequest], tmp_path: Path, run_restricted: RunRestricted
) -> None:
    there = candidate()
    absent = there.model_copy(update={"gpu_product": "NVIDIA-A100-SXM4-40GB"})
    request = request_of(candidates=(there, absent))
    variables = {
        "ENGINESMITH_PREPARATION_REQUEST": request.to_json().decode(),
        "ENGINESMITH_TERMINATION_LOG": str(tmp_path / "termination-log"),
    }

    def report_of_a_run() -> PreparationReport:
        process = run_restricted(tmp_path, "enginesmith_runtime.prepare", variables)
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == ExitCode.OK, errors
        return PreparationReport.from_json((tmp_path / "termination-log").read_bytes())

    first = report_of_a_run()
    assert first.preparation_key is not None
    assert first.failure is None
    assert first.stored_engines == {}
    assert first.max_batch_size == 8
    assert first.facts is not None
    assert [tensor.name for tensor in first.facts.inputs] == ["x"]
    assert first.size_bytes == (tmp_path / "model.onnx").stat().st_size
    store = open_store(request.store)
    assert store.read_pointer(preparation_pointer(first.preparation_key)) is not None

    inputs = there.key_inputs(first.preparation_key)
    toolchain = next(one for one in installed_toolchains() if one.backend is Backend.ONNXRUNTIME)
    built = build(
        BuildRequest(engine_key=engine_key(inputs), key_inputs=inputs, store=request.store, toolchain=toolchain),
        tmp_path,
        SilentReporter(),
    )
    second = report_of_a_run()
    assert second.preparation_key == first.preparation_key
    assert second.stored_engines == {engine_key(inputs): built.engine_digest}
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "want_code", "want_reason"),
    [
        ({"uri": "/no/such/model.onnx"}, ExitCode.SOURCE_FAILED, "NotFound"),
        ({"uri": "pvc://claim/../model.onnx"}, ExitCode.SOURCE_FAILED, "PathEscapes"),
        ({"uri": "pvc://claim/model.onnx"}, ExitCode.SOURCE_FAILED, "NotFound"),
        ({"rows": 1}, ExitCode.SPEC_INVALID, ""),
    ],
    ids=["no model", "a path out of its claim", "no file in its claim", "a profile whose max is below its opt"],
)
def test_a_failure_is_reported_with_its_parts(
    request_of: Callable[..., PreparationJobRequest],
    tmp_path: Path,
    change: dict[str, str],
    want_code: ExitCode,
    want_reason: str,
) -> None:
    request = request_of(**change)
    want_digest = sha256((tmp_path / "model.onnx").read_bytes()).hexdigest() if "rows" in change else None
    code, report, errors = run(request.to_json().decode(), tmp_path, ENGINESMITH_CLAIMS="/models")
    assert code == want_code
    assert report.failure is not None
    assert report.failure.exit_code == want_code
    assert report.failure.reason == want_reason or not want_reason
    assert report.failure.what in errors
    assert report.preparation_key is None
    assert report.source_digest == want_digest


@pytest.mark.slow
def test_a_model_in_a_mounted_claim_is_read_there(
    request_of: Callable[..., PreparationJobRequest], tmp_path: Path, model: Path
) -> None:
    claim = tmp_path / "claims" / "models"
    claim.mkdir(parents=True)
    model.rename(claim / "m.onnx")
    request = request_of("pvc://models/m.onnx")
    code, report, errors = run(request.to_json().decode(), tmp_path, ENGINESMITH_CLAIMS=str(tmp_path / "claims"))
    assert code == ExitCode.OK, errors
    assert report.preparation_key is not None


@pytest.mark.parametrize(
    ("request_text", "want_reason"),
    [("", "RequestMissing"), ("/no/such/file", "RequestUnreadable"), ('{"store": 1}', "RequestInvalid")],
)
def test_a_request_that_cannot_be_read_is_said_so(request_text: str, want_reason: str, tmp_path: Path) -> None:
    code, report, _ = run(request_text, tmp_path)
    assert code == ExitCode.SPEC_INVALID
    assert report.failure is not None
    assert report.failure.reason == want_reason


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT_SECONDS)
        yield server


@pytest.mark.slow
def test_the_end_of_the_pod_ends_it_at_once_and_leaves_nothing(
    request_of: Callable[..., PreparationJobRequest], tmp_path: Path, silent_server: socket.socket
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    uri = f"http://127.0.0.1:{silent_server.getsockname()[1]}/model.onnx"
    process = subprocess.Popen(
        [sys.executable, "-m", "enginesmith_runtime.prepare"],
        env={
            "ENGINESMITH_PREPARATION_REQUEST": request_of(uri).to_json().decode(),
            "ENGINESMITH_TERMINATION_LOG": str(tmp_path / "termination-log"),
            "TMPDIR": str(scratch),
        },
        stderr=subprocess.DEVNULL,
    )
    connection, _ = silent_server.accept()
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_SECONDS) == ExitCode.CANCELLED
    connection.close()
    report = PreparationReport.from_json((tmp_path / "termination-log").read_bytes())
    assert report.failure is not None
    assert report.failure.reason == "Cancelled"
    assert list(scratch.iterdir()) == []


def long_report(**changes: object) -> PreparationReport:
    return PreparationReport.model_validate(
        {
            "preparation_key": "0" * 64,
            "source_digest": "1" * 64,
            "warnings": tuple(f"warning {number} ä" for number in range(50)),
            "stored_engines": {f"{number:064x}": "f" * 64 for number in range(10)},
            **changes,
        }
    )


@pytest.fixture
def many_facts(make_model: MakeModel) -> ModelFacts:
    from enginesmith_runtime.prepare.model_file.facts import inspect_model  # noqa: PLC0415 - loads onnx

    count = 60
    path = make_model(
        [helper.make_node("Relu", [f"input_{number}"], [f"output_{number}"]) for number in range(count)],
        inputs={f"input_{number}": (TensorProto.FLOAT, [1, 4]) for number in range(count)},
        outputs={f"output_{number}": (TensorProto.FLOAT, [1, 4]) for number in range(count)},
    )
    return inspect_model(path)


def test_a_report_that_fits_stays_whole() -> None:
    report = long_report()
    assert PreparationReport.from_json(encode_report(report)) == report


def test_warnings_give_way_first_and_as_few_as_needed() -> None:
    report = long_report(warnings=tuple(f"warning {number} ä" * 10 for number in range(50)))
    document = encode_report(report)
    read = PreparationReport.from_json(document)
    assert len(document) <= 4096
    assert 0 < len(read.warnings) < 50
    assert len(document) > 4096 - 200
    assert read.stored_engines == report.stored_engines


def test_facts_are_whole_or_absent_and_engines_give_way_after_them(many_facts: ModelFacts) -> None:
    report = long_report(facts=many_facts, stored_engines={f"{number:064x}": "f" * 64 for number in range(100)})
    document = encode_report(report)
    read = PreparationReport.from_json(document)
    assert len(document) <= 4096
    assert read.warnings == ()
    assert read.facts is None
    assert len(read.stored_engines) + read.omitted_engines == 100
    assert read.stored_engines.items() <= report.stored_engines.items()
    assert read.preparation_key == report.preparation_key


def test_a_long_failure_is_cut_at_a_character_and_keeps_its_reason() -> None:
    error = ModelError("不好" * 3000, where="wo\udcff", why="warum" * 2000, remedy="tu", reason="Bad")
    document = encode_report(failure_report(error))
    assert len(document) <= 4096
    failure = json.loads(document)["failure"]
    assert failure["reason"] == "Bad"
    assert failure["what"].startswith("不好")
    assert failure["remedy"] == "tu"
    assert failure["exitCode"] == ExitCode.MODEL_INVALID
