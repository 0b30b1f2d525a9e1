"""The least server that there can be: grpcio and ONNX Runtime with nothing between, for one model.

Usage: python -m benchmarks.bare_server MODEL.onnx INPUT OUTPUT THREADS; prints its address.

It checks nothing, counts nothing and knows one input: what a product's server costs above it is the price of the rest.
It runs on the same event-loop server of grpcio as the product, with inference on `THREADS` worker threads.
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime

from enginesmith_contract.protos import inference_pb2 as pb

_METHOD = "/inference.GRPCInferenceService/ModelInfer"


async def serve(model: str, input_name: str, output_name: str, threads: int) -> None:
    """Serve until killed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    pool = ThreadPoolExecutor(threads)

    def run(data: bytes) -> bytes:
        request = pb.ModelInferRequest.FromString(data)
        array = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
        (result,) = session.run([output_name], {input_name: array})
        response = pb.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name=output_name, datatype="FP32", shape=result.shape)
        response.raw_output_contents.append(result.tobytes())
        return response.SerializeToString()

    async def infer(data: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(pool, run, data)

    class Handlers(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            return grpc.unary_unary_rpc_method_handler(infer) if details.method == _METHOD else None

    server = grpc.aio.server(handlers=(Handlers(),), options=[("grpc.max_receive_message_length", 64 << 20)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
