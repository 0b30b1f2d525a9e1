"""Tensors in shared memory: registered, read, written, refused, and never closed under a request.

The system's shared memory is real. CUDA's is faked by `fake_gpu_server.py`, which takes the name of a shared memory
object for a handle.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.server.shared_memory_requests import (
    A,
    content_of,
    floats,
    place_in,
    refusal,
    register,
    shared_adder_request,
    shared_input,
)
from tests.server.waiting import HOLD_AND_FAIL, RUN, wait_until_pending

from enginesmith_contract.protos import inference_pb2 as pb

pytestmark = pytest.mark.slow

Server = Any
Client = Any  # the fixtures' own types; a test module imports no other
Connect = Callable[[str], Client]
StartServer = Callable[..., Any]
MakeRequest = Callable[..., pb.ModelInferRequest]

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the system has its objects
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def block() -> Iterator[SharedMemory]:
    """4096 bytes of shared memory, as a client makes it."""
    memory = SharedMemory(create=True, size=4096)
    yield memory
    memory.close()
    memory.unlink()


@pytest.fixture(scope="module")
def sharing_server(start_module_server: StartServer, adder_key: str, echo_key: str) -> Server:
    return start_module_server({"adder": adder_key, "echo": echo_key}, shared_memory=True)


@pytest.fixture
def sharer(sharing_server: Server, connect: Connect) -> Iterator[Client]:
    client = connect(sharing_server.address)
    yield client
    client.call("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest())


def test_an_input_is_read_from_the_system_s_memory_each_time(sharer: Client, block: SharedMemory) -> None:
    register(sharer, "block", block.name, 1024, offset=512)
    for factor in (1, 2):
        content_of(block)[512 + 64 : 512 + 64 + A.nbytes] = (A * factor).tobytes()
        answer = sharer.infer(shared_adder_request(offset=64))
        assert floats(answer.raw_output_contents[0]) == (A * factor + 1).ravel().tolist()


def test_an_output_is_left_in_the_system_s_memory_and_the_answer_says_where(
    sharer: Client, block: SharedMemory
) -> None:
    register(sharer, "block", "/" + block.name, 4096)
    content_of(block)[: A.nbytes] = A.tobytes()
    request = shared_adder_request()
    output = pb.ModelInferRequest.InferRequestedOutputTensor
    request.outputs.extend([output(name="difference", parameters=place_in("block", 100, 1024)), output(name="sum")])
    answer = sharer.infer(request)
    assert floats(content_of(block)[1024 : 1024 + A.nbytes]) == (A - 1).ravel().tolist()
    difference, total = answer.outputs
    assert dict(difference.parameters) == place_in("block", A.nbytes, 1024)
    assert not total.parameters
    # One content for each output, in their order, as tritonclient counts them.
    assert answer.raw_output_contents[0] == b""
    assert floats(answer.raw_output_contents[1]) == (A + 1).ravel().tolist()


def test_strings_and_booleans_are_checked_wherever_they_come_from(sharer: Client, block: SharedMemory) -> None:
    register(sharer, "block", block.name, 4096)
    dtypes: dict[str, Any] = {"FP32": np.float32, "FP16": np.float16, "FP64": np.float64}
    dtypes |= {
        f"{sign}INT{bits}": np.dtype(f"{sign}int{bits}".lower()) for sign in ("", "U") for bits in (8, 16, 32, 64)
    }
    request = pb.ModelInferRequest(model_name="echo")
    for name, dtype in dtypes.items():
        values = np.ones(1, dtype)
        request.inputs.append(shared_input(name.lower(), values, name))
        request.raw_input_contents.append(values.tobytes())
    strings = b"\x03\x00\x00\x00abc\x00\x00\x00\x00"
    content_of(block)[: len(strings)] = strings
    content_of(block)[100:102] = b"\x01\x00"
    request.inputs.append(shared_input("bytes", np.empty(2), "BYTES", parameters=place_in("block", len(strings))))
    request.inputs.append(shared_input("bool", np.empty(2), "BOOL", parameters=place_in("block", 2, 100)))
    request.outputs.add(name="out_bytes")
    request.outputs.add(name="out_bool", parameters=place_in("block", 2, 200))
    answer = sharer.infer(request)
    assert answer.raw_output_contents[0] == strings
    assert bytes(content_of(block)[200:202]) == b"\x01\x00"
    content_of(block)[101] = 7
    assert "neither 0 nor 1" in refusal(sharer, request)[1]
    content_of(block)[100:102] = b"\x01\x00"
    content_of(block)[0] = 200
    assert "is cut off" in refusal(sharer, request)[1]


@pytest.mark.parametrize(
    ("change", "want_fragments"),
    [
        ({"region": "other"}, ("input 'a'", "'other'")),
        ({"size": 31}, ("input 'a'", "31 bytes", "takes 32")),
        ({"offset": 1000}, ("input 'a'", "32 bytes from 1000", "1024 bytes")),
        ({"offset": -8}, ("input 'a'", "shared_memory_offset", "-8")),
        ({"offset": 2**63 - 1}, ("input 'a'", "1024 bytes")),
    ],
    ids=["unknown region", "wrong size", "beyond the end", "negative offset", "huge offset"],
)
def test_a_place_that_does_not_fit_is_refused(
    sharer: Client, block: SharedMemory, change: dict[str, Any], want_fragments: tuple[str, ...]
) -> None:
    register(sharer, "block", block.name, 1024)
    code, details = refusal(sharer, shared_adder_request(**change))
    assert code is INVALID
    for fragment in want_fragments:
        assert fragment in details


def test_an_output_s_place_that_does_not_fit_is_refused(sharer: Client, block: SharedMemory) -> None:
    register(sharer, "block", block.name, 1024)
    for place, fragment in (
        (place_in("block", 31), "32 bytes do not fit the 31"),
        (place_in("block", 32, 1000), "end beyond"),
    ):
        request = shared_adder_request()
        request.outputs.add(name="sum", parameters=place)
        code, details = refusal(sharer, request)
        assert code is INVALID
        assert "output 'sum'" in details
        assert fragment in details


def test_contents_beside_a_place_are_refused(sharer: Client, block: SharedMemory) -> None:
    register(sharer, "block", block.name, 1024)
    request = shared_adder_request()
    request.inputs[0].contents.fp32_contents.extend(A.ravel())
    assert refusal(sharer, request)[0] is INVALID
    request = shared_adder_request()
    request.raw_input_contents.append(A.tobytes())
    assert refusal(sharer, request)[0] is INVALID
    request = shared_adder_request()
    del request.inputs[0].parameters["shared_memory_byte_size"]
    assert "'shared_memory_byte_size' is missing" in refusal(sharer, request)[1]


@pytest.mark.parametrize(
    ("key", "offset", "size"),
    [
        ("no-such-object", 0, 8),
        ("../shm/{name}", 0, 8),
        ("/sub/{name}", 0, 8),
        ("", 0, 8),
        ("..", 0, 8),
        ("{name}\0", 0, 8),
        ("{name}", 0, 0),
        ("{name}", 4000, 97),
        ("{name}", 2**64 - 1, 2**64 - 1),
        ("{name}-link", 0, 8),
        ("{name}-pipe", 0, 8),
        ("{name}-folder", 0, 8),
    ],
)
def test_a_key_that_is_no_shared_memory_object_is_refused(
    sharer: Client, block: SharedMemory, tmp_path: Path, key: str, offset: int, size: int
) -> None:
    folder = SHARED_MEMORY
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 100)
    (folder / f"{block.name}-link").symlink_to(secret)
    os.mkfifo(folder / f"{block.name}-pipe")
    (folder / f"{block.name}-folder").mkdir()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            register(sharer, "block", key.format(name=block.name), size, offset)
    finally:
        (folder / f"{block.name}-link").unlink()
        (folder / f"{block.name}-pipe").unlink()
        (folder / f"{block.name}-folder").rmdir()
    assert caught.value.code() is INVALID
    assert "shared memory region 'block'" in caught.value.details()


def test_regions_have_one_name_a_status_and_an_end(sharer: Client, block: SharedMemory) -> None:
    for name in ("one", "two"):
        register(sharer, name, block.name, 1024, offset=8)
    with pytest.raises(grpc.RpcError) as caught:
        register(sharer, "one", block.name, 1024)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    status = sharer.call("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest())
    assert sorted(status.regions) == ["one", "two"]
    one = status.regions["one"]
    assert (one.name, one.key, one.offset, one.byte_size) == ("one", block.name, 8, 1024)
    sharer.call("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="one"))
    with pytest.raises(grpc.RpcError) as caught:
        sharer.call("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="one"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    sharer.call("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest())
    assert not sharer.call("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()).regions
    register(sharer, "one", block.name, 1024)


def test_a_client_that_shrinks_its_memory_harms_nobody(sharer: Client, block: SharedMemory) -> None:
    register(sharer, "block", block.name, 4096)
    os.truncate(SHARED_MEMORY / block.name, 16)
    code, details = refusal(sharer, shared_adder_request())
    assert code is INVALID
    assert "has become smaller" in details
    assert sharer.call("ServerReady", pb.ServerReadyRequest()).ready


def test_memory_that_is_shrunk_and_unregistered_under_load_costs_only_its_owner_s_requests(
    sharing_server: Server, connect: Connect, adder_request: MakeRequest
) -> None:
    client = connect(sharing_server.address)
    valid = adder_request()
    want = client.infer(valid).raw_output_contents
    memory = SharedMemory(create=True, size=2 << 20)
    stop = threading.Event()

    def shrink_and_grow() -> None:
        while not stop.is_set():
            for size in (0, 2 << 20):
                os.truncate(SHARED_MEMORY / memory.name, size)

    shrinking = threading.Thread(target=shrink_and_grow)
    shrinking.start()
    codes = set()
    try:
        for number in range(150):
            with contextlib.suppress(grpc.RpcError):  # it may be short at this moment, or registered still
                register(client, "short", memory.name, 2 << 20)
            request = shared_adder_request("short", offset=1 << 20)
            for name in ("sum", "difference"):
                request.outputs.add(name=name, parameters=place_in("short", A.nbytes, 1024))
            calls = [client.begin("ModelInfer", request) for _ in range(4)]
            assert client.infer(valid).raw_output_contents == want
            if number % 3 == 0:
                client.call("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="short"))
            codes |= {call.code() for call in calls}
    finally:
        stop.set()
        shrinking.join()
        client.call("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest())
        memory.close()
        memory.unlink()
    assert codes <= {grpc.StatusCode.OK, INVALID, grpc.StatusCode.RESOURCE_EXHAUSTED}, codes
    assert INVALID in codes


def test_no_engine_without_a_gpu_takes_cuda_s_memory(sharer: Client) -> None:
    request = pb.CudaSharedMemoryRegisterRequest(name="gpu", raw_handle=bytes(64), byte_size=8)
    with pytest.raises(grpc.RpcError) as caught:
        sharer.call("CudaSharedMemoryRegister", request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "does not run on a CUDA device" in caught.value.details()


def test_what_is_switched_off_says_how_to_switch_it_on(client: Client) -> None:
    code, details = refusal(client, shared_adder_request())
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "--shared-memory" in details
    assert "system_shared_memory" not in client.call("ServerMetadata", pb.ServerMetadataRequest()).extensions


def test_a_server_that_shares_memory_says_so(sharer: Client) -> None:
    extensions = sharer.call("ServerMetadata", pb.ServerMetadataRequest()).extensions
    assert {"system_shared_memory", "cuda_shared_memory"} <= set(extensions)


@pytest.fixture(scope="module")
def fake_gpu_server(start_module_server: StartServer, doubler_key: str, adder_key: str) -> Server:
    return start_module_server({"doubler": doubler_key, "adder": adder_key}, fake_gpu=True, shared_memory=True)


@pytest.fixture
def gpu_client(fake_gpu_server: Server, connect: Connect) -> Iterator[Client]:
    client = connect(fake_gpu_server.address)
    yield client
    client.call("CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest())


def _register_cuda(client: Client, name: str, handle: bytes, size: int) -> None:
    request = pb.CudaSharedMemoryRegisterRequest(name=name, raw_handle=handle, device_id=0, byte_size=size)
    client.call("CudaSharedMemoryRegister", request)


def _handle(block: SharedMemory) -> bytes:
    return block.name.encode().ljust(64, b"\0")


def _doubler_request(size: int = 8, command: int = RUN) -> pb.ModelInferRequest:
    """Return a request whose data lies at 256 in the region and whose output goes to 512."""
    commands = np.array([command])
    request = pb.ModelInferRequest(
        model_name="doubler",
        inputs=[
            shared_input("command", commands, "INT64"),
            shared_input("data", np.empty(2), "FP32", parameters=place_in("gpu", 8, 256)),
        ],
        raw_input_contents=[commands.tobytes()],
    )
    request.outputs.add(name="doubled", parameters=place_in("gpu", size, 512))
    return request


def test_tensors_stay_on_the_gpu(gpu_client: Client, block: SharedMemory) -> None:
    _register_cuda(gpu_client, "gpu", _handle(block), 1024)
    content_of(block)[256:264] = np.array([3, 4], np.float32).tobytes()
    answer = gpu_client.infer(_doubler_request(100))
    assert floats(content_of(block)[512:520]) == [6, 8]
    assert list(answer.outputs[0].shape) == [2]
    assert dict(answer.outputs[0].parameters) == place_in("gpu", 8, 512)
    assert list(answer.raw_output_contents) == [b""]
    status = gpu_client.call("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest(name="gpu"))
    assert (status.regions["gpu"].device_id, status.regions["gpu"].byte_size) == (0, 1024)


def test_a_gpu_s_place_that_does_not_fit_is_refused(gpu_client: Client, block: SharedMemory) -> None:
    _register_cuda(gpu_client, "gpu", _handle(block), 1024)
    code, details = refusal(gpu_client, _doubler_request(7))
    assert (code, "larger than its place" in details) == (INVALID, True)
    code, details = refusal(gpu_client, _doubler_request(1000))
    assert (code, "output 'doubled': 1000 bytes from 512 on" in details) == (INVALID, True)
    # An engine without a GPU, in the same server.
    code, details = refusal(gpu_client, shared_adder_request("gpu"))
    assert (code, "takes no device memory" in details) == (INVALID, True)


@pytest.mark.parametrize(
    ("handle", "want_fragment"),
    [(b"short", "5 bytes, and a cudaIpcMemHandle_t has 64"), (b"none".ljust(64, b"\0"), "CUDA error 400")],
    ids=["no handle", "cannot be opened"],
)
def test_a_handle_that_opens_nothing_is_refused(gpu_client: Client, handle: bytes, want_fragment: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        _register_cuda(gpu_client, "gpu", handle, 1024)
    assert caught.value.code() is INVALID
    assert want_fragment in caught.value.details()


def test_a_name_is_of_one_kind(gpu_client: Client, block: SharedMemory) -> None:
    _register_cuda(gpu_client, "gpu", _handle(block), 1024)
    with pytest.raises(grpc.RpcError) as caught:
        register(gpu_client, "gpu", block.name, 1024)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.RpcError) as caught:
        gpu_client.call("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="gpu"))
    assert caught.value.code() is INVALID


def test_a_region_stays_while_its_request_runs(
    start_server: StartServer, connect: Connect, doubler_key: str, block: SharedMemory
) -> None:
    server = start_server({"doubler": doubler_key}, fake_gpu=True, shared_memory=True)
    client = connect(server.address)
    _register_cuda(client, "gpu", _handle(block), 1024)
    content_of(block)[256:264] = np.array([1.0, 1.0], np.float32).tobytes()
    running = client.begin("ModelInfer", _doubler_request(command=HOLD_AND_FAIL))
    wait_until_pending(server, 1)
    client.call("CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest(name="gpu"))
    assert not running.done()
    assert "fake region closed" not in server.log.read_text()
    server.let_go()
    assert running.code() is grpc.StatusCode.UNAVAILABLE
    server.process.wait(120)
    assert server.log.read_text().count("fake region closed") == 1
