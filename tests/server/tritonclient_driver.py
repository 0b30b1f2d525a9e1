"""Runs in tritonclient's own environment: calls everything that the client offers and prints what came as JSON.

A process of its own, since tritonclient's messages and ours have the same names. Usage: driver.py calls HOST:PORT, or
driver.py descriptors OUR_FILE_DESCRIPTOR_SET, or driver.py secure JSON.
"""

import base64
import json
import queue
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as system_memory

Seen = dict[str, Any]


def _inputs(rows: int) -> list[triton.InferInput]:
    a = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    inputs = []
    for name, values in (("a", a), ("b", np.ones_like(a))):
        tensor = triton.InferInput(name, list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    return inputs


def _stream(client: triton.InferenceServerClient) -> list[Seen]:
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for rows, request_id in ((2, "first"), (33, "outside"), (3, "last")):
        client.async_stream_infer("adder", _inputs(rows), request_id=request_id, enable_empty_final_response=True)
    seen: list[Seen] = []
    for _ in range(3):
        result, error = answers.get(timeout=120)
        if error is not None:
            seen.append({"error": str(error)})
            continue
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        seen.append({"id": response.id, "rows": len(result.as_numpy("sum")), "final": final})
    client.stop_stream()
    return seen


def _refusal(client: triton.InferenceServerClient) -> Seen | None:
    try:
        client.infer("adder", _inputs(33))
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return None


def _ocr(client: triton.InferenceServerClient) -> Seen:
    """Send each real model what it is served for; returns shapes and sums of what came."""
    answers = {}
    for name, shape in (("cls", [1, 3, 48, 192]), ("rec", [1, 3, 48, 320]), ("det", [1, 3, 160, 160])):
        values = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        tensor = triton.InferInput("x", shape, "FP32")
        tensor.set_data_from_numpy(values)
        output = client.get_model_metadata(name).outputs[0].name
        array = client.infer(name, [tensor]).as_numpy(output)
        answers[name] = {"shape": list(array.shape), "sum": float(array.astype(np.float64).sum())}
    return answers


def calls(address: str) -> Seen:
    """Call everything once."""
    client = triton.InferenceServerClient(address)
    result = client.infer("adder", _inputs(2), request_id="seven")
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("adder", "1"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata("adder", as_json=True),
        "config": client.get_model_config("adder", as_json=True)["config"],
        "index": client.get_model_repository_index(as_json=True),
        "id": result.get_response().id,
        "sum": result.as_numpy("sum").tolist(),
        "refusal": _refusal(client),
        "stream": _stream(client),
        "statistics": client.get_inference_statistics("adder", as_json=True)["model_stats"][0],
    }


def ocr(address: str) -> Seen:
    """Send the real models an image each."""
    return _ocr(triton.InferenceServerClient(address))


def shared_memory(address: str) -> Seen:
    """Send both inputs and take an output by way of the system's shared memory; returns what came and what was said."""
    client = triton.InferenceServerClient(address)
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    key = f"/enginesmith-{uuid.uuid4().hex}"
    block = system_memory.create_shared_memory_region("block", key, 3 * values.nbytes)
    try:
        system_memory.set_shared_memory_region(block, [values, np.ones_like(values)])
        client.register_system_shared_memory("block", key, 3 * values.nbytes)
        inputs = []
        for index, name in enumerate(("a", "b")):
            tensor = triton.InferInput(name, list(values.shape), "FP32")
            tensor.set_shared_memory("block", values.nbytes, index * values.nbytes)
            inputs.append(tensor)
        outputs = [triton.InferRequestedOutput("sum"), triton.InferRequestedOutput("difference")]
        outputs[0].set_shared_memory("block", values.nbytes, 2 * values.nbytes)
        result = client.infer("adder", inputs, outputs=outputs)
        seen = {
            "status": client.get_system_shared_memory_status(as_json=True)["regions"]["block"],
            "left": system_memory.get_contents_as_numpy(block, np.float32, [2, 4], 2 * values.nbytes).tolist(),
            "sum": result.get_response().outputs[0].parameters["shared_memory_byte_size"].int64_param,
            "difference": result.as_numpy("difference").tolist(),
        }
        client.unregister_system_shared_memory("block")
        try:
            client.infer("adder", inputs)
        except InferenceServerException as error:
            seen["after"] = {"status": error.status(), "message": error.message()}
        try:
            client.register_cuda_shared_memory("gpu", base64.b64encode(bytes(64)), 0, 8)
        except InferenceServerException as error:
            seen["cuda"] = error.status()
        return seen
    finally:
        system_memory.destroy_shared_memory_region(block)


def descriptors(path: str) -> Seen:
    """Compare our messages with tritonclient's; returns the differences."""
    theirs = {}
    for module in (service_pb2, model_config_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        theirs.update(_shapes(file))
    ours = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(Path(path).read_bytes()).file:
        ours.update(_shapes(file))
    return {
        "different": sorted(
            f"{key}: {ours[key]} != {theirs[key]}" for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]
        ),
        "only_ours": sorted(ours.keys() - theirs.keys()),
        "only_theirs": sorted(theirs.keys() - ours.keys()),
    }


def _shapes(file: descriptor_pb2.FileDescriptorProto) -> dict[str, list[object]]:
    shapes: dict[str, list[object]] = {}
    for message in file.message_type:
        shapes.update(_message_shapes(file.package, message))
    for enum in file.enum_type:
        shapes.update(_enum_shapes(file.package, enum))
    for service in file.service:
        for method in service.method:
            shapes[f"{file.package}.{service.name}.{method.name}"] = [
                method.input_type,
                method.output_type,
                method.client_streaming,
                method.server_streaming,
            ]
    return shapes


def _message_shapes(prefix: str, message: descriptor_pb2.DescriptorProto) -> Iterator[tuple[str, list[object]]]:
    name = f"{prefix}.{message.name}"
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        yield f"{name}.{field.name}", [field.number, field.type, field.label, field.type_name, oneof]
    for enum in message.enum_type:
        yield from _enum_shapes(name, enum)
    for nested in message.nested_type:
        yield from _message_shapes(name, nested)


def _enum_shapes(prefix: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[tuple[str, list[object]]]:
    for value in enum.value:
        yield f"{prefix}.{enum.name}.{value.name}", [value.number]


def secure(options: str) -> Seen:
    """Infer over TLS with a client's certificate and its token, and without the token."""
    given = json.loads(options)
    client = triton.InferenceServerClient(
        given["address"],
        ssl=True,
        root_certificates=given["ca"],
        private_key=given["key"],
        certificate_chain=given["cert"],
    )
    headers = {"authorization": f"Bearer {given['token']}"}
    return {
        "ready": client.is_server_ready() and client.is_model_ready("adder"),
        "sum": client.infer("adder", _inputs(2), headers=headers).as_numpy("sum").tolist(),
        "refusal": _refusal(client),
    }


if __name__ == "__main__":
    commands = {
        "calls": calls,
        "secure": secure,
        "ocr": ocr,
        "shared_memory": shared_memory,
        "descriptors": descriptors,
    }
    sys.stdout.write(json.dumps(commands[sys.argv[1]](sys.argv[2])))
