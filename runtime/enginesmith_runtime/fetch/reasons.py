"""Why a model could not be had: the stable words of `SourceError.reason`."""

from enum import StrEnum, unique

__all__ = ["SourceReason"]


@unique
class SourceReason(StrEnum):
    """`CONNECTION_LOST` and, where the server may mend itself, `TRUNCATED` are worth another attempt."""

    NOT_FOUND = "NotFound"
    ACCESS_DENIED = "AccessDenied"
    DIGEST_MISMATCH = "DigestMismatch"
    """The bytes are not the ones that the user named; nothing of them was kept."""
    CONNECTION_LOST = "ConnectionLost"
    TRUNCATED = "Truncated"
    """Fewer bytes than the source or the model says there are."""
    CHANGED = "Changed"
    """The source changed while it was read."""
    PATH_ESCAPES = "PathEscapes"
    """The model names a weights file outside its own folder."""
    EXTERNAL_DATA_MISSING = "ExternalDataMissing"
    UNSUPPORTED_SCHEME = "UnsupportedScheme"
    UNKNOWN_OPTION = "UnknownOption"
    DISK_FULL = "DiskFull"
    MISSING_CLIENT = "MissingClient"
