"""What the pods of `helm test` run: `store` writes a small model into the engine store, `ask` calls the engine of it.

The model multiplies by a matrix that depends on the release's revision, so that every revision builds an engine.
"""

import json
import os
import sys
import time
from hashlib import sha256
from pathlib import Path

import grpc
import numpy as np
import s3fs
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_runtime.store.address import parse_address
from enginesmith_runtime.store.registry_client import MANIFEST_TYPE, RegistryClient
from enginesmith_runtime.store.settings import StoreSettings

SHAPE = (4, 4)
OPTIONS = (("grpc.max_reconnect_backoff_ms", 2000),)


def weights() -> np.ndarray:
    """Return the model's matrix: small whole numbers, so that every precision gives the same answer."""
    return ((np.arange(8).reshape(4, 2) + int(os.environ["REVISION"])) % 8).astype(np.float32)


def store() -> None:
    """Write the model where MODEL says: s3://bucket/path, oci://repository:tag, or a path in a mounted claim."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "helm-test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weights(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    place = os.environ["MODEL"]
    if place.startswith("s3://"):
        endpoint, region = os.environ.get("ENDPOINT") or None, os.environ.get("REGION") or None
        files = s3fs.S3FileSystem(endpoint_url=endpoint, client_kwargs={"region_name": region} if region else {})
        files.pipe_file(place, model.SerializeToString())
    elif place.startswith("oci://"):
        push(place, model.SerializeToString())
    else:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_bytes(model.SerializeToString())
    print(f"the model is at {place}")


def push(place: str, content: bytes) -> None:
    """Write an artifact with one file, as `oras push` does."""
    repository, _, tag = place.rpartition(":")
    client = RegistryClient(parse_address(repository), StoreSettings(variables=os.environ))
    blobs = {"application/vnd.oci.empty.v1+json": b"{}", "application/octet-stream": content}
    for blob in blobs.values():
        client.put_blob(sha256(blob).hexdigest(), blob)
    config, layer = (
        {"mediaType": kind, "digest": f"sha256:{sha256(blob).hexdigest()}", "size": len(blob)}
        for kind, blob in blobs.items()
    )
    layer["annotations"] = {"org.opencontainers.image.title": "model.onnx"}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [layer]}
    client.put_manifest(tag, json.dumps(manifest).encode())


def ask() -> None:
    """Ask the engine until it answers, or until TIMEOUT seconds have passed; the answer must be right."""
    rows = np.arange(16, dtype=np.float32).reshape(SHAPE) % 5
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=SHAPE)
    request = pb.ModelInferRequest(
        model_name=os.environ["ENGINE"], inputs=[tensor], raw_input_contents=[rows.tobytes()]
    )
    call = grpc.insecure_channel(os.environ["ADDRESS"], options=OPTIONS).unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    give_up = time.monotonic() + float(os.environ["TIMEOUT"])
    while True:
        try:
            answer, state = call.with_call(request, timeout=10)
            break
        except grpc.RpcError as error:
            if time.monotonic() > give_up:
                name, namespace = os.environ["ENGINE"], os.environ["NAMESPACE"]
                sys.exit(
                    f"no engine answers at {os.environ['ADDRESS']} ({error.code().name}: {error.details()}).\n"
                    f"What it waits for: kubectl -n {namespace} describe inferenceengine {name}, "
                    f"or kubectl enginesmith explain {name} -n {namespace}"
                )
            time.sleep(1)
    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(4, 2)
    if not np.array_equal(found, rows @ weights()):
        sys.exit(f"the answer is wrong: {found.tolist()} instead of {(rows @ weights()).tolist()}")
    key = dict(state.initial_metadata()).get("enginesmith-engine", "")
    print(f"engine {key[:12]} answers as it should")


if __name__ == "__main__":
    {"store": store, "ask": ask}[sys.argv[1]]()
