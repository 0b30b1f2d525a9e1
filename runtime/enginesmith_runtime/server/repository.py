"""The models of one server and their states. The models are fixed at the start; only their states change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from enginesmith_contract.serve_request import ServedModel
from enginesmith_runtime.server.errors import Code, ProtocolError
from enginesmith_runtime.server.model import LoadedModel

__all__ = ["Entry", "ModelState", "Repository"]


class ModelState(StrEnum):
    """State of a model as RepositoryIndex spells it."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(slots=True)
class Entry:
    """One model: its request, its state, and the loaded model if it is ready."""

    served: ServedModel
    state: ModelState = ModelState.LOADING
    reason: str = ""
    model: LoadedModel | None = None


class Repository:
    """Looks models up by name and version.

    Attributes:
        draining: Whether the server reports NOT_SERVING. It still answers requests.
    """

    def __init__(self, served: Sequence[ServedModel]) -> None:
        self._entries = {model.name: Entry(model) for model in served}
        self.draining = False

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def ready(self) -> bool:
        """Whether every model is ready and the server is not draining."""
        return not self.draining and all(entry.state is ModelState.READY for entry in self)

    def make_ready(self, model: LoadedModel) -> None:
        """Mark `model` as ready."""
        entry = self._entries[model.name]
        entry.model, entry.state, entry.reason = model, ModelState.READY, ""

    def find(self, name: str, version: str) -> Entry:
        """Return the entry of a model. An empty version means the only version.

        Raises:
            ProtocolError: NOT_FOUND with the existing models or versions.
        """
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(f"'{known}'" for known in self._entries)
            raise ProtocolError(Code.NOT_FOUND, f"model '{name}' is not served here; this server has {known}")
        if version and version != entry.served.version:
            raise ProtocolError(
                Code.NOT_FOUND,
                f"model '{name}' has no version '{version}'; this server has version '{entry.served.version}'",
            )
        return entry

    def find_ready(self, name: str, version: str) -> LoadedModel:
        """Return the model.

        Raises:
            ProtocolError: NOT_FOUND, or UNAVAILABLE while the model loads.
        """
        entry = self.find(name, version)
        if entry.model is None:
            raise ProtocolError(Code.UNAVAILABLE, f"model '{name}' is {entry.state}; try again when it is ready")
        return entry.model
