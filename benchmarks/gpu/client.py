"""One client process: a raw stub that sends one prepared message over and over, as a worker.

Usage: python -m benchmarks.gpu.client ADDRESS MESSAGE_FILE [--method NAME]
       python -m benchmarks.gpu.client ADDRESS MESSAGE_FILE --device-memory IN_BYTES,OUT_BYTES --region NAME

With `--device-memory` the process allocates both tensors on the GPU and registers them as shared memory regions NAME-in
and NAME-out, which its message names: no tensor moves through the connection.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import grpc
from benchmarks.gpu.workers import Turns, serve_turns

from enginesmith_contract.protos import inference_pb2 as pb

__all__ = ["METHOD"]

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_REGISTER = "/inference.GRPCInferenceService/CudaSharedMemoryRegister"
_LIMIT = 256 << 20


def _allocate(size: int) -> tuple[Any, bytes]:
    """Return device memory and its handle for other processes."""
    from cuda.bindings import runtime  # noqa: PLC0415 - only where there is a GPU

    error, address = runtime.cudaMalloc(size)
    assert int(error) == 0, error
    (error,) = runtime.cudaMemset(address, 0, size)
    assert int(error) == 0, error
    error, handle = runtime.cudaIpcGetMemHandle(address)
    assert int(error) == 0, error
    return address, bytes(handle.reserved)


def _register(channel: grpc.Channel, name: str, size: int) -> Any:  # noqa: ANN401 - the library has no types
    memory, handle = _allocate(size)
    request = pb.CudaSharedMemoryRegisterRequest(name=name, raw_handle=handle, device_id=0, byte_size=size)
    channel.unary_unary(_REGISTER)(request.SerializeToString())
    return memory


def main() -> None:
    """Serve turns of one connection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("message", type=Path)
    parser.add_argument("--method", default=METHOD)
    parser.add_argument("--device-memory")
    parser.add_argument("--region", default="")
    arguments = parser.parse_args()
    options = [("grpc.max_receive_message_length", _LIMIT), ("grpc.max_send_message_length", _LIMIT)]
    message = arguments.message.read_bytes()
    with grpc.insecure_channel(arguments.address, options=options) as channel:
        kept = []
        if arguments.device_memory:
            for suffix, size in zip(("in", "out"), arguments.device_memory.split(","), strict=True):
                kept.append(_register(channel, f"{arguments.region}-{suffix}", int(size)))
        call = channel.unary_unary(arguments.method)

        def turns(seconds: float) -> Turns:
            clock, took = time.perf_counter, []
            stop = clock() + seconds
            while (begun := clock()) < stop:
                call(message)
                took.append(clock() - begun)
            return Turns.of(took)

        serve_turns(turns)


if __name__ == "__main__":
    main()
