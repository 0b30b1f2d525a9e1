"""The smallest possible server: only grpcio and ONNX Runtime, for one model.

Usage: python -m benchmarks.bare_server MODEL.onnx THREADS; prints its address.

It has no checks, no counters and one input, so the extra cost of a product's server is the cost of its features.
It runs on the same server of grpcio as the product, the one with a thread pool, and a thread runs what it received.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import onnxruntime

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.engines.onnxruntime.options import session_options

_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input, self._output = session.get_inputs()[0].name, session.get_outputs()[0].name
        self._infer = grpc.unary_unary_rpc_method_handler(self._run)

    def service(self, handler_call_details: Any) -> Any:  # noqa: ANN401 - the library has no types
        return self._infer if handler_call_details.method == _METHOD else None

    def _run(self, data: bytes, _context: object) -> bytes:
        request = pb.ModelInferRequest.FromString(data)
        array = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
        (result,) = self._session.run([self._output], {self._input: array})
        response = pb.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name=self._output, datatype="FP32", shape=result.shape)
        response.raw_output_contents.append(result.tobytes())
        return response.SerializeToString()


def serve(model: str, threads: int) -> None:
    """Serve until killed."""
    session = onnxruntime.InferenceSession(model, session_options(onnxruntime, {}))
    server = grpc.server(
        ThreadPoolExecutor(threads),
        handlers=(_Handlers(session),),
        options=[("grpc.max_receive_message_length", 64 << 20)],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
