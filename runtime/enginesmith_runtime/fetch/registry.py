"""Models as artifacts in an OCI registry: one layer a file, named by its title annotation (as `oras push` writes).

    oci://REGISTRY/REPOSITORY:TAG  or  oci://REGISTRY/REPOSITORY@sha256:...  and #NAME.onnx where there are several

Credentials are the container tools' own: config.json in the folder that DOCKER_CONFIG names.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from enginesmith_contract.errors import EnginesmithError, SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.text import one_line
from enginesmith_runtime.fetch.location import redact
from enginesmith_runtime.fetch.options import check_options, is_on
from enginesmith_runtime.fetch.origin import Transfer
from enginesmith_runtime.fetch.reasons import SourceReason
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
# What is lost at most when the connection breaks.
_READ_BYTES: Final = 64 << 10
_OK: Final = 200
_PARTIAL: Final = 206


class RegistryOrigin:
    """The files of one artifact.

    Attributes:
        model: the title of the layer that is the model.
    """

    def __init__(self, source: ModelSource) -> None:
        """Read the artifact's manifest.

        Raises:
            enginesmith_contract.errors.SourceError: `MissingClient`, `UnknownOption`, `NotFound`, `AccessDenied`,
                `ConnectionLost`.
        """
        check_options(source, ("plainHttp",))
        reference, _, wanted = source.uri.partition("://")[2].partition("#")
        self._where = redact(source.uri).partition("#")[0]
        with self._translated(self._where):
            self._session = _connect(reference, plain_http=is_on(source, "plainHttp"))
            manifest = self._request(self._session.container.manifest_url(), self._where).json()
        self._layers = self._layers_of(manifest)
        self.model = wanted or self._only_model()

    def describe(self, name: str) -> str:
        """Return the file's address, as the URI's fragment names it."""
        return f"{self._where}#{name}"

    @contextmanager
    def open(self, name: str, *, offset: int, validator: str | None) -> Iterator[Transfer]:
        """Request a layer, whose digest is its validator. See `Origin.open`."""
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
            "the registry did not give the model",
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
                remedy="push the model as an artifact of its own (oras push REFERENCE model.onnx)",
                reason=SourceReason.NOT_FOUND,
            )
        layers = manifest["layers"]
        titled = {layer.get("annotations", {}).get(_TITLE, ""): layer for layer in layers}
        if len(layers) == 1 and "" in titled:
            return {"model.onnx": layers[0]}
        return {title: layer for title, layer in titled.items() if title}

    def _only_model(self) -> str:
        models = [title for title in self._layers if title.endswith(".onnx")]
        if len(models) == 1:
            return models[0]
        raise SourceError(
            "the artifact has several models" if models else "the artifact has no .onnx file",
            where=self._where,
            why=f"its files are {', '.join(sorted(self._layers)) or 'without titles'}",
            remedy="name one after a # at the end of the address",
            reason=SourceReason.NOT_FOUND,
        )

    @contextmanager
    def _translated(self, where: str) -> Iterator[None]:
        try:
            yield
        except EnginesmithError:
            # What a reporter or the disk raises inside the `with` is not the client's.
            raise
        except ValueError as error:
            raise _denied(where, redact(str(error))) from error
        except Exception as error:  # requests' and urllib3's own, and oras's
            raise SourceError(
                "the connection failed",
                where=where,
                why=redact(one_line(str(error))),
                remedy="try again: what came is kept",
                reason=SourceReason.CONNECTION_LOST,
                retry=True,
            ) from error


def _connect(reference: str, *, plain_http: bool) -> RegistrySession:
    try:
        return open_session(reference, plain_http=plain_http)
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
        "the registry refuses to give the model",
        where=where,
        why=why,
        remedy=f"log in with a container tool, or set {REGISTRY.credentials}",
        reason=SourceReason.ACCESS_DENIED,
    )
