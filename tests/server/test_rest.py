"""The protocol over HTTP: tritonclient's client and curl unmodified, every datatype, and what bad input gets."""

import gzip
import http.client
import json
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("tritonclient_http_driver.py")
Server = Any  # the fixtures' own types; a test module imports no other
StartServer = Callable[..., Any]
Ask = Callable[..., tuple[int, Any]]
MAX_BYTES = 1 << 20
JSON_LENGTH = "Inference-Header-Content-Length"
INFER = "/v2/models/adder/infer"
A = [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]


@pytest.fixture(scope="module")
def server(start_module_server: StartServer, adder_key: str, echo_key: str) -> Server:
    return start_module_server(
        {"adder": adder_key, "echo": echo_key},
        shared_memory=True,
        http_address="127.0.0.1:0",
        max_message_bytes=MAX_BYTES,
    )


@pytest.fixture
def ask(server: Server) -> Iterator[Ask]:
    """Send a request; returns the status and the answer's JSON."""
    connection = http.client.HTTPConnection(server.http, timeout=300)

    def send(path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if data is None else "POST"), path, data, names)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None

    yield send
    connection.close()


def _tensor(name: str = "a", data: Any = A, datatype: str = "FP32", shape: Any = (2, 4), **fields: Any) -> Any:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data, **fields}


def _request(*tensors: Any, **fields: Any) -> Any:
    return {"inputs": [*tensors, _tensor("b", [1.0] * 8)], **fields}


@pytest.fixture(scope="module")
def seen(server: Server) -> dict[str, Any]:
    """Everything that one run of tritonclient's HTTP client saw."""
    venv = subprocess.run([ROOT / "hack" / "venv", "tritonclient"], check=True, capture_output=True, text=True)
    python = Path(venv.stdout.strip()) / "bin" / "python"
    process = subprocess.run([python, DRIVER, server.http], check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def test_tritonclient_reads_the_server_and_its_models(seen: dict[str, Any]) -> None:
    assert (seen["live"], seen["ready"], seen["model_ready"]) == (True, True, [True, False])
    assert seen["server"]["name"] == "enginesmith"
    assert seen["metadata"]["inputs"][0]["shape"] == [-1, 4]
    assert seen["metadata"]["parameters"]["target"] == "cpu"
    assert seen["config"]["input"][0] == {"name": "a", "data_type": "TYPE_FP32", "dims": [4], "optional": False}
    assert {"name": "adder", "version": "1", "state": "READY", "reason": ""} in seen["index"]
    assert seen["load"]["status"] == "501"
    assert seen["statistics"]["inference_stats"]["success"]["count"] >= 7


def test_tritonclient_infers_with_json_and_binary_tensors_and_compressed(seen: dict[str, Any]) -> None:
    inferences = seen["inferences"]
    for way in ("True True", "True False", "False True", "False False"):
        assert inferences[way] == ["seven", [[1, 2, 3, 4], [5, 6, 7, 8]]]
    assert inferences["gzip"] == inferences["deflate"] == float(np.arange(1, 129).sum())
    assert inferences["async"] == [[-1, 0, 1, 2], [3, 4, 5, 6]]
    assert seen["strings"]["True"] == seen["strings"]["False"] == [["a", "\u00e9"], [True, False], [1, 0], [1, 0]]
    assert seen["refusal"]["status"] == "400"
    assert "lies outside every profile" in seen["refusal"]["message"]


def test_tritonclient_shares_its_memory_over_http(seen: dict[str, Any]) -> None:
    shared = seen["shared"]
    assert [(one["name"], one["byte_size"]) for one in shared["status"]] == [("block", 96)]
    assert shared["left"] == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert shared["said"]["shared_memory_byte_size"] == 32
    assert shared["difference"] == [[-1, 0, 1, 2], [3, 4, 5, 6]]
    assert (shared["twice"]["status"], shared["cuda"]["status"], shared["after"]["status"]) == ("409", "501", "400")
    assert shared["cuda_status"] == shared["all"] == []


def test_curl_infers_with_nested_lists_and_takes_a_compressed_answer(server: Server, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps(_request(_tensor(), id="seven")))
    called = subprocess.run(
        ["curl", "-sS", "--fail", "--compressed", "-d", f"@{body}", f"http://{server.http}{INFER}"],
        check=True, capture_output=True,
    )  # fmt: skip
    answer = json.loads(called.stdout)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("adder", "1", "seven")
    assert answer["outputs"][0] == {
        "name": "sum", "datatype": "FP32", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8],
    }  # fmt: skip


DTYPES = {
    "bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "fp32": "FP32", "fp64": "FP64", "bytes": "BYTES",
}  # fmt: skip
EDGES: dict[str, Any] = {
    "BOOL": [True, False], "BYTES": ["", "\u00e9\u4e2d"], "FP32": [1.5, -3.4028234663852886e38], "FP64": [1e308, -0.1],
    **{f"INT{bits}": [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": [0, 2**bits - 1] for bits in (8, 16, 32, 64)},
}  # fmt: skip


def _echo(changed: dict[str, Any]) -> tuple[bytes, str]:
    """Return the body of a request for `echo`, with FP16 as binary data, and the length of its JSON."""
    inputs = [_tensor(name, EDGES[dtype], dtype, (2,)) for name, dtype in DTYPES.items()]
    inputs = [tensor | changed if tensor["name"] == changed.get("name") else tensor for tensor in inputs]
    half = {"name": "fp16", "datatype": "FP16", "shape": [2], "parameters": {"binary_data_size": 4}}
    outputs = [{"name": f"out_{name}"} for name in DTYPES]
    head = json.dumps({"inputs": [*inputs, half], "outputs": outputs}).encode()
    return head + np.array([1, 2], np.float16).tobytes(), str(len(head))


def test_every_datatype_makes_the_round_trip_in_json(ask: Ask) -> None:
    body, length = _echo({})
    status, answer = ask("/v2/models/echo/infer", body, inference_header_content_length=length)
    assert status == 200, answer
    assert {one["name"]: one["data"] for one in answer["outputs"]} == {
        f"out_{name}": EDGES[dtype] for name, dtype in DTYPES.items()
    }


@pytest.mark.parametrize(
    ("name", "data", "fragment"),
    [
        ("int8", [0, 128], "element 1 of data is 128, and INT8 holds -128 to 127"),
        ("uint64", [-1, 0], "element 0 of data is -1, and UINT64 holds 0 to 18446744073709551615"),
        ("int64", [0, 10**30], "element 1 of data is 1000000"),
        ("int32", [0, 1.0], "element 1 of data is 1.0, and INT32 takes a whole number"),
        ("int32", [True, 0], "element 0 of data is true"),
        ("bool", [True, 1], "element 1 of data is 1, and BOOL takes true or false"),
        ("fp32", [0, 1e39], "element 1 of data is 1e+39"),
        ("fp32", [0, "1"], 'element 1 of data is "1", and FP32 takes a number'),
        ("fp64", [10**400, 0], "element 0 of data is 1000000"),
        ("bytes", ["a", "\ud800"], 'element 1 of data is "\\ud800"'),
        ("bytes", ["a", 7], "element 1 of data is 7, and BYTES takes a string"),
        ("bytes", ["a"], "1 elements of data, but the shape takes 2"),
        ("uint8", None, "'data' is not a list"),
    ],
)
def test_a_value_that_its_datatype_does_not_hold_is_named(ask: Ask, name: str, data: Any, fragment: str) -> None:
    body, length = _echo({"name": name, "data": data})
    status, answer = ask("/v2/models/echo/infer", body, inference_header_content_length=length)
    assert status == 400
    assert f"input '{name}'" in answer["error"]
    assert fragment in answer["error"]


def test_halves_have_no_json(ask: Ask) -> None:
    body, length = _echo({})
    head = json.loads(body[: int(length)])
    del head["outputs"]
    data = json.dumps(head).encode()
    status, answer = ask("/v2/models/echo/infer", data + body[-4:], inference_header_content_length=str(len(data)))
    assert (status, "output 'out_fp16': FP16 can only be sent as binary data" in answer["error"]) == (400, True)
    head["inputs"][-1] = _tensor("fp16", [1, 2], "FP16", (2,))
    head["outputs"] = [{"name": "out_int8"}]
    status, answer = ask("/v2/models/echo/infer", head)
    assert (status, "input 'fp16': FP16 can only be sent as binary data" in answer["error"]) == (400, True)


@pytest.mark.parametrize(
    ("body", "fragment"),
    [
        (b"{", "the body is not valid JSON"),
        (b"[]", "the body's JSON is not an object"),
        (b"\xff{}", "the body is not valid JSON"),
        (b'{"id": "\xff"}', "the body is not valid JSON"),
        (b"[" * 100_000, "the body"),
        (b'{"id": ' + b"1" * 5000 + b"}", "the body is not valid JSON"),
        (b"", "input 'a', 'b' is missing"),
        ({"inputs": {}}, "'inputs' is not a list"),
        ({"inputs": [1]}, "element 0 of 'inputs' is not an object"),
        ({"id": 7}, "'id' is not a string"),
        ({"id": "\ud800"}, "'id' is not valid text"),
        ({"parameters": {"own": [1]}}, "parameter 'own' is not a 64-bit number"),
        ({"parameters": {"own": 2**64}}, "parameter 'own' is not a 64-bit number"),
        ({"parameters": {"timeout": -1}}, "'timeout' is -1"),
        (_request(_tensor(name="c")), "input 'c' is not one of the model's inputs"),
        (_request(_tensor(shape=[2, 2**63])), "dimension 1 of 'shape'"),
        (_request(_tensor(shape=[2, 4.0])), "dimension 1 of 'shape'"),
        (_request(_tensor(shape=[2, -4])), "negative dimension"),
        (_request(_tensor() | {"shape": "24"}), "input 'a': 'shape' is not a list"),
        (_request(_tensor(datatype="FP64")), "datatype is 'FP64', the model takes FP32"),
        (_request(_tensor(data=[[1, 2, 3, 4], [5, 6, 7]])), "list 1 at depth 1 of data has 3 elements"),
        (_request(_tensor(data=[[1, 2, 3, 4]])), "data has 1 lists, but shape [2, 4] takes 2"),
        (_request(_tensor(data=[[1, 2, 3, 4], 5])), "element 1 at depth 1 of data is not a list"),
        (_request(_tensor(data=[[[1]] * 4] * 2)), "element 0 of data is [1]"),
        (_request(_tensor(data=[1] * 9)), "9 elements of data, but the shape takes 8"),
        (b'{"inputs": [' + json.dumps(_tensor(data="@")).encode().replace(b'"@"', b"[NaN, 1, 1, 1, 1, 1, 1, 1]")
         + b"," + json.dumps(_tensor("b")).encode() + b"]}", "input 'a': element 0 of data is NaN"),
        (_request(_tensor(parameters={"binary_data_size": 32})), "data and also binary_data_size"),
        (_request({"name": "a", "datatype": "FP32", "shape": [2, 4]}), "no contents"),
        (_request({"name": "a", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}),
         "binary_data_size is 32, and 0 bytes of binary data are left"),
        (_request(_tensor(), outputs=[{"name": "none"}]), "output 'none' is not one of the model's outputs"),
        (_request(_tensor(), outputs=[{"name": "sum", "parameters": {"classification": 1}}]), "classification"),
        (_request(_tensor(), outputs=[{"name": "sum", "parameters": {"binary_data": 1}}]), "'binary_data' is not true"),
        (_request(_tensor(parameters={"shared_memory_region": "x", "shared_memory_byte_size": 32})),
         "data and also a shared memory region"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused_with_its_fault(ask: Ask, body: Any, fragment: str) -> None:
    status, answer = ask(INFER, body)
    assert status == (501 if fragment == "classification" else 400), answer
    assert fragment in answer["error"]


@pytest.mark.parametrize("length", ["-1", "1.5", "9" * 30, "", "4000", "\u0663"])
def test_a_length_of_json_that_lies_is_refused(ask: Ask, length: str) -> None:
    status, answer = ask(INFER, _request(_tensor()), inference_header_content_length=length.encode().decode("latin-1"))
    assert (status, JSON_LENGTH.lower() in answer["error"]) == (400, True)


def test_binary_data_that_is_left_over_or_missing_is_refused(ask: Ask) -> None:
    tensor = {"name": "a", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}
    head = json.dumps(_request(tensor)).encode()
    content = np.array(A, np.float32).tobytes()
    for data, fragment in ((content + b"more", "4 bytes of binary data follow"), (content[:31], "31 bytes of binary")):
        status, answer = ask(INFER, head + data, inference_header_content_length=str(len(head)))
        assert (status, fragment in answer["error"]) == (400, True), answer
    assert ask(INFER, head + content, inference_header_content_length=str(len(head)))[0] == 200


def test_encodings_are_undone_within_the_limit(ask: Ask) -> None:
    body = json.dumps(_request(_tensor())).encode()
    for encoding, data in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("identity", body)):
        assert ask(INFER, data, content_encoding=encoding)[0] == 200
    bomb = gzip.compress(bytes(MAX_BYTES + 1))
    for encoding, data, want in (
        ("gzip", body, 400),
        ("gzip", gzip.compress(body)[:-4], 400),
        ("gzip", gzip.compress(body) + b"x", 400),
        ("br", body, 415),
        ("gzip", bomb, 413),
    ):
        status, answer = ask(INFER, data, content_encoding=encoding)
        assert (status, "error" in answer) == (want, True)


def test_a_value_that_json_does_not_have_must_be_asked_for_as_binary_data(ask: Ask) -> None:
    tensor = {"name": "a", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}
    head = json.dumps(_request(tensor)).encode()
    content = np.array([0, np.nan, *[0] * 6], np.float32).tobytes()
    status, answer = ask(INFER, head + content, inference_header_content_length=str(len(head)))
    assert (status, "output 'sum': element 1 is nan" in answer["error"]) == (400, True)


def test_paths_and_methods_that_are_none_say_so(ask: Ask) -> None:
    assert ask("/v2/none")[0] == 404
    assert ask("/v2/models/none/infer", _request(_tensor()))[0] == 404
    assert ask("/v2/models/adder/versions/9")[0] == 404
    assert ask(INFER) == (405, {"error": "GET is not supported here; use POST"})
    assert ask("/v2/models/adder/versions/1/infer?verbose=1", _request(_tensor()))[0] == 200
    status, answer = ask("/v2/systemsharedmemory/region/r/register", {"key": 7, "byte_size": 8})
    assert (status, "does not fit the call" in answer["error"]) == (400, True)
    status, answer = ask("/v2/cudasharedmemory/region/r/register", {"raw_handle": {"b64": "!"}, "byte_size": 8})
    assert (status, "not valid base64" in answer["error"]) == (400, True)


def test_a_full_queue_and_a_deadline_have_their_own_statuses(start_server: StartServer, slow_key: str) -> None:
    server = start_server({"slow": slow_key}, http_address="127.0.0.1:0", max_queued=0)

    def begin(steps: int, **fields: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(server.http, timeout=300)
        body = {"inputs": [_tensor("steps", [steps], "INT64", (1,))], **fields}
        connection.request("POST", "/v2/models/slow/infer", json.dumps(body))
        return connection

    late = begin(1, parameters={"timeout": 1}).getresponse()
    assert (late.status, "deadline" in json.loads(late.read())["error"]) == (504, True)
    in_flight = b'enginesmith_requests_in_flight{model="slow",target="cpu",version="1"} 1.0'
    for _ in range(10):
        running = begin(3000)
        for _ in range(600):
            metrics = http.client.HTTPConnection(str(server.ready["metrics"]))
            metrics.request("GET", "/metrics")
            if in_flight in metrics.getresponse().read():
                break
        refused = begin(1).getresponse()
        assert running.getresponse().status == 200
        if refused.status != 200:  # else what ran had ended before it came
            break
    assert refused.status == 429
    assert refused.headers["retry-after"] == "1"
    assert "the queue is full" in json.loads(refused.read())["error"]


def test_a_server_that_drains_answers_what_runs_and_closes(start_server: StartServer, slow_key: str) -> None:
    server = start_server({"slow": slow_key}, http_address="127.0.0.1:0", drain_delay_seconds=600.0)
    idle, running = (http.client.HTTPConnection(server.http, timeout=300) for _ in range(2))
    idle.request("GET", "/v2/health/ready")
    assert idle.getresponse().read() == b'{"ready": true}'
    body = {"inputs": [_tensor("steps", [300], "INT64", (1,))]}
    running.request("POST", "/v2/models/slow/infer", json.dumps(body))
    server.process.terminate()
    status = 200
    while status == 200:
        idle.request("GET", "/v2/health/ready")
        answer = idle.getresponse()
        status = answer.status
        answer.read()
    assert (status, answer.headers["connection"]) == (503, "close")
    answer = running.getresponse()
    assert (answer.status, json.loads(answer.read())["model_name"]) == (200, "slow")
    assert server.stop() == 0  # the second signal ends the delay
