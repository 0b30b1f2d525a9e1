"""Runs an engine in ONNX Runtime: one session, shared by every instance.

A session is thread-safe, and its weights and thread pool are expensive, so instances are only handles of it. The loader
sets the number of threads, because ONNX Runtime counts the cores of the machine and not those of the pod.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from typing_extensions import override

from enginesmith_contract.backends import Backend
from enginesmith_contract.errors import EngineRefusedError, InferenceError, SpecError
from enginesmith_contract.manifest import Manifest
from enginesmith_contract.providers import Provider, find_provider
from enginesmith_contract.tensors import DType, TensorSpec
from enginesmith_runtime.engines.device import host_hardware
from enginesmith_runtime.engines.interface import Array, DeviceArray, Engine, Instance, no_device_memory
from enginesmith_runtime.engines.onnxruntime.in_place import InPlace, has_sorting_nodes
from enginesmith_runtime.engines.onnxruntime.options import provider_options, session_options
from enginesmith_runtime.engines.refusal import refuse_unless_fits

__all__ = [
    "MOST_THREADS",
    "OnnxRuntimeEngine",
    "OnnxRuntimeInstance",
    "OnnxRuntimeLoader",
    "check_provider",
    "is_out_of_memory",
    "refuse_bf16",
]

# Messages of ONNX Runtime's arena and the C++ library, because there is no error code for this.
_OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory")

# Key in the inspector's report of an engine that gives wrong results with more threads in a node (see `scatters`).
MOST_THREADS: Final = "mostIntraOpThreads"

_NOWHERE: Final[Mapping[str, DeviceArray]] = {}


class OnnxRuntimeLoader:
    """Loads engines of the onnxruntime backend."""

    backend = Backend.ONNXRUNTIME

    def version(self) -> str:
        """Return ONNX Runtime's version."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def load(
        self, manifest: Manifest, files: Path, options: Mapping[str, str], *, instances: int = 1
    ) -> "OnnxRuntimeEngine":
        """Open a session on the engine's model.

        Raises:
            EngineRefusedError: The engine has another version or architecture, or ONNX Runtime cannot read it.
            SpecError: An option is unknown.
        """
        import onnxruntime

        refuse_unless_fits(manifest, host_hardware(), self.version())
        provider = find_provider(manifest.toolchain.provider)
        check_provider(onnxruntime, provider)
        refuse_bf16((*manifest.inputs, *manifest.outputs))
        settings = session_options(onnxruntime, options, instances=instances)
        most = manifest.inspector.get(MOST_THREADS)
        if isinstance(most, int):
            settings.intra_op_num_threads = min(settings.intra_op_num_threads or most, most)
        path = files / manifest.files[0].path
        try:
            session = onnxruntime.InferenceSession(
                str(path),
                settings,
                providers=[(provider.execution_provider, provider_options(provider, options))],
            )
        except Exception as error:  # ONNX Runtime's errors have no other common base
            raise EngineRefusedError(
                "ONNX Runtime cannot load the engine",
                where=path.name,
                why=str(error).strip(),
                remedy="build it again with the installed version",
                reason="EngineUnreadable",
            ) from error
        in_place = provider.name == "cpu" and not has_sorting_nodes(path)
        return OnnxRuntimeEngine(manifest, session, in_place=in_place)


class OnnxRuntimeEngine(Engine):
    """A session and the manifest of its engine.

    Args:
        in_place: Whether tensors may be in a client's memory.
    """

    def __init__(self, manifest: Manifest, session: Any, *, in_place: bool = False) -> None:
        self.manifest = manifest
        self._session = session
        self._dtypes = {spec.name: spec.dtype for spec in (*manifest.inputs, *manifest.outputs)}
        self._in_place = InPlace(self._dtypes if in_place else {})

    @override
    def open_instance(self) -> "OnnxRuntimeInstance":
        if self._session is None:
            raise RuntimeError("the engine is closed")
        return OnnxRuntimeInstance(self._session, self._dtypes, self._in_place)

    @override
    def close(self) -> None:
        self._session = None


class OnnxRuntimeInstance(Instance):
    """A handle of the shared session. Each inference creates new output arrays."""

    outputs_last = True

    def __init__(self, session: Any, dtypes: Mapping[str, DType], in_place: InPlace) -> None:
        self._session = session
        self._dtypes = dtypes
        self._in_place = in_place
        self._texts = frozenset(name for name, dtype in dtypes.items() if dtype is DType.BYTES)

    @override
    def infer(
        self,
        inputs: Mapping[str, Array | DeviceArray],
        *,
        profile: int,
        outputs: Sequence[str],
        into: Mapping[str, DeviceArray] = _NOWHERE,
    ) -> dict[str, Array | DeviceArray]:
        if self._session is None:
            raise RuntimeError("the instance is closed")
        if into:
            raise no_device_memory(Backend.ONNXRUNTIME)
        feed = self._feed(inputs)
        try:
            values = self._session.run(list(outputs), feed)
        except Exception as error:  # ONNX Runtime's errors have no other common base
            said = str(error).strip()
            starved = is_out_of_memory(said)
            raise InferenceError(
                "the inference failed in ONNX Runtime",
                why=said,
                remedy="give it more memory or smaller inputs" if starved else "check the values of the inputs",
                reason="OutOfMemory" if starved else "",
            ) from error
        return {
            name: _to_bytes(value) if name in self._texts else np.asarray(value, order="C")
            for name, value in zip(outputs, values, strict=True)
        }

    @override
    def works_in_place(self, name: str) -> bool:
        return name in self._in_place.names

    @override
    def infer_in_place(
        self,
        inputs: Mapping[str, Array | DeviceArray],
        *,
        profile: int,
        outputs: Sequence[str],
        places: Mapping[str, Array],
    ) -> dict[str, Array | DeviceArray]:
        placed = {name: place for name, place in places.items() if name in self._in_place.names}
        if not placed or self._session is None:
            return self.infer(inputs, profile=profile, outputs=outputs)
        feed = self._feed(inputs)
        try:
            values = self._in_place.run(self._session, feed, outputs, placed)
        except Exception:  # noqa: BLE001 - ONNX Runtime's errors have no other common base
            # Most likely an output has another shape than the model declares. For any other cause, this run also fails.
            result = self.infer(inputs, profile=profile, outputs=outputs)
            self._in_place.forget(placed)
            return result
        return {name: _to_bytes(value) if name in self._texts else value for name, value in values}

    @override
    def staging(self, name: str, shape: tuple[int, ...]) -> Array:
        return np.empty(shape, self._dtypes[name].numpy)

    @override
    def close(self) -> None:
        self._session = None

    def _feed(self, inputs: Mapping[str, Array | DeviceArray]) -> dict[str, Array]:
        feed: dict[str, Array] = {}
        for name, array in inputs.items():
            if isinstance(array, DeviceArray):
                raise no_device_memory(Backend.ONNXRUNTIME)
            feed[name] = _to_text(name, array) if name in self._texts else array
        return feed


def is_out_of_memory(said: str) -> bool:
    """Whether the text of an error is about missing memory."""
    return any(fragment in said for fragment in _OUT_OF_MEMORY)


def check_provider(runtime: Any, provider: Provider) -> None:
    """Refuse a provider that the installed ONNX Runtime does not have.

    Raises:
        EngineRefusedError: The provider is missing. ONNX Runtime would silently use its CPU provider.
    """
    available = runtime.get_available_providers()
    if provider.execution_provider in available:
        return
    raise EngineRefusedError(
        "the installed ONNX Runtime lacks the provider",
        where=f"provider {provider.name}",
        why=f"{provider.execution_provider} is not among {', '.join(available)}",
        remedy=f"install {provider.wheel} instead of the other onnxruntime package",
        reason="ProviderMissing",
    )


def refuse_bf16(specs: Iterable[TensorSpec]) -> None:
    """Refuse inputs and outputs that the Python interface does not support.

    Raises:
        EngineRefusedError: A tensor is BF16.
    """
    for spec in specs:
        if spec.dtype is DType.BF16:
            raise EngineRefusedError(
                "ONNX Runtime's Python interface does not support BF16 tensors",
                where=spec.name,
                remedy="keep the model's inputs and outputs in FP32 and cast them inside it, or use a GPU target",
                reason="DTypeUnsupported",
            )


def _to_text(name: str, array: Array) -> Array:
    # ONNX Runtime would use the Python representation of `bytes` ("b'...'").
    try:
        texts = [value.decode() if isinstance(value, bytes) else str(value) for value in array.ravel()]
    except UnicodeDecodeError as error:
        raise SpecError(
            "a BYTES element is not UTF-8",
            where=name,
            why=str(error),
            remedy="send text; this backend's string tensors support only UTF-8 text",
            reason="BytesNotUtf8",
        ) from error
    return np.array(texts, dtype=object).reshape(array.shape)


def _to_bytes(array: Array) -> Array:
    result = np.empty(array.size, dtype=object)
    for index, value in enumerate(array.ravel()):
        result[index] = str(value).encode()
    return result.reshape(array.shape)
