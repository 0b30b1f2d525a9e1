"""Models as artifacts in an OCI registry: one layer for each file, named by its title annotation (as with `oras push`).

    oci://REGISTRY/REPOSITORY:TAG  or  oci://REGISTRY/REPOSITORY@sha256:...  and #NAME.onnx if there are several

Credentials are those of container tools: in a pod, the Secret of the source if it is a registry Secret, else
config.json in the folder DOCKER_CONFIG.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Final

from enginesmith_contract import environment
from enginesmith_contract.errors import EnginesmithError, SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.text import one_line
from enginesmith_runtime.connection_limits import refusals_explained
from enginesmith_runtime.fetch.location import redact
from enginesmith_runtime.fetch.options import check_options, is_on
from enginesmith_runtime.fetch.origin import Transfer
from enginesmith_runtime.fetch.reasons import SourceReason
from enginesmith_runtime.fetch.signatures import CosignSignature, SignedArtifact
from enginesmith_runtime.registry_session import (
    DENIED,
    NOT_FOUND,
    LoginMissingError,
    RegistrySession,
    open_session,
    say_answer,
)
from enginesmith_runtime.storage_clients import INSTALL, REGISTRY, missing_module

__all__ = ["RegistryOrigin"]

_TITLE: Final = "org.opencontainers.image.title"
_COSIGN: Final = "dev.cosignproject.cosign/signature"
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
# Largest number of bytes that are lost if the connection breaks.
_READ_BYTES: Final = 64 << 10
_OK: Final = 200
_PARTIAL: Final = 206


class RegistryOrigin:
    """The files of one artifact.

    Attributes:
        model: Title of the layer with the model, or of the first file if any file is accepted.
    """

    def __init__(self, source: ModelSource, *, is_model: bool = True) -> None:
        """Read the artifact's manifest.

        Args:
            source: Source of the artifact.
            is_model: Whether the artifact must have exactly one model if the address does not name a file.

        Raises:
            enginesmith_contract.errors.SourceError: `MissingClient`, `UnknownOption`, `NotFound`, `AccessDenied`,
                `ConnectionLost`.
        """
        check_options(source, ("plainHttp",))
        reference, _, wanted = source.uri.partition("://")[2].partition("#")
        self._where = redact(source.uri).partition("#")[0]
        with self._translated(self._where):
            self._session = _connect(reference, plain_http=is_on(source, "plainHttp"))
            content = self._request(self._session.container.manifest_url(), self._where).content
        self._digest = sha256(content).hexdigest()
        self._layers = self._layers_of(json.loads(content))
        self.model = wanted or (self._only_model() if is_model else min(self._layers, default=""))

    def list_files(self) -> tuple[str, ...]:
        """Return the titles of all files."""
        return tuple(sorted(self._layers))

    def describe(self, name: str) -> str:
        """Return the address of the file, with its name as the fragment."""
        return f"{self._where}#{name}"

    @contextmanager
    def open(self, name: str, *, offset: int, validator: str | None) -> Iterator[Transfer]:
        """Request a layer. Its digest is the validator. See `Origin.open`."""
        where = self.describe(name)
        layer = self._layers.get(name)
        if layer is None:
            raise SourceError(
                "the artifact has no such file",
                where=where,
                why=f"it has {', '.join(sorted(self._layers)) or 'no file with a title'}",
                reason=SourceReason.NOT_FOUND,
            )
        digest = str(layer["digest"])
        resumes = offset if validator == digest and offset < int(layer["size"]) else 0
        with self._translated(where):
            url = self._session.container.get_blob_url(digest)
            response = self._request(url, where, {"Range": f"bytes={resumes}-"} if resumes else {})
            with response:
                yield Transfer(
                    offset=resumes if response.status_code == _PARTIAL else 0,
                    total_bytes=int(layer["size"]),
                    validator=digest,
                    chunks=response.iter_content(_READ_BYTES),
                )

    def signed_artifact(self) -> SignedArtifact:
        """Return the digests of the artifact and its cosign signatures."""
        layers = {name: str(layer["digest"]) for name, layer in self._layers.items()}
        return SignedArtifact(self._digest, layers, self._signatures())

    def _signatures(self) -> Iterator[CosignSignature]:
        with self._translated(self._where):
            tag = f"sha256-{self._digest}"
            for layer in self._manifest(f"{tag}.sig").get("layers", ()):
                yield CosignSignature(self._blob(layer), str(layer.get("annotations", {}).get(_COSIGN, "")))
            # Read the referrers of the artifact. If the registry has no referrers API, cosign writes an index under the
            # tag.
            entries = self._manifest(f"sha256:{self._digest}", "referrers") or self._manifest(tag)
            for entry in entries.get("manifests", ()):
                for layer in self._manifest(str(entry["digest"])).get("layers", ()):
                    if str(layer.get("mediaType", "")).startswith(_BUNDLE):
                        yield CosignSignature(self._blob(layer), None)

    def _manifest(self, reference: str, kind: str = "manifests") -> dict[str, Any]:
        """Return a document of the repository, or an empty one if it does not exist."""
        url = self._session.container.manifest_url(reference).replace("/manifests/", f"/{kind}/", 1)
        try:
            return dict(self._request(url, self._where).json())
        except SourceError as error:
            if error.reason != SourceReason.NOT_FOUND:
                raise
            return {}

    def _blob(self, layer: Mapping[str, Any]) -> bytes:
        url = self._session.container.get_blob_url(str(layer["digest"]))
        return bytes(self._request(url, self._where).content)

    def _request(self, url: str, where: str, headers: Mapping[str, str] | None = None) -> Any:
        import oras.defaults

        accept = ", ".join(oras.defaults.default_manifest_accepted_media_types)
        response = self._session.request("GET", url, headers={"Accept": accept, **(headers or {})}, stream=True)
        if response.status_code in (_OK, _PARTIAL):
            return response
        answer = redact(say_answer(response))
        response.close()
        if response.status_code == NOT_FOUND:
            raise SourceError(
                "there is no such artifact",
                where=where,
                why=answer,
                remedy="check repository and tag",
                reason=SourceReason.NOT_FOUND,
            )
        if response.status_code in DENIED:
            raise _denied(where, answer)
        raise SourceError(
            "the registry did not send the model",
            where=where,
            why=answer,
            remedy="try again later",
            reason=SourceReason.CONNECTION_LOST,
            retry=True,
        )

    def _layers_of(self, manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        if "layers" not in manifest:
            raise SourceError(
                "this is an index of images, not an artifact",
                where=self._where,
                remedy="push the model as a separate artifact (oras push REFERENCE model.onnx)",
                reason=SourceReason.NOT_FOUND,
            )
        layers = manifest["layers"]
        titled = {layer.get("annotations", {}).get(_TITLE, ""): layer for layer in layers}
        if len(layers) == 1 and "" in titled:
            return {"model.onnx": layers[0]}
        return {title: layer for title, layer in titled.items() if title and not _leaves(title)}

    def _only_model(self) -> str:
        models = [title for title in self._layers if title.endswith(".onnx")]
        if len(models) == 1:
            return models[0]
        raise SourceError(
            "the artifact has several models" if models else "the artifact has no .onnx file",
            where=self._where,
            why=f"its files are {', '.join(sorted(self._layers)) or 'without titles'}",
            remedy="add # and the name of one at the end of the address",
            reason=SourceReason.NOT_FOUND,
        )

    @contextmanager
    def _translated(self, where: str) -> Iterator[None]:
        with refusals_explained(where, SourceError):
            try:
                yield
            except EnginesmithError:
                # Errors of a reporter or the disk inside the `with` are not errors of the client.
                raise
            except ValueError as error:
                raise _denied(where, redact(str(error))) from error
            except Exception as error:  # exceptions of requests, urllib3 and oras
                raise SourceError(
                    "the connection failed",
                    where=where,
                    why=redact(one_line(str(error))),
                    remedy="try again: the download resumes",
                    reason=SourceReason.CONNECTION_LOST,
                    retry=True,
                ) from error


def _leaves(title: str) -> bool:
    """Whether a file of this name would be outside the artifact's folder."""
    path = PurePosixPath(title)
    return path.is_absolute() or ".." in path.parts


def _connect(reference: str, *, plain_http: bool) -> RegistrySession:
    mounted = os.environ.get(environment.SOURCE_CREDENTIALS)
    try:
        return open_session(reference, plain_http=plain_http, configuration=Path(mounted) if mounted else None)
    except ImportError as error:
        raise SourceError(
            f"the client for {REGISTRY.scheme}:// is not installed",
            where=f"oci://{reference}",
            why=missing_module(REGISTRY, error),
            remedy=INSTALL,
            reason=SourceReason.MISSING_CLIENT,
        ) from error
    except LoginMissingError as error:
        raise _denied(f"oci://{reference}", str(error)) from error


def _denied(where: str, why: str) -> SourceError:
    return SourceError(
        "the registry denies access to the model",
        where=where,
        why=why,
        remedy=f"log in with a container tool, or set {REGISTRY.credentials}",
        reason=SourceReason.ACCESS_DENIED,
    )
