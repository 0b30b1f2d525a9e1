"""Every record that crosses a process comes back as it went, and refuses what it does not know."""

import json
from collections.abc import Iterator
from math import inf, nan
from typing import get_args

import pytest
from pydantic import ValidationError

from enginesmith_contract.backends import Backend, Hardware, Precision, PrecisionPolicy, Toolchain
from enginesmith_contract.build_request import BuildOptions, BuildRequest, PluginLibrary
from enginesmith_contract.errors import SourceError
from enginesmith_contract.failure import Failure
from enginesmith_contract.keys import EngineCandidate, EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import (
    Advice,
    Batching,
    Exercise,
    ExerciseStatus,
    ModelSource,
    Preparation,
    PreparationRequest,
    ReferenceSet,
)
from enginesmith_contract.preparation_job import PreparationJobRequest, PreparationReport
from enginesmith_contract.preprocess import Preprocess
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.pull_request import PullableEngine, PullRequest, ServingReport
from enginesmith_contract.record import Record
from enginesmith_contract.serve_request import (
    BatchingOptions,
    ModelOptions,
    QueueOptions,
    ServedModel,
    ServeRequest,
    ServerOptions,
)
from enginesmith_contract.store_layout import StoredFile, TimingCachePointer
from enginesmith_contract.tensors import DType, ModelFacts, TensorSpec
from enginesmith_contract.termination import BuildOutcome, TerminationMessage
from enginesmith_contract.verdicts import RuleAnswer, Verdict
from enginesmith_contract.verification import (
    OutputDifference,
    Verification,
    VerificationPolicy,
    VerificationStatus,
)

FILE = StoredFile(path="model.plan", digest="ab" * 32, size_bytes=53_000_000)
SHAPES = ShapeRange(min=(1, 3), opt=(8, 3), max=(32, 3))
PROFILE = Profile(name="größe", inputs={"images": SHAPES})
TENSOR = TensorSpec(name="图像", dtype=DType.FP16, shape=(-1, 3), symbols=("batch", None))
GPU = Hardware(
    product="NVIDIA-H100-80GB-HBM3",
    compute_capability="9.0",
    memory_mib=81559,
    multiprocessors=132,
    driver="580.159.04",
)
TOOLCHAIN = Toolchain(name="trt-10.6", backend=Backend.TENSORRT, version="10.6.0.26", cuda="12.6")
KEY_INPUTS = EngineKeyInputs(
    preparation_key="01" * 32,
    backend=Backend.TENSORRT,
    backend_version="10.6.0.26",
    cuda="12.6",
    gpu_product=GPU.product,
    flags={"optimizationLevel": "5"},
)
REFERENCE = ReferenceSet(profile="größe", point="opt", file=FILE)
MANIFEST = Manifest(
    engine_key=engine_key(KEY_INPUTS),
    key_inputs=KEY_INPUTS,
    source_digest="23" * 32,
    engine_digest=FILE.digest,
    files=(FILE,),
    inputs=(TENSOR,),
    outputs=(TENSOR,),
    profiles=(PROFILE,),
    batching=Batching(proved=True, max_batch_size=32),
    toolchain=TOOLCHAIN,
    hardware=GPU,
    runs_on=("9.0",),
    device_memory_bytes=1 << 33,
    timings=Timings(build_seconds=43.2, verify_seconds=1.5, latency_seconds={"größe": 0.00069}),
    verification=Verification(
        status=VerificationStatus.PASSED,
        limit=1e-2,
        differences=(OutputDifference(output="图像", profile="größe", difference=3.1e-4),),
    ),
    references=(REFERENCE,),
    inspector={"Layers": [{"Name": "conv", "Precision": "HALF", "Tactic": None}], "Bindings": [1, 2.5, True]},
    plugins=(FILE,),
    created_at="2026-01-01T00:00:00Z",
)
PREPARATION = Preparation(
    preparation_key="01" * 32,
    source_digest="23" * 32,
    facts=ModelFacts(inputs=(TENSOR,), outputs=(TENSOR,), opset=17, producer="PaddlePaddle", size_bytes=4_700_000),
    model=(FILE,),
    profiles=(PROFILE,),
    exercises=(Exercise(profile="größe", point="min", status=ExerciseStatus.UNVERIFIED, reason="too large"),),
    references=(REFERENCE,),
    batching=Batching(proved=False, reason="the outputs differ"),
    advice=(Advice(tensorrt="10.6", node="n0", op="NonZero", source="table", message="needs a plugin"),),
    precision=PrecisionPolicy(default=Precision.FP16, keep=("Softmax*",)),
    kept={"Softmax_3": "asked for"},
    warnings=("opset 9 is old",),
)
SERVED = ServedModel(
    name="det",
    target="a100",
    engine_key="45" * 32,
    store="file:///store",
    instances=2,
    batching=BatchingOptions(max_queue_delay_seconds=0.002, preferred_batch_sizes=(4, 8)),
    queue=QueueOptions(timeout_seconds=0.5, priority_levels=3),
)
TERMINATION = TerminationMessage(
    outcome=BuildOutcome.FAILED, exit_code=14, reason="BuildFailed", message='the parser says "nö"', retry=True
)
ERROR = SourceError("the model is not there", where="s3://m/m.onnx", why="404", remedy="check the path", retry=True)
CANDIDATE = EngineCandidate(backend=Backend.TENSORRT, backend_version="10.6.0.26", cuda="12.6", gpu_product=GPU.product)
PREPARATION_REQUEST = PreparationRequest(
    source=ModelSource(uri="file:///m.onnx", options={"region": "eu"}),
    preprocess=(Preprocess(input="x", source="uint8-nhwc", mean=(0.5,), std=(0.25,), scale=1 / 255),),
    profiles=(PROFILE,),
)
PULL = PullRequest(
    store="s3://engines/vision",
    backend=Backend.TENSORRT,
    engines=(
        PullableEngine(engine_key="45" * 32, engine_digest="67" * 32, product=GPU.product, mig_profile="1g.10gb"),
    ),
    model=ModelOptions(name="det", target="a100", instances=2),
    server=ServerOptions(address="[::]:8001", health_address="[::]:8003"),
)
RECORDS: tuple[Record, ...] = (
    MANIFEST,
    PreparationJobRequest(
        preparation=PREPARATION_REQUEST,
        store="s3://engines/vision",
        candidates=(CANDIDATE,),
    ),
    PreparationReport(
        preparation_key="01" * 32,
        source_digest="23" * 32,
        size_bytes=4_700_000,
        max_batch_size=32,
        facts=PREPARATION.facts,
        stored_engines={"45" * 32: "67" * 32},
        warnings=("opset 9 is old",),
    ),
    PreparationReport(failure=Failure.from_error(ERROR)),
    PULL,
    ServingReport(engine_key="45" * 32, product=GPU.product, failure=Failure.from_error(ERROR)),
    PREPARATION,
    PREPARATION_REQUEST,
    BuildRequest(
        engine_key=MANIFEST.engine_key,
        key_inputs=KEY_INPUTS,
        store="s3://engines/vision",
        toolchain=TOOLCHAIN,
        hardware=GPU,
        options=BuildOptions(optimization_level=5, plugins=(PluginLibrary(uri="a.so", sha256="89" * 32),)),
        verification=VerificationPolicy(limit=1e-2),
    ),
    ServeRequest(models=(SERVED,), metrics_address="127.0.0.1:8002"),
    TERMINATION,
    TimingCachePointer(file=FILE),
    RuleAnswer(rule="DriverFloor", verdict=Verdict.NO, found="older", wanted="newer", sources=("cuda-release-notes",)),
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_the_wire_as_it_went(record: Record) -> None:
    wire = record.to_json()
    again = type(record).from_json(wire)
    assert again == record
    assert again.to_json() == wire


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_s_json_is_canonical(record: Record) -> None:
    wire = record.to_json()
    document = json.loads(wire)
    assert wire == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert [name for name in document if "_" in name] == []


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_refuses_a_field_that_it_does_not_know(record: Record) -> None:
    document = json.loads(record.to_json()) | {"surprise": 1}
    with pytest.raises(ValidationError) as caught:
        type(record).from_json(json.dumps(document))
    assert [(error["type"], error["loc"]) for error in caught.value.errors()] == [("extra_forbidden", ("surprise",))]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_frozen(record: Record) -> None:
    name = next(iter(type(record).model_fields))
    with pytest.raises(ValidationError) as caught:
        setattr(record, name, None)
    assert caught.value.errors()[0]["type"] == "frozen_instance"


def _every_record(base: type[Record] = Record) -> Iterator[type[Record]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _every_record(kind)


def test_an_optional_field_defaults_to_none_since_the_wire_leaves_none_out() -> None:
    fields = [(kind.__name__, name, field) for kind in _every_record() for name, field in kind.model_fields.items()]
    optional = [entry for entry in fields if type(None) in get_args(entry[2].annotation)]
    assert len(optional) > 20
    assert [(kind, name) for kind, name, field in optional if not field.is_required() and field.default] == []


def test_json_that_is_cut_off_is_an_error_and_no_default() -> None:
    with pytest.raises(ValidationError) as caught:
        Manifest.from_json(MANIFEST.to_json()[:-20])
    assert caught.value.errors()[0]["type"] == "json_invalid"


@pytest.mark.parametrize(("value", "want_text"), [(inf, "Infinity"), (-inf, "-Infinity"), (nan, "NaN")])
def test_a_number_that_is_not_finite_stays_valid_json(value: float, want_text: str) -> None:
    difference = OutputDifference(output="o", profile="p", difference=value)
    wire = Verification(status=VerificationStatus.FAILED, differences=(difference,)).to_json()
    assert json.loads(wire, parse_constant=pytest.fail)["differences"][0]["difference"] == want_text
    assert repr(Verification.from_json(wire).differences[0].difference) == repr(value)


def test_an_inspector_s_infinity_stays_valid_json() -> None:
    wire = MANIFEST.model_copy(update={"inspector": {"Layers": [{"Scale": inf}]}}).to_json()
    assert json.loads(wire, parse_constant=pytest.fail)["inspector"] == {"Layers": [{"Scale": "Infinity"}]}


@pytest.mark.parametrize("level", [-1, 6])
def test_an_optimization_level_outside_tensorrt_s_scale_is_refused(level: int) -> None:
    with pytest.raises(ValidationError) as caught:
        BuildOptions(optimization_level=level)
    assert caught.value.errors()[0]["loc"] == ("optimization_level",)


@pytest.mark.parametrize(
    ("shape", "want_inside"),
    [((1, 3), True), ((32, 3), True), ((33, 3), False), ((0, 3), False), ((1, 4), False), ((1,), False), ((), False)],
)
def test_a_profile_contains_the_shapes_between_its_ends(shape: tuple[int, ...], *, want_inside: bool) -> None:
    assert SHAPES.contains(shape) is want_inside


def test_a_failure_says_what_its_error_says() -> None:
    failure = Failure.from_json(Failure.from_error(ERROR).to_json())
    assert failure.sentence() == str(ERROR)
    assert (failure.reason, failure.exit_code, failure.retry) == (ERROR.reason, ERROR.exit_code, True)


def test_a_candidate_becomes_the_key_of_the_model_that_was_prepared() -> None:
    inputs = CANDIDATE.key_inputs(KEY_INPUTS.preparation_key)
    assert engine_key(inputs) == engine_key(KEY_INPUTS.model_copy(update={"flags": {}}))


def test_the_server_is_told_of_the_engine_that_was_pulled_into_its_own_store() -> None:
    request = PULL.serve_request("45" * 32)
    (model,) = request.models
    assert (model.name, model.target, model.engine_key, model.store) == ("det", "a100", "45" * 32, "/engines")
    assert (request.address, request.health_address) == ("[::]:8001", "[::]:8003")


def test_the_server_of_a_pod_receives_the_options_of_its_model() -> None:
    options = {"batching": SERVED.batching, "queue": SERVED.queue, "response_cache_bytes": 1 << 20}
    pull = PULL.model_copy(update={"model": PULL.model.model_copy(update=options)})
    (served,) = PullRequest.from_json(pull.to_json()).serve_request("45" * 32).models
    assert (served.batching, served.queue, served.response_cache_bytes) == (SERVED.batching, SERVED.queue, 1 << 20)
