"""The model.py of Triton's Python backend: one ONNX Runtime session, all requests of a batch in one run."""

import json

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """A model with one FP32 input and one FP32 output."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        parameters = json.loads(args["model_config"])["parameters"]
        path = parameters["file"]["string_value"]
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name

    def execute(self, requests: list[object]) -> list[object]:
        """Answer the requests that Triton gives together."""
        arrays = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        (result,) = self._session.run([self._output], {self._input: joined})
        ends = np.cumsum([len(array) for array in arrays])[:-1]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(self._output, np.ascontiguousarray(part))])
            for part in np.split(result, ends)
        ]
