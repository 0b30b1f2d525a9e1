"""Runs in tritonclient's own environment: sends tensors to engines and prints what came as JSON.

A process of its own, since tritonclient's messages and ours have the same names. What is to be sent comes as JSON:
{"model": NAME, "tensors": FILE.npz, "addresses": ["HOST:PORT", ...]}.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

_PATIENCE_SECONDS = 300.0


class _Listening:
    """The call of the client's stub, which shows an answer's headers to nobody, and the headers of the last answer."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.headers: dict[str, str] = {}

    def __call__(self, **options: Any) -> Any:
        answer, call = self._call.with_call(**options)
        self.headers = dict(call.initial_metadata())
        return answer


def ask(address: str, model: str, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Send one request; returns headers and outputs, or how it was refused."""
    client = triton.InferenceServerClient(address)
    _wait(client)
    client._client_stub.ModelInfer = listening = _Listening(client._client_stub.ModelInfer)  # noqa: SLF001 - see there
    inputs = []
    for name, values in tensors.items():
        tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    try:
        result = client.infer(model, inputs)
    except InferenceServerException as error:
        return {"refusal": f"{error.status()}: {error.message()}"}
    names = [output.name for output in result.get_response().outputs]
    return {"headers": listening.headers, "outputs": {name: result.as_numpy(name).tolist() for name in names}}


def _wait(client: triton.InferenceServerClient) -> None:
    """Wait for a Service that has only just got its first pod: every node's proxy hears of it a little later."""
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < give_up:
        try:
            if client.is_server_ready():
                return
        except InferenceServerException:
            pass
        time.sleep(0.2)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    arrays = dict(np.load(wanted["tensors"]))
    sys.stdout.write(json.dumps([ask(address, wanted["model"], arrays) for address in wanted["addresses"]]))
