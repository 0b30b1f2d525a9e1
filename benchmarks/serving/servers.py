"""How each server is started for one model: ours on each transport, the peers, the limits."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving.client import Row, Work, wait_ready
from benchmarks.serving.environment import build_cpp, build_native, compiled_runtime, onnxruntime_library, python_of
from benchmarks.serving.models import Model

__all__ = ["SERVERS", "Launch", "Server", "running"]

_ROOT = Path(__file__).resolve().parent.parent.parent
_PEERS = Path(__file__).resolve().parent / "peers"
_STOP_SECONDS = 20
_LARGEST = 64 << 20
_KEPT_HEAP = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
_ENGINE = """\
apiVersion: enginesmith.io/v1alpha1
kind: InferenceEngine
metadata: {{name: {name}}}
spec:
  model: {{uri: {file}}}
  profiles:
    - name: all
      inputs: {{{input}: {{min: {shape}, opt: {shape}, max: {largest}}}}}
  serving: {{drainDelay: 0s, maxQueued: 1024{serving}}}
  targets:
    - {{name: cpu, backend: onnxruntime}}
"""


_TRITON = """\
backend: "python"
max_batch_size: {batch}
input [ {{ name: "{input}" data_type: TYPE_FP32 dims: [ {shape} ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {shape} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "file" value {{ string_value: "{file}" }} }}
{batching}
"""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What a server is started for.

    Attributes:
        file: of the model.
        names: of its input and its output.
        folder: its own, and kept for the whole run.
        batching: whether requests shall be joined, where the server can.
    """

    model: Model
    file: Path
    names: tuple[str, str]
    port: int
    folder: Path
    batching: bool


@dataclass(frozen=True, kw_only=True)
class Server:
    """One column of the comparison.

    Attributes:
        command: how to start it; raises NotAvailableError.
        shared_memory: whether it takes tensors in system shared memory.
        echo: whether it returns its input, so that its responses are right only for the identity.
        quick: whether the quick run has it.
    """

    name: str
    command: Callable[[Launch], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    shared_memory: bool = False
    echo: bool = False
    quick: bool = False

    def serves(self, row: Row) -> bool:
        """Return whether it can do the work of a row."""
        return self.shared_memory or not row.shared


def _ours(launch: Launch, *more: str) -> list[str]:
    model = launch.model
    spec = launch.folder / "engine.yaml"
    spec.write_text(
        _ENGINE.format(
            name=model.name,
            file=launch.file,
            input=launch.names[0],
            shape=list(model.shape),
            largest=list(model.largest),
            serving=", batching: {enabled: true, maxQueueDelay: 2ms}" if launch.batching else "",
        )
    )
    # One home for every transport: the engine is built once.
    home = launch.folder.parent / "home"
    command = [sys.executable, "-m", "enginesmith_cli.main", "up", str(spec), "--home", str(home), "--shared-memory"]
    return [*command, "--address", f"127.0.0.1:{launch.port}", "--metrics-address", "127.0.0.1:0", *more]


def _compiled(launch: Launch, *more: str) -> list[str]:
    return ["env", f"PYTHONPATH={compiled_runtime()}", *_ours(launch, *more)]


def _grpcio(*kind: str) -> Callable[[Launch], list[str]]:
    program = [sys.executable, "-m", "benchmarks.serving.peers.grpcio_server"]
    return lambda launch: [*program, str(launch.port), *_model(launch), *kind]


def _kserve(launch: Launch) -> list[str]:
    python = python_of("kserve", ["kserve==0.21.0"])
    return [str(python), str(_PEERS / "kserve_server.py"), str(launch.port), str(_free_port()), *_model(launch)]


def _mlserver(launch: Launch) -> list[str]:
    # Its parallel workers need this uvloop.
    python = python_of("mlserver", ["mlserver==1.7.1", "uvloop==0.21.0"])
    settings = {
        "grpc_port": launch.port,
        "http_port": _free_port(),
        "metrics_port": _free_port(),
        "parallel_workers": 0,
        "grpc_max_message_length": _LARGEST,
    }
    model = {
        "name": launch.model.name,
        "implementation": "mlserver_model.OnnxModel",
        "parameters": {"uri": str(launch.file)},
    }
    (launch.folder / "settings.json").write_text(json.dumps(settings))
    (launch.folder / "model-settings.json").write_text(json.dumps(model))
    return [str(python.parent / "mlserver"), "start", str(launch.folder)]


def _triton(launch: Launch) -> list[str]:
    python = python_of("triton", ["nvidia-pytriton==0.7.0"])
    (server,) = python.parent.parent.glob("lib/python*/site-packages/pytriton/tritonserver")
    model = launch.folder / "models" / launch.model.name
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text((_PEERS / "triton_model.py").read_text())
    shape = ", ".join("-1" for _ in launch.model.shape[1:])
    (model / "config.pbtxt").write_text(
        _TRITON.format(
            batch=launch.model.largest[0],
            input=launch.names[0],
            output=launch.names[1],
            shape=shape,
            file=launch.file,
            batching="dynamic_batching { max_queue_delay_microseconds: 2000 }" if launch.batching else "",
        )
    )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backends = launch.folder / "backends"
    shutil.copytree(server / "backends", backends, symlinks=True)
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, backends / "python" / "triton_python_backend_stub")
    path = f"{python.parent}:{os.environ['PATH']}"
    packages = server.parent.parent
    (libraries,) = packages.glob("nvidia_pytriton.libs")
    return [
        "env",
        f"LD_LIBRARY_PATH={libraries}",
        f"PATH={path}",
        f"PYTHONPATH={packages}",
        str(server / "bin" / "tritonserver"),
        f"--model-repository={launch.folder / 'models'}",
        f"--backend-directory={backends}",
        f"--grpc-port={launch.port}",
        "--allow-http=false",
        "--allow-metrics=false",
    ]


def _model(launch: Launch) -> list[str]:
    return [launch.model.name, str(launch.file)]


def _ceiling(launch: Launch) -> list[str]:
    model = f"{launch.model.name}={launch.file}"
    return [str(build_native() / "ceiling"), str(launch.port), "2", str(onnxruntime_library()), model]


def _echo(launch: Launch) -> list[str]:
    return [str(build_native() / "ceiling"), str(launch.port), "2", ""]


def _cpp(launch: Launch) -> list[str]:
    return [str(build_cpp()), str(launch.port), "2", str(onnxruntime_library()), str(launch.file)]


SERVERS = {
    server.name: server
    for server in (
        Server(name="enginesmith", command=_compiled, shared_memory=True, quick=True),
        Server(name="enginesmith-sources", command=_ours, shared_memory=True, quick=True),
        Server(
            name="enginesmith-grpcio",
            command=lambda launch: _compiled(launch, "--transport", "grpcio"),
            shared_memory=True,
            quick=True,
        ),
        Server(name="grpcio", command=_grpcio("threads"), shared_memory=True, quick=True),
        Server(
            name="grpcio-best",
            command=_grpcio("threads", "best"),
            environment=_KEPT_HEAP,
            shared_memory=True,
        ),
        Server(name="grpc.aio", command=_grpcio("aio")),
        Server(name="triton-python", command=_triton, shared_memory=True),
        Server(name="kserve", command=_kserve),
        Server(name="mlserver", command=_mlserver, environment={"PYTHONPATH": str(_PEERS)}),
        Server(name="cpp", command=_cpp, quick=True),
        Server(name="rust", command=_ceiling, quick=True),
        Server(name="rust-echo", command=_echo, echo=True),
    )
}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def running(server: Server, work: Work, file: Path, folder: Path, *, batching: bool) -> Iterator[tuple[str, int]]:
    """Run a server; yields its address and its process, once it answers.

    Raises:
        NotAvailableError: it cannot be had here.
        RuntimeError: it does not start.
    """
    folder.mkdir(exist_ok=True)
    launch = Launch(model=work.model, file=file, names=work.names, port=_free_port(), folder=folder, batching=batching)
    command = server.command(launch)
    environment = {**os.environ, "ENGINESMITH_LOG_FORMAT": "json", **server.environment}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=_ROOT, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        wait_ready(work, f"127.0.0.1:{launch.port}", process)
        yield f"127.0.0.1:{launch.port}", process.pid
    except RuntimeError as error:
        last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{error}; {' '.join(last)}") from error
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
