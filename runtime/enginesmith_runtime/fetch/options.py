"""Options of a source's client. They have the same names for every client, and none is a secret."""

from enginesmith_contract.errors import SourceError
from enginesmith_contract.preparation import ModelSource
from enginesmith_runtime.fetch.location import redact
from enginesmith_runtime.fetch.reasons import SourceReason

__all__ = ["check_options", "is_on"]


def check_options(source: ModelSource, known: tuple[str, ...]) -> None:
    """Refuse an option that the source's client does not have.

    Raises:
        enginesmith_contract.errors.SourceError: `UnknownOption`.
    """
    unknown = sorted(set(source.options) - set(known))
    if unknown:
        raise SourceError(
            f"the source has no option {', '.join(unknown)}",
            where=redact(source.uri),
            remedy=f"use {', '.join(known)}; credentials come from the environment" if known else "leave options out",
            reason=SourceReason.UNKNOWN_OPTION,
        )


def is_on(source: ModelSource, option: str) -> bool:
    """Whether a yes-or-no option is set to "true"."""
    return source.options.get(option, "").lower() == "true"
