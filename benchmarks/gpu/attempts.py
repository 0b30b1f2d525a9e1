"""The attempts of section `refusals`.

Usage: python -m benchmarks.gpu.attempts WORK BACKEND NAME; prints what the attempt came to as one line of JSON.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.gpu.documents import DOCUMENTS, Document, Workplace
from benchmarks.gpu.engine_loop import open_engine
from onnx import TensorProto, helper, numpy_helper

from enginesmith_contract.build_request import BuildRequest
from enginesmith_contract.errors import EnginesmithError
from enginesmith_contract.keys import engine_key
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.profiles import Profile
from enginesmith_contract.serve_request import ServedModel
from enginesmith_contract.store_layout import engine_pointer
from enginesmith_runtime.build.device_check import check_device
from enginesmith_runtime.build.pipeline import build
from enginesmith_runtime.engines.device import detect_devices
from enginesmith_runtime.progress import SilentReporter
from enginesmith_runtime.server.loading import Loading, load_model
from enginesmith_runtime.store.open import open_store

__all__ = ["ATTEMPTS", "Attempt"]

_ENGINE: Final = "cls-fp32"
_LEFT_BYTES: Final = 48 << 20


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One bad input.

    Attributes:
        wanted: the reason that the refusal must have; "accepted" where nothing can find it.
        injected: what a single GPU cannot show and is put in at the boundary.
        alone: needs the GPU's memory to itself.
    """

    name: str
    run: Callable[[Workplace], object]
    wanted: str
    injected: bool = False
    alone: bool = False


def _serve(work: Workplace, name: str, change: Callable[[Manifest, Path], Manifest]) -> object:
    """Load as a server does, from a store with one altered engine."""
    manifest = work.manifest(name)
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        folder = Path(scratch) / "files"
        open_store(work.store).get_files(
            (*manifest.files, *(one.file for one in manifest.references)), folder, private=True
        )
        altered = change(manifest, folder)
        store = open_store((Path(scratch) / "store").as_uri())
        paths = [folder / file.path for file in altered.files]
        files = store.put_files(folder, paths)
        store.put_files(folder, [folder / one.file.path for one in altered.references])
        altered = altered.model_copy(update={"files": files})
        store.create_pointer(engine_pointer(altered.engine_key), altered.to_json())
        served = ServedModel(name=name, target="only", engine_key=altered.engine_key, store=store.uri)
        loading = Loading(folder=Path(scratch) / "open", queue_limit=8, reporter=SilentReporter())
        return load_model(served, loading)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def _flipped_in_the_store(work: Workplace) -> object:
    manifest = work.manifest(_ENGINE)
    with tempfile.TemporaryDirectory(dir=work.root) as scratch:
        copy = Path(scratch) / "store"
        shutil.copytree(work.root / "store", copy)
        _flip(copy / "blobs" / "sha256" / manifest.files[0].digest.removeprefix("sha256:"))
        served = ServedModel(name="cls", target="only", engine_key=manifest.engine_key, store=copy.as_uri())
        loading = Loading(folder=Path(scratch) / "open", queue_limit=8, reporter=SilentReporter())
        return load_model(served, loading)


def _flipped_with_its_digest(work: Workplace) -> object:
    def change(manifest: Manifest, folder: Path) -> Manifest:
        _flip(folder / manifest.files[0].path)
        return manifest

    return _serve(work, _ENGINE, change)


def _truncated(work: Workplace) -> object:
    def change(manifest: Manifest, folder: Path) -> Manifest:
        plan = folder / manifest.files[0].path
        plan.write_bytes(plan.read_bytes()[:-4096])
        return manifest

    return _serve(work, _ENGINE, change)


def _other_library(work: Workplace) -> object:
    """Serve a plan that begins as those of another library's format do."""

    def change(manifest: Manifest, folder: Path) -> Manifest:
        plan = folder / manifest.files[0].path
        data = bytearray(plan.read_bytes())
        data[:4] = b"vtrt"
        plan.write_bytes(data)
        return manifest

    return _serve(work, _ENGINE, change)


def _other_version(work: Workplace) -> object:
    def change(manifest: Manifest, _folder: Path) -> Manifest:
        version = {"version": "10.15.1"}
        inputs = manifest.key_inputs.model_copy(update={"backend_version": "10.15.1"})
        toolchain = manifest.toolchain.model_copy(update=version)
        return manifest.model_copy(
            update={"toolchain": toolchain, "key_inputs": inputs, "engine_key": engine_key(inputs)}
        )

    return _serve(work, _ENGINE, change)


def _other_gpu(work: Workplace) -> object:
    def change(manifest: Manifest, _folder: Path) -> Manifest:
        hardware = manifest.hardware.model_copy(
            update={"product": "NVIDIA-A100-SXM4-80GB", "compute_capability": "8.0", "multiprocessors": 108}
        )
        return manifest.model_copy(update={"hardware": hardware})

    return _serve(work, _ENGINE, change)


def _lying_profile(work: Workplace) -> object:
    def change(manifest: Manifest, _folder: Path) -> Manifest:
        (profile,) = manifest.profiles
        document = json.loads(profile.to_json())
        for ranges in document["inputs"].values():
            ranges["max"][0] = 64
        return manifest.model_copy(update={"profiles": (Profile.from_json(json.dumps(document).encode()),)})

    return _serve(work, _ENGINE, change)


def _mislabelled(work: Workplace) -> object:
    os.environ["ENGINESMITH_NODE_PRODUCT"] = "NVIDIA-A100-SXM4-80GB"
    return _serve(work, _ENGINE, lambda manifest, _folder: manifest)


def _build_for(work: Workplace, **changes: object) -> object:
    """Build for hardware that is not here, as the operator asks where a node's labels lie."""
    manifest = work.manifest(_ENGINE)
    inputs = manifest.key_inputs.model_copy(update={"epoch": 9, "gpu_product": changes.get("product")})
    request = BuildRequest(
        engine_key=engine_key(inputs),
        key_inputs=inputs,
        store=work.store,
        toolchain=manifest.toolchain,
        hardware=manifest.hardware.model_copy(update=changes),
    )
    try:
        return build(request, work.root, SilentReporter())
    finally:
        stored = open_store(work.store).read_pointer(engine_pointer(request.engine_key))
        print(f"stored under the wrong GPU: {stored is not None}", file=sys.stderr)


def _build_on_a_mislabelled_node(work: Workplace) -> object:
    return _build_for(work, product="NVIDIA-A100-SXM4-80GB", compute_capability="8.0")


def _build_with_an_old_driver(work: Workplace) -> None:
    """Check as the build's process does, with another version in place of the driver's."""
    manifest = work.manifest(_ENGINE)
    request = BuildRequest(
        engine_key=manifest.engine_key,
        key_inputs=manifest.key_inputs,
        store=work.store,
        toolchain=manifest.toolchain,
        hardware=manifest.hardware,
    )
    (device, *_) = detect_devices()
    check_device(device.model_copy(update={"driver": "470.57.02"}), request)


def _build_without_a_device(work: Workplace) -> object:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    document = next(one for one in DOCUMENTS if one.name == _ENGINE)
    return work.build(document.engine(work.backend, epoch=10))


def _serve_without_a_device(work: Workplace) -> object:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return _serve(work, _ENGINE, lambda manifest, _folder: manifest)


@contextlib.contextmanager
def _memory_taken(left_bytes: int) -> Iterator[None]:
    """Let another process hold the GPU's memory but for `left_bytes`."""
    program = (
        "import sys; from cuda.bindings import runtime as rt\n"
        "rt.cudaSetDevice(0); rt.cudaFree(0); held=[]\n"
        f"size = rt.cudaMemGetInfo()[1] - {left_bytes}\n"
        "while size > 1 << 20:\n"
        "    error, _ = rt.cudaMalloc(size)\n"
        "    size = size // 2 if int(error) else rt.cudaMemGetInfo()[1] - " + str(left_bytes) + "\n"
        "print(rt.cudaMemGetInfo()[1] >> 20, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        print(f"MiB left to others: {process.stdout.readline().strip()}", file=sys.stderr)
        try:
            yield
        finally:
            process.kill()


def _full_gpu_on_load(work: Workplace) -> object:
    with _memory_taken(_LEFT_BYTES):
        return _serve(work, "resnet50-fp16", lambda manifest, _folder: manifest)


def _full_gpu_in_build(work: Workplace) -> object:
    document = next(one for one in DOCUMENTS if one.name == "resnet50-fp16")
    with _memory_taken(_LEFT_BYTES):
        return work.build(document.engine(work.backend, epoch=7))


def _nan_gate(work: Workplace) -> object:
    """Build a model in FP16 whose middle is beyond 65504; what is cast from FP32 would stay in FP32 there."""
    width = 256
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "up"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["kept"]),
        helper.make_node("MatMul", ["kept", "down"], ["narrow"]),
        helper.make_node("Cast", ["narrow"], ["y"], to=TensorProto.FLOAT),
    ]
    up = numpy_helper.from_array(np.full((width, width), 900, np.float16), "up")
    down = numpy_helper.from_array((np.eye(width) * 1e-5).astype(np.float16), "down")
    shape: list[str | int] = ["batch", width]
    graph = helper.make_graph(
        nodes,
        "overflow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [up, down],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (work.models / "overflow.onnx").write_bytes(model.SerializeToString())
    document = Document(
        name="overflow",
        model="overflow",
        tensor="x",
        ranges=((1, width), (4, width), (8, width)),
        precision="fp32",
    )
    return work.build(document.engine(work.backend))


def _plugin(work: Workplace, name: str, content: bytes | None, digest: str | None = None) -> object:
    path = work.models / name
    if content is not None:
        path.write_bytes(content)
    sha256 = digest or hashlib.sha256(content or b"").hexdigest()
    document = next(one for one in DOCUMENTS if one.name == _ENGINE)
    engine = document.engine(work.backend, epoch=8)
    raw = engine.to_document()
    raw["spec"]["build"]["plugins"] = [{"uri": name, "sha256": sha256}]
    return work.build(type(engine).model_validate(raw))


def _plugin_missing(work: Workplace) -> object:
    return _plugin(work, "libmissing.so", None)


def _plugin_of_no_abi(work: Workplace) -> object:
    return _plugin(work, "libgarbage.so", b"no library at all" * 64)


def _plugin_altered(work: Workplace) -> object:
    return _plugin(work, "libaltered.so", b"some bytes", hashlib.sha256(b"others").hexdigest())


def _plugin_forbidden(work: Workplace) -> object:
    os.environ["ENGINESMITH_PLUGINS_ALLOWED"] = "https://plugins.example/"
    return _plugin(work, "libforbidden.so", b"some bytes")


def _beyond_the_pool(work: Workplace) -> object:
    manifest = work.manifest(_ENGINE)
    with work.files(manifest) as folder:
        engine = open_engine(manifest, folder, {"pinnedMemoryLimit": "500Ki"})
        instance = engine.open_instance()
        (spec,) = manifest.inputs
        return instance.infer({spec.name: np.zeros((8, 3, 48, 192), np.float32)}, profile=0, outputs=())


_BAD_KERNEL: Final = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry bad() {
  .reg .u64 %address; .reg .u32 %value;
  mov.u64 %address, 16; mov.u32 %value, 1;
  st.global.u32 [%address], %value;
  ret;
}
\0"""


def _sticky_error(work: Workplace) -> object:
    """Write to an unallocated address from a kernel in the same context, then infer twice."""
    from cuda.bindings import driver  # noqa: PLC0415 - only where there is a GPU

    manifest = work.manifest(_ENGINE)
    with work.files(manifest) as folder:
        engine: Any = open_engine(manifest, folder, {})
        instance = engine.open_instance()
        (spec,) = manifest.inputs
        outputs = tuple(output.name for output in manifest.outputs)
        inputs = {spec.name: np.zeros((1, 3, 48, 192), np.float32)}
        instance.infer(inputs, profile=0, outputs=outputs)
        with engine.gpu.current():
            _, module = driver.cuModuleLoadData(_BAD_KERNEL)
            _, function = driver.cuModuleGetFunction(module, b"bad")
            driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0)
            driver.cuCtxSynchronize()
        first = ""
        try:
            instance.infer(inputs, profile=0, outputs=outputs)
        except EnginesmithError as error:
            first = str(error)
        print(f"first: {first}", file=sys.stderr)
        return instance.infer(inputs, profile=0, outputs=outputs)


ATTEMPTS: Final = (
    Attempt(name="a plan with one flipped byte", run=_flipped_in_the_store, wanted="Tampered"),
    Attempt(name="the same with a digest that fits: TensorRT alone", run=_flipped_with_its_digest, wanted="accepted"),
    Attempt(name="a truncated plan", run=_truncated, wanted="EngineTruncated"),
    Attempt(name="a plan in another library's format", run=_other_library, wanted="NotAnEngine"),
    Attempt(name="a plan of another TensorRT version", run=_other_version, wanted="SameVersion", injected=True),
    Attempt(name="a plan for another GPU", run=_other_gpu, wanted="SameProduct", injected=True),
    Attempt(name="a manifest whose profile lies", run=_lying_profile, wanted="ManifestDiffers"),
    Attempt(name="a mislabelled node", run=_mislabelled, wanted="NodeMislabelled", injected=True),
    Attempt(name="a build on a mislabelled node", run=_build_on_a_mislabelled_node, wanted="WrongDevice"),
    Attempt(name="a build with an old driver", run=_build_with_an_old_driver, wanted="DriverFloor", injected=True),
    Attempt(name="a build that sees no device", run=_build_without_a_device, wanted="NoDevice"),
    Attempt(name="a server that sees no device", run=_serve_without_a_device, wanted="NoDevice"),
    Attempt(name="a plugin library that is missing", run=_plugin_missing, wanted="PluginMissing"),
    Attempt(name="a plugin library of no ABI", run=_plugin_of_no_abi, wanted="PluginRefused"),
    Attempt(name="a plugin library with other bytes", run=_plugin_altered, wanted="DigestMismatch"),
    Attempt(name="a plugin library that is not allowed", run=_plugin_forbidden, wanted="PluginNotAllowed"),
    Attempt(name="an FP16 engine beyond FP16's range", run=_nan_gate, wanted="VerificationFailed"),
    Attempt(name="a request larger than the pools", run=_beyond_the_pool, wanted="RequestTooLarge"),
    Attempt(name="a kernel that breaks the context", run=_sticky_error, wanted="DeviceFailed"),
    Attempt(name="a GPU too full to load", run=_full_gpu_on_load, wanted="OutOfMemory", alone=True),
    Attempt(name="a GPU too full to build", run=_full_gpu_in_build, wanted="OutOfMemory", alone=True),
)


def main() -> None:
    """Try one."""
    root, backend, name = sys.argv[1:]
    attempt = next(one for one in ATTEMPTS if one.name == name)
    found: dict[str, Any] = {"reason": "accepted", "message": ""}
    try:
        attempt.run(Workplace(root=Path(root), backend=backend))
    except EnginesmithError as error:
        found = {
            "reason": error.reason,
            "kind": type(error).__name__,
            "exitCode": int(error.exit_code),
            "message": str(error),
        }
    # The process may hold a broken context, whose release would fail.
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
