"""Runs in tritonclient's own environment: calls what its HTTP client offers, and prints what came as JSON.

Usage: driver.py HOST:PORT, of a server with `adder` and `echo` that shares memory, or driver.py JSON of a secure one.
"""

import base64
import json
import sys
import uuid
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as system_memory

Seen = dict[str, Any]
A = np.arange(8, dtype=np.float32).reshape(2, 4)


def _inputs(rows: int = 2, *, binary: bool = True) -> list[triton.InferInput]:
    a = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    inputs = []
    for name, values in (("a", a), ("b", np.ones_like(a))):
        tensor = triton.InferInput(name, list(values.shape), "FP32")
        tensor.set_data_from_numpy(values, binary_data=binary)
        inputs.append(tensor)
    return inputs


def _refusal(call: Any, *arguments: Any) -> Seen | None:
    try:
        call(*arguments)
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return None


def _inferences(client: triton.InferenceServerClient) -> Seen:
    seen: Seen = {}
    for binary_in in (True, False):
        for binary_out in (True, False):
            outputs = [triton.InferRequestedOutput("sum", binary_data=binary_out)]
            result = client.infer("adder", _inputs(binary=binary_in), outputs=outputs, request_id="seven")
            seen[f"{binary_in} {binary_out}"] = [result.get_response()["id"], result.as_numpy("sum").tolist()]
    for way in ("gzip", "deflate"):
        result = client.infer(
            "adder", _inputs(32), request_compression_algorithm=way, response_compression_algorithm=way
        )
        seen[way] = float(result.as_numpy("sum").sum())
    handle = client.async_infer("adder", _inputs(), timeout=10_000_000, priority=1, parameters={"own": "text"})
    seen["async"] = handle.get_result().as_numpy("difference").tolist()
    return seen


def _strings(client: triton.InferenceServerClient) -> Seen:
    """Send every datatype of `echo`; returns what came of strings, booleans and halves, binary and in JSON."""
    seen: Seen = {}
    for binary in (True, False):
        inputs = []
        for tensor in client.get_model_metadata("echo")["inputs"]:
            dtype = {"BYTES": np.object_, "BOOL": np.bool_}.get(tensor["datatype"])
            values = np.array([b"a", "\u00e9".encode()] if dtype is np.object_ else [1, 0], dtype or np.float32)
            if dtype is None:
                kind = tensor["datatype"].replace("FP", "float").lower()
                values = values.astype(kind)
            given = triton.InferInput(tensor["name"], [2], tensor["datatype"])
            given.set_data_from_numpy(values, binary_data=binary or tensor["datatype"] == "FP16")
            inputs.append(given)
        outputs = [triton.InferRequestedOutput(f"out_{name}", binary_data=binary) for name in ("bytes", "bool", "int8")]
        outputs.append(triton.InferRequestedOutput("out_fp16", binary_data=True))
        result = client.infer("echo", inputs, outputs=outputs)
        texts = [one if isinstance(one, str) else one.decode() for one in result.as_numpy("out_bytes")]
        seen[str(binary)] = [texts, *(result.as_numpy(f"out_{name}").tolist() for name in ("bool", "int8", "fp16"))]
    return seen


def _shared(client: triton.InferenceServerClient) -> Seen:
    key = f"/enginesmith-{uuid.uuid4().hex}"
    block = system_memory.create_shared_memory_region("block", key, 3 * A.nbytes)
    try:
        system_memory.set_shared_memory_region(block, [A, np.ones_like(A)])
        client.register_system_shared_memory("block", key, 3 * A.nbytes)
        inputs = [triton.InferInput(name, [2, 4], "FP32") for name in ("a", "b")]
        for index, tensor in enumerate(inputs):
            tensor.set_shared_memory("block", A.nbytes, index * A.nbytes)
        outputs = [triton.InferRequestedOutput("sum"), triton.InferRequestedOutput("difference")]
        outputs[0].set_shared_memory("block", A.nbytes, 2 * A.nbytes)
        result = client.infer("adder", inputs, outputs=outputs)
        seen = {
            "status": client.get_system_shared_memory_status("block"),
            "left": system_memory.get_contents_as_numpy(block, np.float32, [2, 4], 2 * A.nbytes).tolist(),
            "said": result.get_output("sum")["parameters"],
            "difference": result.as_numpy("difference").tolist(),
            "twice": _refusal(client.register_system_shared_memory, "block", key, 3 * A.nbytes),
            "cuda": _refusal(client.register_cuda_shared_memory, "gpu", base64.b64encode(bytes(64)), 0, 8),
            "cuda_status": client.get_cuda_shared_memory_status(),
        }
        client.unregister_system_shared_memory("block")
        return seen | {
            "after": _refusal(client.infer, "adder", inputs),
            "all": client.get_system_shared_memory_status(),
        }
    finally:
        system_memory.destroy_shared_memory_region(block)


def main(address: str) -> Seen:
    """Call everything once."""
    client = triton.InferenceServerClient(address)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [client.is_model_ready("adder", "1"), client.is_model_ready("none")],
        "server": client.get_server_metadata(),
        "metadata": client.get_model_metadata("adder", "1"),
        "config": client.get_model_config("adder"),
        "index": client.get_model_repository_index(),
        "load": _refusal(client.load_model, "adder"),
        "inferences": _inferences(client),
        "strings": _strings(client),
        "refusal": _refusal(client.infer, "adder", _inputs(33)),
        "shared": _shared(client),
        "statistics": client.get_inference_statistics("adder")["model_stats"][0],
    }


def secure(given: dict[str, str]) -> Seen:
    """Infer over TLS with a client's certificate and its token, and without the token."""
    files = {"ca_certs": given["ca"], "certfile": given["cert"], "keyfile": given["key"]}
    client = triton.InferenceServerClient(given["address"], ssl=True, ssl_options=files)
    headers = {"authorization": f"Bearer {given['token']}"}
    return {
        "ready": client.is_server_ready() and client.is_model_ready("adder"),
        "sum": client.infer("adder", _inputs(2), headers=headers).as_numpy("sum").tolist(),
        "refusal": _refusal(client.infer, "adder", _inputs(2)),
    }


if __name__ == "__main__":
    is_secure = sys.argv[1].startswith("{")
    sys.stdout.write(json.dumps(secure(json.loads(sys.argv[1])) if is_secure else main(sys.argv[1])))
