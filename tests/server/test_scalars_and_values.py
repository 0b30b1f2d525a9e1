"""Tensors of rank 0, tensors without elements, and values of inputs that hold sizes, on every way to the server."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.server.conftest import SERVICE, Client, RunningServer, StartServer
from tests.server.engine_store import EngineStore, Publication
from tests.server.onnx_models import DTYPES

from enginesmith_contract.profiles import Profile, ShapeRange, ValueRange
from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.tensors import DType
from enginesmith_runtime.server.protocol.tensor_decoding import TYPED_FIELDS

Infer = Callable[[pb.ModelInferRequest], pb.ModelInferResponse]


def _save(folder: Path, name: str, graph: onnx.GraphProto) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _scalars(dtypes: Collection[DType]) -> onnx.GraphProto:
    """Return a graph that hands on one tensor of rank 0 of each datatype."""
    names = {dtype.value.lower(): kind for kind, dtype in DTYPES.items() if dtype in dtypes}
    return helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
        "scalars",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in names.items()],
        [helper.make_tensor_value_info(f"{name}_out", kind, []) for name, kind in names.items()],
    )


def _top() -> onnx.GraphProto:
    """Return a graph that gives the k largest of each row, and where a row has values above 0."""
    return helper.make_graph(
        [
            helper.make_node("TopK", ["x", "k"], ["v", "i"], axis=1),
            helper.make_node("Relu", ["x"], ["above"]),
            helper.make_node("NonZero", ["above"], ["places"]),
        ],
        "top",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 10]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", "k"]),
            helper.make_tensor_value_info("places", TensorProto.INT64, [2, "hits"]),
        ],
    )


def _top_profile(name: str, least: int, most: int) -> Profile:
    values = ValueRange(min=(least,), opt=(least,), max=(most,))
    return Profile(
        name=name,
        inputs={
            "x": ShapeRange(min=(0, 10), opt=(2, 10), max=(4, 10)),
            "k": ShapeRange(min=(1,), opt=(1,), max=(1,), values=values),
        },
    )


@pytest.fixture(scope="module")
def keys(engine_store: EngineStore, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("models")
    profiles = (_top_profile("few", 1, 3), _top_profile("many", 4, 6))
    return {
        "scalars": engine_store.publish(Publication(model=_save(folder, "scalars", _scalars(DTYPES.values())))),
        "typed": engine_store.publish(Publication(model=_save(folder, "typed", _scalars(TYPED_FIELDS)))),
        "top": engine_store.publish(Publication(model=_save(folder, "top", _top()), profiles=profiles)),
    }


@pytest.fixture(scope="module", params=[0, 1], ids=["alone", "front end"])
def server(request: pytest.FixtureRequest, start_module_server: StartServer, keys: Mapping[str, str]) -> RunningServer:
    return start_module_server(keys, front_ends=request.param)


@pytest.fixture(params=["call", "stream"])
def infer(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Infer]:
    """Return ModelInfer, or a ModelStreamInfer of one request; both raise grpc.RpcError."""
    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(
            f"{SERVICE}/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )

        def streamed(message: pb.ModelInferRequest) -> pb.ModelInferResponse:
            (answer,) = stream(iter([message]))
            if answer.error_message:
                raise ValueError(answer.error_message)
            response: pb.ModelInferResponse = answer.infer_response
            return response

        def called(message: pb.ModelInferRequest) -> pb.ModelInferResponse:
            try:
                return Client(channel).infer(message)
            except grpc.RpcError as error:
                raise ValueError(f"{error.code().name}: {error.details()}") from error

        yield streamed if request.param == "stream" else called


def _input(name: str, dtype: DType, shape: tuple[int, ...]) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=dtype.value, shape=shape)


def _scalar_request(*, typed: bool) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="typed" if typed else "scalars")
    for dtype in TYPED_FIELDS if typed else DTYPES.values():
        tensor = _input(dtype.value.lower(), dtype, ())
        if typed:
            one = {DType.BYTES: b"text", DType.BOOL: True}.get(dtype, 1)
            getattr(tensor.contents, TYPED_FIELDS[dtype]).append(one)
        else:
            text = b"\4\0\0\0text"
            request.raw_input_contents.append(text if dtype is DType.BYTES else np.ones((), dtype.numpy).tobytes())
        request.inputs.append(tensor)
    return request


def _top_request(k: int, rows: int = 2, *, typed: bool = False) -> pb.ModelInferRequest:
    x = -np.ones((rows, 10), np.float32)
    request = pb.ModelInferRequest(
        model_name="top", inputs=[_input("x", DType.FP32, x.shape), _input("k", DType.INT64, (1,))]
    )
    if typed:
        request.inputs[0].contents.fp32_contents.extend(x.ravel().tolist())
        request.inputs[1].contents.int64_contents.append(k)
    else:
        request.raw_input_contents.extend([x.tobytes(), np.array([k], np.int64).tobytes()])
    return request


def test_a_scalar_of_every_datatype_is_answered_with_rank_0(infer: Infer) -> None:
    request = _scalar_request(typed=False)
    answer = infer(request)
    assert all(list(output.shape) == [] for output in answer.outputs)
    assert list(answer.raw_output_contents) == list(request.raw_input_contents)


def test_a_scalar_in_typed_contents_is_answered_with_rank_0(infer: Infer) -> None:
    request = _scalar_request(typed=True)
    answer = infer(request)
    assert all(list(output.shape) == [] for output in answer.outputs)
    sent = {f"{tensor.name}_out": tensor.contents for tensor in request.inputs}
    assert {output.name: output.contents for output in answer.outputs} == sent


@pytest.mark.parametrize("typed", [False, True])
def test_a_batch_of_no_rows_and_an_output_without_elements_are_answered(infer: Infer, typed: bool) -> None:  # noqa: FBT001
    empty = infer(_top_request(2, rows=0, typed=typed))
    assert [list(output.shape) for output in empty.outputs] == [[0, 2], [2, 0]]
    none_above = infer(_top_request(2, typed=typed))
    assert [list(output.shape) for output in none_above.outputs] == [[2, 2], [2, 0]]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("k", [1, 3, 4, 6])
def test_values_within_a_profile_are_answered(infer: Infer, k: int, typed: bool) -> None:  # noqa: FBT001
    answer = infer(_top_request(k, typed=typed))
    assert list(answer.outputs[0].shape) == [2, k]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(
    ("k", "nearest"), [(0, "'few', which takes 1 to 3"), (-1, "'few'"), (7, "'many', which takes 4 to 6")]
)
def test_a_value_outside_every_profile_is_refused_with_tensor_element_value_and_range(
    infer: Infer,
    k: int,
    nearest: str,
    typed: bool,  # noqa: FBT001
) -> None:
    with pytest.raises(ValueError, match=rf"'k': element 0 is {k}, .*{nearest}"):
        infer(_top_request(k, typed=typed))


def test_the_metadata_tells_the_range_of_values(server: RunningServer, connect: Callable[[str], Client]) -> None:
    metadata = connect(server.address).call("ModelMetadata", pb.ModelMetadataRequest(name="top"))
    parameters = {name: value.string_param for name, value in metadata.inputs[1].parameters.items()}
    assert {name: json.loads(text) for name, text in parameters.items()} == {
        "values.few": {"min": [1], "opt": [1], "max": [3]},
        "values.many": {"min": [4], "opt": [4], "max": [6]},
    }
