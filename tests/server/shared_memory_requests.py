"""Requests with tensors in shared memory, and what comes of them."""

from multiprocessing.shared_memory import SharedMemory
from typing import Any

import grpc
import numpy as np
import pytest

from enginesmith_contract.protos import inference_pb2 as pb

Client = Any  # the fixtures' own type

A = np.arange(8, dtype=np.float32).reshape(2, 4)


def register(client: Client, name: str, key: str, size: int, offset: int = 0) -> None:
    request = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=offset, byte_size=size)
    client.call("SystemSharedMemoryRegister", request)


def place_in(region: str, size: int, offset: int = 0) -> dict[str, pb.InferParameter]:
    return {
        "shared_memory_region": pb.InferParameter(string_param=region),
        "shared_memory_byte_size": pb.InferParameter(int64_param=size),
        "shared_memory_offset": pb.InferParameter(int64_param=offset),
    }


def shared_input(name: str, values: np.ndarray, datatype: str, **fields: Any) -> pb.ModelInferRequest.InferInputTensor:
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=values.shape, **fields)


def shared_adder_request(region: str = "block", **place: int) -> pb.ModelInferRequest:
    """Return a request with `a` in shared memory and `b` in the message."""
    return pb.ModelInferRequest(
        model_name="adder",
        inputs=[
            shared_input("a", A, "FP32", parameters=place_in(region, **{"size": A.nbytes, **place})),
            shared_input("b", A, "FP32"),
        ],
        raw_input_contents=[np.ones_like(A).tobytes()],
    )


def refusal(client: Client, request: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(request)
    return caught.value.code(), caught.value.details()


def content_of(block: SharedMemory) -> memoryview:
    assert block.buf is not None
    return block.buf


def floats(content: bytes | memoryview) -> list[float]:
    values: list[float] = np.frombuffer(content, np.float32).tolist()
    return values
