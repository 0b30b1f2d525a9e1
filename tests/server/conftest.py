"""A store with real engines, a real server process on it, and a client that speaks bytes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from tests.server.engine_store import EngineStore, Publication
from tests.server.onnx_models import adder_model, doubler_model, echo_model, integers_model, slow_model

from enginesmith_contract.backends import Hardware
from enginesmith_contract.errors import DeviceFailedError
from enginesmith_contract.preparation import Batching
from enginesmith_contract.profiles import Profile, ShapeRange
from enginesmith_contract.protos import inference_pb2 as pb
from enginesmith_contract.serve_request import ServedModel, ServeRequest, TransportName
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.server.errors import ProtocolError
from enginesmith_runtime.server.loading import Loading, load_model
from enginesmith_runtime.server.protocol.infer import Inference, InferenceLimits
from enginesmith_runtime.server.repository import Repository
from enginesmith_runtime.server.transport.interface import Answer, CallContext

FAKE_GPU_SERVER = Path(__file__).with_name("fake_gpu_server.py")
FAKE_GPU = Hardware(
    product="NVIDIA-H100-80GB-HBM3",
    compute_capability="9.0",
    memory_mib=81559,
    multiprocessors=132,
    driver="580.159.04",
)
SERVICE = "/inference.GRPCInferenceService"


@dataclass(frozen=True)
class RunningServer:
    """A server process that said it is ready."""

    process: subprocess.Popen[str]
    ready: dict[str, object]
    log: Path
    last_word: Path

    @property
    def address(self) -> str:
        """host:port of the protocol."""
        return str(self.ready["address"])

    @property
    def http(self) -> str:
        """host:port of the protocol over HTTP."""
        return str(self.ready["http"])

    def let_go(self) -> None:
        """Let the inferences end that the fake GPU holds, and those to come."""
        self.log.with_name("let-go").touch()

    def stop(self, seconds: float = 120.0) -> int:
        """Send SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@dataclass(frozen=True)
class Client:
    """Calls the inference service with messages, or with whatever bytes a test sends."""

    channel: grpc.Channel

    def call(self, method: str, request: Message | bytes, **options: Any) -> Any:
        """Call a unary method; returns its answer."""
        return self.begin(method, request, **options).result()

    def begin(self, method: str, request: Message | bytes, **options: Any) -> grpc.Future:
        """Begin a unary call; returns its future."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        answer = getattr(pb, f"{method}Response")
        multi = self.channel.unary_unary(f"{SERVICE}/{method}", response_deserializer=answer.FromString)
        return multi.future(data, **options)

    def infer(self, request: Message | bytes, **options: Any) -> pb.ModelInferResponse:
        """Call ModelInfer."""
        answer: pb.ModelInferResponse = self.call("ModelInfer", request, **options)
        return answer


@pytest.fixture(scope="session")
def engine_store(tmp_path_factory: pytest.TempPathFactory) -> EngineStore:
    return EngineStore(tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """adder, echo (every datatype), integers, slow (as many steps as its input says) and doubler (of the fake GPU)."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in (
        ("adder", adder_model()),
        ("echo", echo_model()),
        ("integers", integers_model()),
        ("slow", slow_model()),
        ("doubler", doubler_model()),
    ):
        onnx.checker.check_model(model)
        onnx.save(model, folder / f"{name}.onnx")
    return folder


ADDER_PROFILES = tuple(
    Profile(
        name=name,
        inputs={tensor: ShapeRange(min=(low, 4), opt=(opt, 4), max=(high, 4)) for tensor in ("a", "b")},
    )
    for name, low, opt, high in (("small", 1, 2, 4), ("large", 4, 16, 32))
)


@pytest.fixture(scope="session")
def adder_key(engine_store: EngineStore, models_folder: Path) -> str:
    return engine_store.publish(
        Publication(
            model=models_folder / "adder.onnx",
            profiles=ADDER_PROFILES,
            batching=Batching(proved=True, max_batch_size=32),
        )
    )


@pytest.fixture(scope="session")
def echo_key(engine_store: EngineStore, models_folder: Path) -> str:
    shape = ShapeRange(min=(1,), opt=(2,), max=(1 << 20,))
    names = [value.name for value in onnx.load(models_folder / "echo.onnx").graph.input]
    profile = Profile(inputs=dict.fromkeys(names, shape))
    return engine_store.publish(Publication(model=models_folder / "echo.onnx", profiles=(profile,)))


@pytest.fixture(scope="session")
def integers_key(engine_store: EngineStore, models_folder: Path) -> str:
    names = [value.name for value in onnx.load(models_folder / "integers.onnx").graph.input]
    profile = Profile(inputs=dict.fromkeys(names, ShapeRange(min=(0,), opt=(1,), max=(16,))))
    return engine_store.publish(Publication(model=models_folder / "integers.onnx", profiles=(profile,)))


@pytest.fixture(scope="session")
def slow_key(engine_store: EngineStore, models_folder: Path) -> str:
    return engine_store.publish(Publication(model=models_folder / "slow.onnx"))


@pytest.fixture(scope="session")
def doubler_key(engine_store: EngineStore, models_folder: Path) -> str:
    """An engine for the GPU that `fake_gpu_server.py` fakes; its file is never read."""
    profile = Profile(inputs={"data": ShapeRange(min=(1,), opt=(2,), max=(1 << 20,))})
    return engine_store.publish(
        Publication(model=models_folder / "doubler.onnx", gpu=FAKE_GPU, version="10.6.0.26", profiles=(profile,))
    )


StartServer = Callable[..., RunningServer]
MakeRequest = Callable[..., pb.ModelInferRequest]


@contextlib.contextmanager
def running_server(
    folder: Path, request: ServeRequest, program: Sequence[str | Path] = ("-m", "enginesmith_runtime.server")
) -> Iterator[RunningServer]:
    """Start a server and wait for its word; it is killed at the end where the test did not stop it."""
    request_file, log = folder / "request.json", folder / "server.log"
    request_file.write_bytes(request.to_json())
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, *program, "--request", str(request_file)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={
                **os.environ,
                "ENGINESMITH_LOG_FORMAT": "json",
                "ENGINESMITH_TERMINATION_LOG": str(folder / "termination.json"),
            },
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        yield RunningServer(process, json.loads(line), log, folder / "termination.json")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How requests are taken off the wire: `http2`, `front-ends` or `grpcio`; a module's mark may name several."""
    return str(getattr(request, "param", "http2"))


@pytest.fixture
def front_ends(way: str) -> int:
    """How many front ends the servers of a test have; a module may say otherwise."""
    return 2 if way == "front-ends" else 0


@pytest.fixture
def start_server(tmp_path: Path, engine_store: EngineStore, front_ends: int, way: str) -> Iterator[StartServer]:
    """Start a server for models by name and key; options: those of ServeRequest, `instances`, `queues`, `fake_gpu`."""
    with contextlib.ExitStack() as stack:
        transport = TransportName.GRPCIO if way == "grpcio" else None
        yield partial(_start_server, stack, tmp_path, engine_store, front_ends=front_ends, transport=transport)


@pytest.fixture(scope="module")
def start_module_server(tmp_path_factory: pytest.TempPathFactory, engine_store: EngineStore) -> Iterator[StartServer]:
    """As `start_server`; the servers live as long as the module's tests."""
    with contextlib.ExitStack() as stack:
        yield partial(_start_server, stack, tmp_path_factory.mktemp("servers"), engine_store)


def _start_server(
    stack: contextlib.ExitStack,
    folder: Path,
    store: EngineStore,
    keys: Mapping[str, str],
    *,
    instances: int = 1,
    fake_gpu: bool = False,
    **options: Any,
) -> RunningServer:
    folder = Path(tempfile.mkdtemp(prefix="server-", dir=folder))
    program = (FAKE_GPU_SERVER,) if fake_gpu else ("-m", "enginesmith_runtime.server")
    request = serve_request(store, keys, instances=instances, **options)
    return stack.enter_context(running_server(folder, request, program))


_NO_QUEUES: Mapping[str, int] = {}


def serve_request(
    store: EngineStore,
    keys: Mapping[str, str],
    *,
    instances: int = 1,
    queues: Mapping[str, int] = _NO_QUEUES,
    **options: Any,
) -> ServeRequest:
    """Return a request for models by name and key, on free ports; `queues`: sizes by the model's name."""
    return ServeRequest(
        models=tuple(
            ServedModel(
                name=name,
                target="cpu",
                engine_key=key,
                store=store.uri,
                instances=instances,
                backend_options={"intraOpThreads": "1"},
                max_queued=queues.get(name),
            )
            for name, key in keys.items()
        ),
        **{"address": "127.0.0.1:0", "metrics_address": "127.0.0.1:0", "drain_delay_seconds": 0.0, **options},
    )


@pytest.fixture(scope="session")
def shared_server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    engine_store: EngineStore,
    adder_key: str,
    echo_key: str,
) -> Iterator[RunningServer]:
    """One server of adder and echo for the tests that leave it as it was; its parameter is the transport."""
    serve = serve_request(
        engine_store,
        {"adder": adder_key, "echo": echo_key},
        transport=TransportName(getattr(request, "param", "http2")),
        instances=2,
        health_address="127.0.0.1:0",
        max_message_bytes=1 << 20,
    )
    with running_server(tmp_path_factory.mktemp("shared"), serve) as server:
        yield server


@pytest.fixture
def client(shared_server: RunningServer) -> Iterator[Client]:
    with grpc.insecure_channel(shared_server.address) as channel:
        yield Client(channel)


@pytest.fixture
def connect() -> Iterator[Callable[[str], Client]]:
    """Return a function from an address to a client without retries."""
    channels = []

    def open_client(address: str) -> Client:
        channel = grpc.insecure_channel(address, options=[("grpc.enable_retries", 0)])
        channels.append(channel)
        return Client(channel)

    yield open_client
    for channel in channels:
        channel.close()


def _fail(error: DeviceFailedError) -> None:
    pytest.fail(str(error))


@pytest.fixture(scope="session")
def local_repository(
    tmp_path_factory: pytest.TempPathFactory, engine_store: EngineStore, adder_key: str, echo_key: str
) -> Iterator[Repository]:
    """Models in this process: real engines, no wire."""
    request = serve_request(engine_store, {"adder": adder_key, "echo": echo_key})
    repository = Repository(request.models)
    loading = Loading(folder=tmp_path_factory.mktemp("loaded"), queue_limit=8, reporter=SilentReporter())
    for served in request.models:
        repository.make_ready(load_model(served, loading))
    yield repository
    for entry in repository:
        assert entry.model is not None
        entry.model.pool.close(1.0)


def infer_locally(repository: Repository) -> Callable[[Message | bytes], Answer | ProtocolError]:
    """Return a function that answers ModelInfer in this process."""
    inference = Inference(repository, InferenceLimits(max_message_bytes=1 << 20), None, _fail)

    def infer(message: Message | bytes) -> Answer | ProtocolError:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        answers: list[Answer | ProtocolError] = []
        try:
            inference.infer(data, CallContext(may_run_here=True), answers.append)
        except ProtocolError as error:
            return error
        (answer,) = answers
        return answer

    return infer


@pytest.fixture(scope="session")
def local_inference(local_repository: Repository) -> Callable[[Message | bytes], Answer | ProtocolError]:
    """Answers ModelInfer in this process: real engines, no wire."""
    return infer_locally(local_repository)


@pytest.fixture(scope="session")
def adder_request() -> MakeRequest:
    return make_adder_request


@pytest.fixture(scope="session")
def slow_request() -> MakeRequest:
    return make_slow_request


def make_adder_request(rows: int = 2, **fields: Any) -> pb.ModelInferRequest:
    """Return a request for `a` = 0, 1, 2, ... and `b` = 1."""
    a = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    return pb.ModelInferRequest(
        model_name="adder",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=[rows, 4]) for name in ("a", "b")
        ],
        raw_input_contents=[a.tobytes(), np.ones_like(a).tobytes()],
        **fields,
    )


def make_slow_request(steps: int, **fields: Any) -> pb.ModelInferRequest:
    """Return a request that multiplies matrices `steps` times; a few hundred microseconds each."""
    return pb.ModelInferRequest(
        model_name="slow",
        inputs=[pb.ModelInferRequest.InferInputTensor(name="steps", datatype="INT64", shape=[1])],
        raw_input_contents=[np.array([steps], np.int64).tobytes()],
        **fields,
    )
