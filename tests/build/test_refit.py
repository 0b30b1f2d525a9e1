"""Weights replaced in place of a build: which engine it starts from, and what happens where it cannot be done."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginesmith_contract.backends import Backend, PrecisionPolicy, Toolchain
from enginesmith_contract.build_request import BuildOptions, BuildRequest
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.preparation import Preparation
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.store_layout import blob_name, engine_pointer
from enginesmith_contract.verification import VerificationStatus
from enginesmith_runtime.build import make_engine as making
from enginesmith_runtime.build.make_engine import make_engine
from enginesmith_runtime.build.manifests import compose_manifest
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.build.refit_bases import find_refit_base, remember_refit_base
from enginesmith_runtime.build.wire import ChildJob
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.store.interface import Store

PrepareModel = Callable[..., Preparation]
MakeRequest = Callable[..., BuildRequest]
SmallModel = Callable[..., Path]
Retrained = tuple[ChildJob, Path]

_FakeRefittingBuilder: Any = runpy.run_path(str(Path(__file__).with_name("fake_refitting_builder.py")))[
    "FakeRefittingBuilder"
]


@pytest.fixture
def retrained(
    small_model: SmallModel, prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path
) -> Retrained:
    """Return a job for a model with the base's structure and other weights, and the path of that model."""
    first = build(make_request(prepare_model(small_model())), work, SilentReporter())
    model = small_model("retrained.onnx", scale=2.0)
    preparation = prepare_model(model)
    for folder in ("engine", "references"):
        (work / folder).mkdir()
    store.get_files((one.file for one in preparation.references), work / "references")
    job = ChildJob(
        request=make_request(preparation),
        preparation=preparation,
        model=str(model),
        output=str(work / "engine"),
        references=str(work / "references"),
        refit_base=first,
        refit_plan=str(store.get_files(first.files, work / "base")),
        answer=str(work / "answer.json"),
    )
    return job, model


def test_an_engine_of_the_same_structure_is_refitted_and_not_built(
    retrained: Retrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, model = retrained
    builder = _FakeRefittingBuilder(model)
    monkeypatch.setattr(making, "builder", lambda _backend: builder)
    result = make_engine(job, SilentReporter(), lambda: False)
    assert builder.calls == ["refit"]
    assert result.refitted_from == job.refit_base.engine_key if job.refit_base else False
    assert (result.verification.status, result.notes) == (VerificationStatus.PASSED, ())
    manifest = compose_manifest(job.request, job.preparation, result, (), created_at="")
    assert manifest.refitted_from == result.refitted_from
    assert manifest.structure_digest == job.preparation.structure_digest is not None


def test_a_refused_refit_ends_in_a_build_that_says_why_and_keeps_nothing_of_it(
    retrained: Retrained, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = retrained
    builder = _FakeRefittingBuilder(None)
    monkeypatch.setattr(making, "builder", lambda _backend: builder)
    result = make_engine(job, SilentReporter(), lambda: False)
    assert builder.calls == ["refit", "build"]
    assert (result.refitted_from, result.verification.status) == (None, VerificationStatus.PASSED)
    assert "weights are missing: w" in result.notes[0]
    assert "half-written" not in result.files


def test_a_refit_that_kept_the_old_weights_is_found_by_the_gate_and_built_anew(
    retrained: Retrained, small_model: SmallModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = retrained
    builder = _FakeRefittingBuilder(small_model("old.onnx"))
    monkeypatch.setattr(making, "builder", lambda _backend: builder)
    result = make_engine(job, SilentReporter(), lambda: False)
    assert builder.calls == ["refit", "build"]
    assert (result.refitted_from, result.verification.status) == (None, VerificationStatus.PASSED)
    assert "its answers differ" in result.notes[0]


def test_the_base_is_an_engine_that_differs_in_weights_alone(
    small_model: SmallModel, prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path
) -> None:
    preparation = prepare_model(small_model())
    built = _pretend_built(build(make_request(preparation), work, SilentReporter()))
    store.create_pointer(engine_pointer(built.engine_key), built.to_json())
    request = _refittable(make_request(preparation))
    remember_refit_base(store, request, preparation, built)

    retrained = prepare_model(small_model("retrained.onnx", scale=2.0))
    found = find_refit_base(store, _refittable(make_request(retrained)), retrained, work / "base")
    assert found is not None
    assert found.manifest == built
    assert found.plan.read_bytes()

    other_profile = Profile(inputs={"x": ShapeRange(min=(1, 4), opt=(2, 4), max=(9, 4))})
    wider = prepare_model(small_model(), other_profile)
    other_request = _refittable(make_request(retrained))
    older = other_request.key_inputs.model_copy(update={"epoch": 1})
    tf32 = retrained.model_copy(update={"precision": PrecisionPolicy(default="tf32")})
    not_asked = other_request.model_copy(update={"options": BuildOptions()})
    assert find_refit_base(store, _refittable(make_request(wider)), wider, work / "a") is None
    assert find_refit_base(store, other_request.model_copy(update={"key_inputs": older}), retrained, work / "b") is None
    assert find_refit_base(store, other_request, tf32, work / "c") is None
    assert find_refit_base(store, not_asked, retrained, work / "d") is None


def test_a_damaged_or_refitted_engine_is_no_base(
    small_model: SmallModel, prepare_model: PrepareModel, make_request: MakeRequest, store: Store, work: Path
) -> None:
    preparation = prepare_model(small_model())
    built = _pretend_built(build(make_request(preparation), work, SilentReporter()))
    store.create_pointer(engine_pointer(built.engine_key), built.to_json())
    request = _refittable(make_request(preparation))
    remember_refit_base(store, request, preparation, built.model_copy(update={"refitted_from": "f" * 64}))
    assert find_refit_base(store, request, preparation, work / "none") is None
    remember_refit_base(store, request, preparation, built)
    blob = Path(store.uri.removeprefix("file://")) / blob_name(built.files[0].digest)
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    assert find_refit_base(store, request, preparation, work / "damaged") is None


def _pretend_built(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"engine_key": "a" * 64})


def _refittable(request: BuildRequest) -> BuildRequest:
    """Return the request as it would be for TensorRT, which alone refits."""
    toolchain = Toolchain(name="tensorrt", backend=Backend.TENSORRT, version="10.6.0", cuda="12")
    return request.model_copy(update={"toolchain": toolchain, "options": BuildOptions(refittable=True)})
