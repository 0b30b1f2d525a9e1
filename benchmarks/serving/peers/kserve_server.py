"""KServe's SDK and ONNX Runtime. Runs in an environment of its own.

Usage: python kserve_server.py PORT HTTP_PORT NAME MODEL.onnx
"""

import sys

import kserve
import onnxruntime

_LARGEST = str(64 << 20)


class OnnxModel(kserve.Model):  # type: ignore[misc]  # mypy does not see the library
    """A model with one FP32 input and one FP32 output."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self.ready = True

    async def predict(
        self,
        payload: kserve.InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> kserve.InferResponse:
        """Answer one request."""
        del headers, response_headers
        (result,) = self._session.run([self._output], {self._input: payload.inputs[0].as_numpy()})
        output = kserve.InferOutput(name=self._output, shape=list(result.shape), datatype="FP32")
        output.set_data_from_numpy(result, binary_data=True)
        return kserve.InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    port, http_port, model, file = sys.argv[1:]
    lengths = ["--grpc_max_send_message_length", _LARGEST, "--grpc_max_receive_message_length", _LARGEST]
    kserve.model_server.parser.parse_args(lengths)
    sys.argv[1:] = ["--grpc_port", port, "--http_port", http_port, *lengths]
    kserve.ModelServer(
        http_port=int(http_port), grpc_port=int(port), workers=1, enable_grpc=True, access_log_format=None
    ).start([OnnxModel(model, file)])
