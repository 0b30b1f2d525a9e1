"""Requests that come again with other tensors are not parsed again, and are answered as if they were."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.server.conftest import infer_locally, serve_request
from tests.server.engine_store import EngineStore

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.loading import Loading, load_model
from enginesmith_runtime.server.protocol.infer import Inference, InferenceLimits
from enginesmith_runtime.server.protocol.plan_cache import PlanCache
from enginesmith_runtime.server.protocol.request_plan import RequestPlan
from enginesmith_runtime.server.protocol.wire import split_request
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.transport.interface import Answer, CallContext

Outcome = Answer | ProtocolError
LoadModel = Callable[[onnx.GraphProto], Repository]
MakeRequest = Callable[..., pb.ModelInferRequest]

_MANY = 600
"""More requests of one length than the cache keeps."""


@pytest.fixture
def load_model_of(engine_store: EngineStore, tmp_path: Path) -> Iterator[LoadModel]:
    """Return how to load a graph as a model of its name; the repository has nothing else."""
    with ExitStack() as stack:
        yield partial(_load, engine_store, tmp_path, stack)


def _load(store: EngineStore, folder: Path, stack: ExitStack, graph: onnx.GraphProto) -> Repository:
    path = folder / f"{graph.name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    (served,) = serve_request(store, {graph.name: store.publish(model=path)}).models
    model = load_model(served, Loading(folder=folder / "loaded", queue_limit=8, reporter=SilentReporter()))
    stack.callback(model.pool.close, 1.0)
    repository = Repository([served])
    repository.make_ready(model)
    return repository


def _said(outcome: Outcome) -> object:
    return outcome.body if isinstance(outcome, Answer) else (outcome.code, outcome.message)


def _with_values(request: pb.ModelInferRequest, first: float) -> bytes:
    other = pb.ModelInferRequest()
    other.CopyFrom(request)
    other.raw_input_contents[0] = np.full(8, first, np.float32).tobytes()
    return other.SerializeToString()


def test_repeated_requests_get_the_answers_of_their_own_values(
    local_repository: Repository, adder_request: MakeRequest
) -> None:
    infer = infer_locally(local_repository)
    for value in range(5):
        outcome = infer(_with_values(adder_request(), float(value)))
        assert isinstance(outcome, Answer)
        content, _ = pb.ModelInferResponse.FromString(outcome.body).raw_output_contents
        assert np.frombuffer(content, np.float32).tolist() == [value + 1.0] * 8


def test_another_byte_anywhere_is_another_request(local_repository: Repository, adder_request: MakeRequest) -> None:
    _compare_changed_bytes(local_repository, adder_request().SerializeToString())


def _compare_changed_bytes(local_repository: Repository, message: bytes) -> None:
    infer = infer_locally(local_repository)
    for _ in range(3):
        assert isinstance(infer(message), Answer)
    for position in range(len(message)):
        for change in (1, 0x80):
            other = bytearray(message)
            other[position] ^= change
            expected = infer_locally(local_repository)(bytes(other))
            assert _said(infer(bytes(other))) == _said(expected), (position, change)


def test_a_message_that_ends_with_something_else_than_tensors_is_repeatable(
    local_repository: Repository, adder_request: MakeRequest
) -> None:
    request = adder_request()
    contents = list(request.raw_input_contents)
    del request.raw_input_contents[:]
    raw = pb.ModelInferRequest(raw_input_contents=contents).SerializeToString()
    infer = infer_locally(local_repository)
    answers = [infer(raw + request.SerializeToString()) for _ in range(4)]
    assert all(isinstance(answer, Answer) for answer in answers)
    assert len({_said(answer) for answer in answers}) == 1


def test_many_kinds_of_one_length_are_told_apart(local_repository: Repository, adder_request: MakeRequest) -> None:
    infer = infer_locally(local_repository)
    for _ in range(2):
        for number in range(_MANY):
            request = adder_request()
            request.parameters["mark"].string_param = f"{number:04}"
            assert isinstance(infer(request.SerializeToString()), Answer)


def test_values_are_checked_each_time(load_model_of: LoadModel) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.BOOL, [4]) for name in ("x", "y")]
    infer = infer_locally(
        load_model_of(helper.make_graph([helper.make_node("Not", ["x"], ["y"])], "not", ends[:1], ends[1:]))
    )
    request = pb.ModelInferRequest(model_name="not", raw_input_contents=[b"\x00\x01\x00\x01"])
    request.inputs.add(name="x", datatype="BOOL", shape=[4])
    for _ in range(3):
        assert isinstance(infer(request), Answer)
    request.raw_input_contents[0] = b"\x00\x01\x00\x02"
    outcome = infer(request)
    assert isinstance(outcome, ProtocolError)
    assert outcome.message == "input 'x': BOOL contents hold a byte that is neither 0 nor 1"


@pytest.mark.parametrize(("operator", "datatype"), [("Neg", "FP32"), ("Not", "BOOL")])
def test_a_repeated_request_is_read_briefly_unless_its_values_are_checked(
    load_model_of: LoadModel, operator: str, datatype: str
) -> None:
    brief = datatype != "BOOL"
    kind = TensorProto.FLOAT if datatype == "FP32" else TensorProto.BOOL
    ends = [helper.make_tensor_value_info(name, kind, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], operator, ends[:1], ends[1:])
    inference = Inference(load_model_of(graph), InferenceLimits(max_message_bytes=1 << 20), None, lambda _: None)
    request = pb.ModelInferRequest(model_name=operator, raw_input_contents=[bytes(16 if brief else 4)])
    request.inputs.add(name="x", datatype=datatype, shape=[4])
    message = request.SerializeToString()
    assert inference.brief(message) is None
    answers: list[Outcome] = []
    for _ in range(2):
        inference.infer(message, CallContext(may_run_here=True), answers.append)
    handle = inference.brief(message)
    assert (handle is not None) is brief
    if handle is not None:
        handle(message, CallContext(may_run_here=True), answers.append)
    assert len({_said(answer) for answer in answers}) == 1


def test_a_large_answer_comes_in_parts_and_reads_as_one(
    local_repository: Repository, adder_request: MakeRequest, load_model_of: LoadModel
) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1 << 15]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "negate", ends[:1], ends[1:])
    infer = infer_locally(load_model_of(graph))
    values = np.arange(1 << 15, dtype=np.float32)
    request = pb.ModelInferRequest(model_name="negate", raw_input_contents=[values.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=values.shape)
    large = infer(request)
    assert isinstance(large, Answer)
    assert isinstance(large.content, tuple)
    (content,) = pb.ModelInferResponse.FromString(large.body).raw_output_contents
    assert content == (-values).tobytes()
    assert large.size == len(large.body)
    small = infer_locally(local_repository)(adder_request())
    assert isinstance(small, Answer)
    assert isinstance(small.content, bytes)


def test_requests_that_differ_in_id_and_values_have_one_layout(
    local_repository: Repository, adder_request: MakeRequest
) -> None:
    first = _with_values(adder_request(id="id-001"), 1.0)
    parts, plans = split_request(first), PlanCache()
    model = local_repository.find_ready("adder", "")
    plan = RequestPlan(pb.ModelInferRequest.FromString(parts.head), model, raw=True, streamed=False)
    plans.keep_layout(parts, plan, first)
    for value, request_id in enumerate(("id-001", "id-104", "\x00\x7f ~ \n")):
        other = _with_values(adder_request(id=request_id), float(value))
        layout = plans.find(other)
        assert layout is not None
        assert pb.ModelInferResponse.FromString(layout.read_id(other)).id == request_id
        assert layout.read_inputs(other)["a"].ravel().tolist() == [value] * 8
    assert plans.find(first.replace(b"id-001", "größ".encode())) is None


@pytest.mark.parametrize("request_id", ["", "7", "i" * 200, "i" * 20_000, "größe", "数" * 50])
@pytest.mark.parametrize("options", [{}, {"parameters": {"timings": pb.InferParameter(bool_param=True)}}])
def test_an_answer_has_the_id_of_its_request(
    local_repository: Repository, adder_request: MakeRequest, request_id: str, options: dict[str, object]
) -> None:
    infer = infer_locally(local_repository)
    for message in (adder_request(id=request_id, **options), adder_request(**options)) * 3:
        outcome = infer(message)
        assert isinstance(outcome, Answer)
        assert pb.ModelInferResponse.FromString(outcome.body).id == message.id


def test_an_id_that_is_no_text_is_refused_and_the_last_of_two_counts(
    local_repository: Repository, adder_request: MakeRequest
) -> None:
    infer = infer_locally(local_repository)
    good = adder_request(id="good").SerializeToString()
    for _ in range(3):
        assert isinstance(infer(good), Answer)
        outcome = infer(good.replace(b"good", b"\xff\xfe\xfd\xfc"))
        assert isinstance(outcome, ProtocolError)
        assert "no ModelInferRequest" in outcome.message
        twice = infer(pb.ModelInferRequest(id="first").SerializeToString() + good)
        assert isinstance(twice, Answer)
        assert pb.ModelInferResponse.FromString(twice.body).id == "good"


def test_another_byte_anywhere_in_a_request_with_an_id_is_another_request(
    local_repository: Repository, adder_request: MakeRequest
) -> None:
    _compare_changed_bytes(local_repository, adder_request(id="identity").SerializeToString())
