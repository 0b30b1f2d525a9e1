"""Plain grpcio and ONNX Runtime: what one would write in an afternoon.

Usage: python -m benchmarks.serving.peers.grpcio_server PORT NAME MODEL.onnx threads|aio [best]

`threads`: the library's thread-pool server with two threads. `aio`: its asyncio server. `best`: raw tensors are taken
out of the request's bytes and put before the answer's without protobuf's copies. Shared memory is read and written as
a file; with `best` it is mapped, and ONNX Runtime reads and writes it in place.
"""

import asyncio
import mmap
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from benchmarks.serving.client import SHARED_MEMORY
from benchmarks.serving.models import open_session
from typing_extensions import override

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.server.protocol.wire import join_raw_outputs, split_request

_SERVICE = "/inference.GRPCInferenceService/"
_LARGEST = 64 << 20
_Tensor = pb.ModelInferRequest.InferInputTensor | pb.ModelInferRequest.InferRequestedOutputTensor


class Infer:
    """Answers ModelInfer and registers shared memory; bytes in, bytes out."""

    def __init__(self, model: str, *, best: bool) -> None:
        self._session = open_session(model)
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self._best = best
        self._files: dict[str, int] = {}
        self._maps: dict[str, memoryview] = {}

    def register(self, data: bytes) -> bytes:
        """Handle SystemSharedMemoryRegister."""
        request = pb.SystemSharedMemoryRegisterRequest.FromString(data)
        file = os.open(SHARED_MEMORY / request.key.lstrip("/"), os.O_RDWR)
        self._files[request.name] = file
        self._maps[request.name] = memoryview(mmap.mmap(file, 0))
        return pb.SystemSharedMemoryRegisterResponse().SerializeToString()

    def infer(self, data: bytes) -> bytes:
        """Handle ModelInfer."""
        if self._best:
            head, raw, _ = split_request(data)
            request = pb.ModelInferRequest.FromString(head)
        else:
            request = pb.ModelInferRequest.FromString(data)
            raw = [memoryview(content) for content in request.raw_input_contents]
        shape = tuple(request.inputs[0].shape)
        if not raw:
            return self._infer_shared(request, shape)
        array = np.frombuffer(raw[0], np.float32).reshape(shape)
        (result,) = self._session.run([self._output], {self._input: array})
        response = pb.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name=self._output, datatype="FP32", shape=result.shape)
        if self._best:
            return join_raw_outputs(response.SerializeToString(), [result.reshape(-1).view(np.uint8).data])
        response.raw_output_contents.append(result.tobytes())
        return response.SerializeToString()

    def _infer_shared(self, request: pb.ModelInferRequest, shape: tuple[int, ...]) -> bytes:
        if self._best:
            return self._infer_bound(request, shape)
        region, begin, size = _place(request.inputs[0])
        array = np.frombuffer(os.pread(self._files[region], size, begin), np.float32).reshape(shape)
        (result,) = self._session.run([self._output], {self._input: array})
        region, begin, _ = _place(request.outputs[0])
        os.pwrite(self._files[region], result, begin)
        return self._head(request, result.shape)

    def _infer_bound(self, request: pb.ModelInferRequest, shape: tuple[int, ...]) -> bytes:
        binding = self._session.io_binding()
        for tensor, bind in ((request.inputs[0], binding.bind_input), (request.outputs[0], binding.bind_output)):
            region, begin, size = _place(tensor)
            array = np.frombuffer(self._maps[region][begin : begin + size], np.float32).reshape(shape)
            place = array.__array_interface__["data"][0]
            bind(tensor.name, "cpu", 0, np.float32, list(shape), place)
        self._session.run_with_iobinding(binding)
        return self._head(request, shape)

    def _head(self, request: pb.ModelInferRequest, shape: tuple[int, ...]) -> bytes:
        response = pb.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name=self._output, datatype="FP32", shape=shape)
        return response.SerializeToString()


def _place(tensor: _Tensor) -> tuple[str, int, int]:
    parameters = tensor.parameters
    return (
        parameters["shared_memory_region"].string_param,
        parameters["shared_memory_offset"].int64_param,
        parameters["shared_memory_byte_size"].int64_param,
    )


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
    def __init__(self, methods: dict[str, Callable[..., Any]]) -> None:
        self._methods = {
            _SERVICE + name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()
        }

    @override
    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)


def _serve(port: str, infer: Infer) -> None:
    handlers = _Handlers(
        {
            "ModelInfer": lambda data, _: infer.infer(data),
            "SystemSharedMemoryRegister": lambda data, _: infer.register(data),
        }
    )
    server = grpc.server(ThreadPoolExecutor(2), handlers=(handlers,), options=_options())
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def _serve_aio(port: str, infer: Infer) -> None:
    async def run(data: bytes, _: object) -> bytes:
        return infer.infer(data)

    async def register(data: bytes, _: object) -> bytes:
        return infer.register(data)

    handlers = _Handlers({"ModelInfer": run, "SystemSharedMemoryRegister": register})
    server = grpc.aio.server(handlers=(handlers,), options=_options())
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def _options() -> list[tuple[str, int]]:
    return [("grpc.max_receive_message_length", _LARGEST), ("grpc.max_send_message_length", _LARGEST)]


if __name__ == "__main__":
    where, _, path, kind, *more = sys.argv[1:]
    served = Infer(path, best=bool(more))
    if kind == "aio":
        asyncio.run(_serve_aio(where, served))
    else:
        _serve(where, served)
