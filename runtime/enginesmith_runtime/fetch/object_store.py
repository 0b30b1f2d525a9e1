"""Models in S3, Google Cloud Storage, Alibaba OSS and on the Hugging Face Hub, through their fsspec file systems.

Each reads credentials from the environment as its vendor's tools do. The file systems know nothing of resuming, but
they read ranges and tell an object's version, which is all that it takes.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from enginesmith_contract.errors import EnginesmithError, SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_contract.text import one_line
from enginesmith_runtime.fetch.location import Scheme, model_name, redact
from enginesmith_runtime.fetch.options import check_options, is_on
from enginesmith_runtime.fetch.origin import Transfer
from enginesmith_runtime.fetch.reasons import SourceReason

__all__ = ["ObjectStoreOrigin"]

_READ_BYTES: Final = 8 << 20
_VERSION_FIELDS: Final = ("ETag", "etag", "crc32c", "md5Hash", "blob_id", "generation", "mtime", "LastModified")


@dataclass(frozen=True, kw_only=True)
class _Client:
    """One kind of file system: where its class is, what options it takes, what its credentials are called."""

    module: str
    name: str
    options: tuple[str, ...]
    arguments: Callable[[ModelSource], Mapping[str, object]]
    credentials: str


def _s3_arguments(source: ModelSource) -> Mapping[str, object]:
    region = source.options.get("region")
    return {
        "anon": is_on(source, "anonymous"),
        "endpoint_url": source.options.get("endpoint"),
        "client_kwargs": {"region_name": region} if region else {},
    }


def _gs_arguments(source: ModelSource) -> Mapping[str, object]:
    anonymous = {"token": "anon"} if is_on(source, "anonymous") else {}
    return {"endpoint_url": source.options.get("endpoint"), **anonymous}


def _oss_arguments(source: ModelSource) -> Mapping[str, object]:
    return {"endpoint": source.options["endpoint"]} if "endpoint" in source.options else {}


def _hf_arguments(source: ModelSource) -> Mapping[str, object]:
    return {"endpoint": source.options.get("endpoint")}


_CLIENTS: Final[Mapping[Scheme, _Client]] = {
    Scheme.S3: _Client(
        module="s3fs",
        name="S3FileSystem",
        options=("endpoint", "region", "anonymous"),
        arguments=_s3_arguments,
        credentials="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
    Scheme.GS: _Client(
        module="gcsfs",
        name="GCSFileSystem",
        options=("endpoint", "anonymous"),
        arguments=_gs_arguments,
        credentials="GOOGLE_APPLICATION_CREDENTIALS",
    ),
    Scheme.OSS: _Client(
        module="ossfs",
        name="OSSFileSystem",
        options=("endpoint",),
        arguments=_oss_arguments,
        credentials="OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
    ),
    Scheme.HF: _Client(
        module="huggingface_hub",
        name="HfFileSystem",
        options=("endpoint",),
        arguments=_hf_arguments,
        credentials="HF_TOKEN",
    ),
}


class ObjectStoreOrigin:
    """The folder of a model in an object store.

    Attributes:
        model: the model's file name.
    """

    def __init__(self, source: ModelSource, scheme: Scheme) -> None:
        """Open the client; no request is made.

        Raises:
            enginesmith_contract.errors.SourceError: `MissingClient`, `UnknownOption`, `NotFound`.
        """
        self._client = _CLIENTS[scheme]
        self._uri = source.uri
        check_options(source, self._client.options)
        folder, slash, name = source.uri.partition("://")[2].rpartition("/")
        if not folder or not slash or not name:
            raise SourceError(
                "the address names no file",
                where=redact(source.uri),
                remedy=f"write {scheme}://BUCKET/PATH/model.onnx",
                reason=SourceReason.NOT_FOUND,
            )
        self._folder = folder
        self._object = name
        self.model = model_name(name)
        with self._translated(self.model):
            self._files = self._file_system(source)

    def describe(self, name: str) -> str:
        """Return the file's address."""
        return f"{redact(self._uri).rpartition('/')[0]}/{name}"

    @contextmanager
    def open(self, name: str, *, offset: int, validator: str | None) -> Iterator[Transfer]:
        """Look the object up; its bytes are requested as they are read. See `Origin.open`."""
        path = f"{self._folder}/{self._object if name == self.model else name}"
        with self._translated(name):
            facts = self._files.info(path, refresh=True)
            version = _version(facts)
            start = offset if version is not None and version == validator else 0
            size_bytes = facts.get("size")
            yield Transfer(
                offset=start,
                total_bytes=None if size_bytes is None else int(size_bytes),
                validator=version,
                chunks=self._chunks(path, start),
            )
            if _version(self._files.info(path, refresh=True)) != version:
                raise SourceError(
                    "the object changed while it was read",
                    where=self.describe(name),
                    reason=SourceReason.CHANGED,
                    retry=True,
                )

    def _chunks(self, path: str, start: int) -> Iterator[bytes]:
        with self._files.open(path, "rb", block_size=_READ_BYTES, cache_type="readahead") as stream:
            stream.seek(start)
            while chunk := stream.read(_READ_BYTES):
                yield bytes(chunk)

    def _file_system(self, source: ModelSource) -> Any:
        try:
            module = import_module(self._client.module)
        except ImportError as error:
            raise SourceError(
                f"the client for {source.uri.partition(':')[0]}:// is not installed",
                where=redact(source.uri),
                why=f"there is no module {error.name or self._client.module}",
                remedy="run: pip install 'enginesmith[sources]'",
                reason=SourceReason.MISSING_CLIENT,
            ) from error
        # Not cached by the library: another thread's file system may hold other credentials or a closed loop.
        factory = getattr(module, self._client.name)
        return factory(skip_instance_cache=True, **self._client.arguments(source))

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        where = self.describe(name)
        try:
            yield
        except EnginesmithError:
            # What a reporter or the disk raises inside the `with` is not the client's.
            raise
        except FileNotFoundError as error:
            raise SourceError(
                "there is no such model",
                where=where,
                remedy="check bucket and path",
                reason=SourceReason.NOT_FOUND,
            ) from error
        except Exception as error:  # each client has a tree of exceptions of its own
            raise self._from_client(error, where) from error

    def _from_client(self, error: Exception, where: str) -> SourceError:
        why = redact(one_line(str(error))) or type(error).__name__
        if isinstance(error, PermissionError) or "redential" in f"{type(error).__name__} {why}":
            return SourceError(
                "the source refuses to give the model",
                where=where,
                why=why,
                remedy=f"set {self._client.credentials}",
                reason=SourceReason.ACCESS_DENIED,
            )
        return SourceError(
            "the connection failed",
            where=where,
            why=why,
            remedy="try again: what came is kept; check the endpoint",
            reason=SourceReason.CONNECTION_LOST,
            retry=True,
        )


def _version(facts: Mapping[str, Any]) -> str | None:
    found = [f"{field}={facts[field]}" for field in _VERSION_FIELDS if facts.get(field)]
    return " ".join([*found, f"size={facts.get('size')}"]) if found else None
