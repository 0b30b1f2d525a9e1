"""The toolchain catalog: a ConfigMap with one key for each toolchain, as typed entries.

    data:
      trt-10.13-cu12: |
        backend: tensorrt
        version: 10.13.3.9
        cuda: "12.9"
        platforms: [linux/amd64]
        image: registry.example/enginesmith-runtime@sha256:...
        preparationImage: registry.example/enginesmith-prepare@sha256:...   # omitted: another entry's

An entry that cannot be read is named with its reason and takes none of the others with it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, NamedTuple

import yaml
from pydantic import AfterValidator, Field, ValidationError

from enginesmith_contract.backend_traits import traits
from enginesmith_contract.backends import Backend, Toolchain
from enginesmith_contract.text import one_line
from enginesmith_operator.api.base import ApiModel, Finding, finding_error
from enginesmith_operator.api.engine_policy import EnginePolicy
from enginesmith_operator.api.patterns import allows_image
from enginesmith_operator.api.scalars import Identifier
from enginesmith_operator.planning.refusals import Refusal

__all__ = ["Catalog", "CatalogEntry", "read_catalog"]

_BY_DIGEST: Final = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_LONGEST: Final = 65_536


def _check_image(value: str) -> str:
    if not _BY_DIGEST.fullmatch(value):
        reason = "expected an image by digest (name@sha256:...), because the image of a tag can change"
        raise finding_error(Finding(reason))
    return value


_Version = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=63)]
_Platform = Annotated[str, Field(pattern=r"^[a-z0-9]+/[a-z0-9]+$", max_length=63)]
_Image = Annotated[str, AfterValidator(_check_image), Field(max_length=2048)]


class CatalogEntry(ApiModel):
    """One toolchain of the catalog.

    Attributes:
        backend: what it builds and runs.
        version: of the backend's library, in full.
        cuda: CUDA build of the library; omitted: none.
        provider: ONNX Runtime execution provider; omitted: `cpu` for that backend.
        platforms: that the image is for, as os/arch.
        image: that builds and serves, by digest.
        preparation_image: that prepares models, by digest; omitted: another entry's, or `image`.
    """

    backend: Backend
    version: _Version
    cuda: _Version | None = None
    provider: Identifier | None = None
    platforms: Annotated[tuple[_Platform, ...], Field(min_length=1, max_length=16)] = ("linux/amd64",)
    image: _Image
    preparation_image: _Image | None = None


class Catalog(NamedTuple):
    """All entries that can be read.

    Attributes:
        entries: by name, in the order of the names.
        problems: entries that cannot, one sentence each, in the order of their names.
    """

    entries: Mapping[str, CatalogEntry]
    problems: tuple[Refusal, ...] = ()

    @property
    def toolchains(self) -> tuple[Toolchain, ...]:
        """Return what plans choose from."""
        return tuple(_toolchain(name, entry) for name, entry in self.entries.items())

    @property
    def platforms(self) -> dict[str, tuple[str, ...]]:
        """Return the platforms of each toolchain's image by the toolchain's name."""
        return {name: entry.platforms for name, entry in self.entries.items()}

    def preparation_image(self, chosen: Iterable[Toolchain], policies: Iterable[EnginePolicy] = ()) -> str | None:
        """Return the image that prepares a model for these toolchains; None: there is none that policies allow.

        Every runtime image can prepare; one that only prepares is smaller.
        """
        names = [toolchain.name for toolchain in chosen if toolchain.name in self.entries]
        ordered = [self.entries[name] for name in dict.fromkeys([*names, *self.entries])]
        named = [entry.preparation_image for entry in ordered if entry.preparation_image]
        limits = [one.spec.images for one in policies if one.spec.images is not None]
        images = (*named, *(entry.image for entry in ordered))
        return next((one for one in images if all(allows_image(one, allowed) for allowed in limits)), None)


def read_catalog(data: Mapping[str, str]) -> Catalog:
    """Return the catalog that a ConfigMap's data holds."""
    entries: dict[str, CatalogEntry] = {}
    problems: list[Refusal] = []
    for name in sorted(data):
        found = _read_entry(data[name])
        if isinstance(found, CatalogEntry):
            entries[name] = found
        else:
            wanted = "correct the catalog; the other entries are used meanwhile"
            problems.append(Refusal(rule="CatalogEntryInvalid", found=f"{name}: {found}", wanted=wanted))
    return Catalog(entries=entries, problems=tuple(problems))


def _read_entry(text: str) -> CatalogEntry | str:
    if len(text) > _LONGEST:
        return "the entry is too long"
    try:
        # BaseLoader: a version such as 10.10 stays what was written.
        document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - it makes strings, lists and mappings only
    except (yaml.YAMLError, RecursionError) as error:
        return f"no YAML: {one_line(str(error))[:200]}"
    if not isinstance(document, dict):
        return "expected a mapping with backend, version and image"
    try:
        return CatalogEntry.model_validate(document, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}"


def _toolchain(name: str, entry: CatalogEntry) -> Toolchain:
    provider = entry.provider
    if traits(entry.backend).execution_providers and provider is None:
        provider = "cpu"
    return Toolchain(
        name=name,
        backend=entry.backend,
        version=entry.version,
        cuda=entry.cuda,
        provider=provider,
        image=entry.image,
    )
