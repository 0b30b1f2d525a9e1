"""A store with real engines, filled without the preparation, which has tests of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from tests.server.onnx_models import DTYPES

from enginesmith_contract.backends import Backend, Hardware, Toolchain
from enginesmith_contract.keys import EngineKeyInputs, engine_key
from enginesmith_contract.manifest import Manifest, Timings
from enginesmith_contract.preparation import Batching, ReferenceSet
from enginesmith_contract.profiles import Profile
from enginesmith_contract.store_layout import content_digest, engine_pointer
from enginesmith_contract.tensors import TensorSpec
from enginesmith_contract.verification import Verification, VerificationStatus
from enginesmith_runtime.engines.device import host_hardware
from enginesmith_runtime.store.open import open_store


@dataclass(frozen=True, kw_only=True)
class Publication:
    """One ONNX file to publish as an engine, of the onnxruntime backend where `gpu` is None."""

    model: Path
    gpu: Hardware | None = None
    profiles: tuple[Profile, ...] = ()
    batching: Batching = field(default_factory=lambda: Batching(proved=False))
    version: str = onnxruntime.__version__
    verification: Verification = field(default_factory=lambda: Verification(status=VerificationStatus.PASSED))
    references: Mapping[str, np.ndarray] | None = None

    @property
    def backend(self) -> Backend:
        """What runs it."""
        return Backend.ONNXRUNTIME if self.gpu is None else Backend.TENSORRT

    @property
    def provider(self) -> str | None:
        """ONNX Runtime's; None on a GPU, which TensorRT has."""
        return "cpu" if self.gpu is None else None


class EngineStore:
    """A real store in a folder, filled without the preparation, which has tests of its own."""

    def __init__(self, folder: Path) -> None:
        self.uri = str(folder / "store")
        self._scratch = folder
        self._store = open_store(self.uri)

    def publish(self, publication: "Publication | None" = None, **fields: Any) -> str:
        """Store a model with a manifest that says what it is (fields of Publication); returns the engine key."""
        publication = publication or Publication(**fields)
        path = publication.model
        inputs = EngineKeyInputs(
            preparation_key="0" * 64,
            backend=publication.backend,
            backend_version=publication.version,
            arch=host_hardware().arch,
            gpu_product=publication.gpu and publication.gpu.product,
            provider=publication.provider,
            flags={"model": str(path), "profiles": repr(publication.profiles), "is": repr(publication.verification)},
        )
        files = self._store.put_files(path.parent, [path])
        graph = onnx.load(path).graph
        initialised = {tensor.name for tensor in graph.initializer}
        manifest = Manifest(
            engine_key=engine_key(inputs),
            key_inputs=inputs,
            source_digest=files[0].digest,
            engine_digest=content_digest(files),
            files=files,
            inputs=tuple(_spec(value) for value in graph.input if value.name not in initialised),
            outputs=tuple(_spec(value) for value in graph.output),
            profiles=publication.profiles,
            batching=publication.batching,
            toolchain=Toolchain(
                name=publication.backend.value,
                backend=publication.backend,
                version=publication.version,
                provider=publication.provider,
            ),
            hardware=publication.gpu or host_hardware(),
            timings=Timings(build_seconds=0.1),
            verification=publication.verification,
            references=self._put_references(publication),
            created_at="2026-11-23T00:00:00Z",
        )
        self._store.create_pointer(engine_pointer(manifest.engine_key), manifest.to_json())
        return manifest.engine_key

    def manifest(self, key: str) -> Manifest:
        """Return what the store says of the engine."""
        document = self._store.read_pointer(engine_pointer(key))
        assert document is not None
        return Manifest.from_json(document)

    def blob_of(self, key: str) -> Path:
        """Return the path of the engine's first file."""
        return Path(self.uri) / "blobs" / "sha256" / self.manifest(key).files[0].digest

    def _put_references(self, publication: Publication) -> tuple[ReferenceSet, ...]:
        if publication.references is None:
            return ()
        path = self._scratch / f"{publication.model.stem}-reference.npz"
        np.savez(path, allow_pickle=False, **publication.references)
        (file,) = self._store.put_files(path.parent, [path])
        return (ReferenceSet(profile="default", point="opt", file=file),)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    return TensorSpec(
        name=value.name,
        dtype=DTYPES[tensor.elem_type],
        shape=tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims),
        symbols=tuple(dim.dim_param or None for dim in dims),
    )
