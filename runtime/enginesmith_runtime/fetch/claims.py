"""Models in volumes of a cluster: `pvc://claim/path` is a file of the volume that the pod has mounted for the claim."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

from enginesmith_contract.environment import CLAIMS_FOLDER
from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource

__all__ = ["in_mounted_claim"]

_SCHEME: Final = "pvc://"


def in_mounted_claim(source: ModelSource, variables: Mapping[str, str]) -> ModelSource:
    """Return the source with a pvc:// URI replaced by the path of the mounted file. Other URIs do not change.

    Raises:
        enginesmith_contract.errors.SourceError: `PathEscapes` if the path leaves its claim.
    """
    folder = variables.get(CLAIMS_FOLDER)
    if not folder or not source.uri.startswith(_SCHEME):
        return source
    place = PurePosixPath(source.uri.removeprefix(_SCHEME))
    if ".." in place.parts or place.is_absolute():
        raise SourceError(
            "the path leaves its volume",
            where=source.uri,
            remedy="write pvc://CLAIM/PATH without `..`",
            reason="PathEscapes",
        )
    return source.model_copy(update={"uri": f"{folder}/{place}"})
